"""The audit log of a process: its files, restarts, and a disk that takes nothing for a while."""

import asyncio
import errno

import msgspec
import pytest

from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.audit import log as module
from registry.audit.chain import EMPTY, heads
from registry.audit.log import DIRECTORY, AuditLog, read_lines

KEPT = 10 * module.FILE_BYTES


@pytest.fixture
def disk(tmp_path):
    return SystemDisk(tmp_path)


def log_of(disk, slot=0, extent="writes"):
    return AuditLog(disk, SystemClock(), slot, extent, KEPT)


def lines_of(disk, slot=0):
    names = [name for name in disk.names(DIRECTORY) if name.startswith(f"{slot:03}-")]
    return [line for name in names for line in read_lines(disk, name)]


def events_of(disk, slot=0):
    lines = lines_of(disk, slot)
    list(heads(lines, EMPTY if b'"n":1,' in lines[0] else None))  # it holds
    return [msgspec.json.decode(line)["event"] for line in lines]


async def test_what_is_noted_is_written_soon(disk):
    log = log_of(disk)
    log.note("first", path="/v2/app")
    await asyncio.sleep(module.WRITE_AFTER_S * 3)
    log.note("second")
    await log.close()
    assert events_of(disk) == ["first", "second"]
    assert msgspec.json.decode(lines_of(disk)[0])["path"] == "/v2/app"


async def test_a_successor_goes_on_with_the_chain_also_after_a_line_that_was_cut_off(disk, tmp_path):
    for event in ("one", "two", "three"):
        log = log_of(disk)
        log.note(event)
        await log.close()
        last = sorted((tmp_path / DIRECTORY).iterdir())[-1]
        with last.open("ab") as file:
            file.write(b'{"n": 99, "prev')
    (tmp_path / DIRECTORY / "000-000000000004.jsonl").write_bytes(b"")  # begun, and nothing written
    log = log_of(disk)
    log.note("four")
    await log.close()
    assert events_of(disk) == ["one", "two", "three", "four"]


async def test_processes_have_chains_of_their_own(disk):
    logs = [log_of(disk, slot) for slot in (0, 1)]
    for number, log in enumerate(logs):
        log.note(f"of {number}")
        await log.close()
    assert (events_of(disk, 0), events_of(disk, 1)) == (["of 0"], ["of 1"])


async def test_a_full_file_is_followed_by_another_and_the_oldest_go(disk, monkeypatch):
    monkeypatch.setattr(module, "FILE_BYTES", 100)
    log = AuditLog(disk, SystemClock(), 0, "writes", 300)
    for number in range(6):
        log.note(f"event {number}")
        await log._write()
    assert events_of(disk) == ["event 3", "event 4", "event 5"]
    await log.close()


async def test_lines_wait_for_a_disk_that_takes_none(disk, monkeypatch):
    log = log_of(disk)
    real = disk.create

    def full(path):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(disk, "create", full)
    log.note("early")
    await asyncio.sleep(module.WRITE_AFTER_S * 2)
    monkeypatch.setattr(module, "MAX_PENDING", 2)
    for _ in range(5):
        log.note("late")
    monkeypatch.setattr(disk, "create", real)
    await log.close()
    assert events_of(disk) == ["early", "late"]
    assert msgspec.json.decode(lines_of(disk)[0])["lines_left_out_before"] == 4


async def test_nothing_is_kept_where_it_is_off(disk, tmp_path):
    log = log_of(disk, extent="off")
    log.note("event")
    await log.close()
    assert not (tmp_path / DIRECTORY).exists()
