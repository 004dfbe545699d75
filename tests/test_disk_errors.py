"""A disk that is full, told from one that fails, and told once a minute."""

import errno

import apsw
import pytest

from registry.disk_errors import LOG_INTERVAL_S, FullDiskFilter, is_full, storage_failure
from registry.errors import DiskFull, StorageFailed
from registry.telemetry.event_log import make_record
from registry.telemetry.events import LogEvent


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no space"), OSError(errno.EDQUOT, "quota"), apsw.FullError("x")]
)
def test_storage_failure_of_a_disk_without_room_says_that_it_is_full(error):
    assert is_full(error)
    failure = storage_failure("the catalog could not be written", error)
    assert isinstance(failure, DiskFull) and failure.counted_as == "disk-full"
    assert str(failure) == "this instance's disk is full; push to another one, or again in a while"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, "Input/output error"), "the disk failed: Input/output error"),
        (apsw.IOError("disk I/O error"), "the disk failed: IOError: disk I/O error"),
    ],
)
def test_storage_failure_of_anything_else_says_what_it_was(error, said):
    assert not is_full(error)
    failure = storage_failure("the disk failed", error)
    assert not isinstance(failure, DiskFull) and str(failure) == said
    assert failure.counted_as == "storage-failed"


def record(at_s, *args):
    fields = {f"field{number}": value for number, value in enumerate(args)}
    made = make_record(LogEvent.MAINTENANCE_FAILED, "it failed: %(field0)s", **fields)
    made.created = at_s
    return made


def test_full_disk_filter_lets_one_line_a_minute_through_whoever_writes_it():
    admits = FullDiskFilter().filter
    assert [admits(record(at_s, DiskFull())) for at_s in (1000.0, 1001.0, 1059.0)] == [True, False, False]
    assert admits(record(1000.0 + LOG_INTERVAL_S, "x", DiskFull()))
    assert admits(record(500.0, DiskFull())), "a clock that is set back makes it say nothing for long"


def test_full_disk_filter_leaves_everything_else_alone():
    admits = FullDiskFilter().filter
    assert all(admits(record(1000.0, StorageFailed("the disk failed"))) for _ in range(3))
    assert all(admits(record(1000.0, "this instance's disk is full")) for _ in range(3))
