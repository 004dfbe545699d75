"""What the log says of pushes that were refused."""

from registry.errors import NotSecured, StorageFailed
from registry.refusals import AT_ONCE, EVERY_S, Refusals
from tests.support.seams import StillClock


def test_many_at_once_are_a_few_lines_and_the_others_are_counted(caplog):
    clock = StillClock()
    refusals = Refusals(clock)
    for number in range(AT_ONCE + 7):
        refusals.note(f"app{number}", StorageFailed("no room", {"taken_bytes": number, "holders": ["not shown"]}))
    assert len(caplog.records) == AT_ONCE
    assert caplog.records[3].fields == {"repository": "app3", "status": 503, "taken_bytes": 3}
    clock.at_ms += int(EVERY_S * 1000)
    for _ in range(2):
        refusals.note("later", NotSecured("too few"))
    assert [record.fields.get("left_out_before") for record in caplog.records[-2:]] == [7, None]
