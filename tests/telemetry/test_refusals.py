"""What the log says of pushes that were refused."""

import pytest

from registry.errors import DigestInvalid, DiskBudgetUsed, DiskFull, StorageFailed, TooManyUploads, WriteConcernTimeout
from registry.telemetry.log_limit import AT_ONCE, PERIOD_S
from registry.telemetry.refusals import Refusals
from tests.support.seams import StillClock


def test_many_at_once_are_a_few_lines_and_the_others_are_counted(caplog):
    clock = StillClock()
    refusals = Refusals(clock)
    for number in range(AT_ONCE + 7):
        refusals.note(f"app{number}", StorageFailed("no room", {"taken_bytes": number, "holders": ["not shown"]}))
    assert len(caplog.records) == AT_ONCE
    fields = {"repository": "app3", "status": 503, "reason": "storage-failed", "taken_bytes": 3}
    assert caplog.records[3].fields.items() >= fields.items() and "holders" not in caplog.records[3].fields
    clock.at_ms += int(PERIOD_S * 1000)
    for _ in range(2):
        refusals.note("later", WriteConcernTimeout("too few"))
    assert [record.fields.get("left_out_before") for record in caplog.records[-2:]] == [7, None]


def test_refused_pushes_are_counted_by_reason_and_deletes_are_not():
    refusals = Refusals(StillClock())
    errors = [
        DiskFull(),
        WriteConcernTimeout("too few"),
        DiskBudgetUsed(),
        DigestInvalid("none"),
        TooManyUploads("many"),
    ]
    for method in ("POST", "PUT", "DELETE"):
        for error in errors:
            with pytest.raises(type(error)), refusals.noting("app", method):
                raise error
    reasons = ["disk-full", "write-concern", "disk-budget", "digest-invalid", "too-many-uploads"]
    assert refusals.counts == dict.fromkeys(reasons, 2)
