import asyncio

import pytest

from registry.cluster.membership.members import Members
from registry.cluster.membership.store import SAVE_SEQUENCE_S, MemberRecords
from tests.cluster.membership.test_members import OTHER, OWN, THIRD, beat
from tests.support.stand_ins import RecordedMembership


@pytest.fixture
async def members():
    return Members(OWN, "eu", RecordedMembership())


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: self.now)


async def test_records_of_members_are_due_when_they_change_and_sequences_once_in_a_while(members, monkeypatch):
    one, other = (members.receive_heartbeat(instance, beat(), 5, on_bus=False) for instance in (OTHER, THIRD))
    clock, records = Clock(monkeypatch), MemberRecords()

    def saved(now_ms=0):
        rows = records.due([one, other], now_ms)
        records.saved(rows)
        return [(row.instance, row.incarnation, row.sequence) for row in rows]

    assert saved() == [(OTHER, 1, 5), (THIRD, 1, 5)]
    clock.now += 2
    one.sequence = other.sequence = 6
    assert saved() == []
    members.receive_heartbeat(THIRD, beat(incarnation=2), 1, on_bus=False)
    assert saved() == [(THIRD, 2, 1)], "a new incarnation is saved at once"
    clock.now += SAVE_SEQUENCE_S
    assert saved() == [(OTHER, 1, 6), (THIRD, 2, 1)]


async def test_records_that_were_not_saved_are_due_again(members):
    records = MemberRecords()
    member = members.receive_heartbeat(OTHER, beat(), 1, on_bus=False)
    assert len(records.due([member], 0)) == len(records.due([member], 0)) == 1
