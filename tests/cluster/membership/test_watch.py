"""What the log says of the other members: one line for each change, and none while it lasts."""

import asyncio
import logging

import pytest

from registry.cluster.membership.clock_offsets import ClockOffsets
from registry.cluster.membership.members import PRESUMED_DEAD_S, Members
from registry.cluster.membership.watch import ACQUAINTED_S, RESTART_GRACE_S, MemberWatch
from registry.cluster.rpc.messages import Heartbeat
from registry.settings.policy import Policy, parse_rule
from registry.telemetry.events import LogEvent
from tests.support.seams import StillClock
from tests.support.stand_ins import RecordedMembership

OTHER = "1" * 32
POLICY = Policy((parse_rule("*", 2, "local"),))
MISSPELT = Policy((parse_rule("prod/*", "eu=1,ue=1", "local"), *POLICY.rules))


class Watched:
    """A watch, one member, and what is logged."""

    def __init__(self, monkeypatch, caplog):
        self.now = asyncio.get_running_loop().time()
        for module in ("members", "watch"):
            monkeypatch.setattr(f"registry.cluster.membership.{module}.now_s", lambda: self.now)
        caplog.set_level(logging.INFO, "concord.members")
        self._log = caplog
        self.clock = StillClock()
        self.offsets = ClockOffsets(self.clock)
        self.members = Members("0" * 32, "eu", RecordedMembership(self.offsets))
        self.begin(POLICY)
        self._sequence = 0

    def begin(self, policy):
        self.watch = MemberWatch(self.members, policy, True, self.clock, self.offsets, None, None)

    def hear(self, incarnation=1, **more):
        self._sequence += 1
        more = {"name": "eu-2", "policy": POLICY.digest} | more
        beat = Heartbeat(more.pop("site", "eu"), "http://o:1", "", "1", incarnation, 0, 0, bytes(16), {}, **more)
        return self.members.receive_heartbeat(OTHER, beat, self._sequence, on_bus=False)

    def look(self):
        """The events that a look and another one behind it log, with their fields."""
        self._log.clear()
        self.watch.look()
        self.watch.look()
        return [(record.event, record.fields) for record in self._log.records]


def logged(event, **fields):
    return [(str(event), {"member": f"eu-2 ({OTHER})"} | fields)]


@pytest.fixture
async def watched(monkeypatch, caplog):
    return Watched(monkeypatch, caplog)


async def test_a_member_that_falls_silent_and_is_back_is_two_lines(watched):
    watched.hear()
    assert watched.look() == logged(LogEvent.MEMBER_SEEN, site="eu")
    watched.now += PRESUMED_DEAD_S + 1
    assert watched.look() == logged(LogEvent.MEMBER_PRESUMED_DEAD, silent_s=pytest.approx(PRESUMED_DEAD_S + 1))
    watched.now += 60
    watched.hear()
    assert watched.look() == logged(LogEvent.MEMBER_RECOVERED, silent_s=pytest.approx(PRESUMED_DEAD_S + 61))


async def test_a_member_that_is_restarted_quickly_is_one_line(watched):
    watched.hear()
    watched.look()
    watched.members.get(OTHER).failed("http://o:1 cannot be reached: connection refused")
    watched.now += RESTART_GRACE_S - 1
    assert watched.look() == []
    watched.hear(incarnation=2)
    assert watched.look() == logged(LogEvent.MEMBER_RESTARTED)


async def test_a_member_that_is_heard_and_does_not_answer_is_a_line_with_the_reason(watched):
    watched.hear()
    watched.look()
    member = watched.members.get(OTHER)
    member.failed(reason := "http://o:1 cannot be reached: no route to host")
    watched.now += RESTART_GRACE_S + 1
    watched.hear()
    assert watched.look() == logged(LogEvent.MEMBER_REQUESTS_FAILED, error=reason)
    member.answered()
    assert watched.look() == logged(LogEvent.MEMBER_REQUESTS_RECOVERED, failing_s=pytest.approx(RESTART_GRACE_S + 1))


async def test_a_member_with_another_policy_is_a_warning_until_it_has_the_same(watched):
    watched.hear(policy="cd" * 8)
    assert watched.look()[1:] == logged(LogEvent.POLICY_MISMATCH_DETECTED)
    assert watched.watch.policy_matches(watched.members.get(OTHER)) is False
    watched.hear()
    assert watched.look() == logged(LogEvent.POLICY_MISMATCH_RESOLVED)
    watched.hear(policy="")
    assert watched.look() == []
    assert watched.watch.policy_matches(watched.members.get(OTHER)) is None


async def test_a_clock_that_is_more_than_a_second_off_is_a_warning_until_it_is_right(watched):
    steps = [(5000, [5.0]), (0, []), (-3000, [-3.0])]
    for incarnation, (ahead_ms, detected) in enumerate(steps, 1):
        member = watched.hear(incarnation=incarnation, now_ms=watched.clock.now_ms() + ahead_ms)
        watched.offsets.on_answer(member, watched.clock.steady_s(), member.beat)
        lines = watched.look()
        found = [round(fields["offset_s"], 1) for event, fields in lines if event == str(LogEvent.CLOCK_SKEW_DETECTED)]
        assert found == detected
        assert [event for event, _ in lines].count(str(LogEvent.CLOCK_SKEW_RESOLVED)) == (not detected)


async def test_a_site_of_the_policy_where_nobody_keeps_copies_is_a_warning_until_somebody_does(watched):
    watched.begin(MISSPELT)
    watched.hear(policy=MISSPELT.digest)
    assert watched.watch.empty_sites() == ["ue"]
    assert len(watched.look()) == 1, "others may not have been heard yet"
    watched.now += ACQUAINTED_S
    watched.hear(policy=MISSPELT.digest)
    assert watched.look() == [(str(LogEvent.POLICY_SITE_UNSERVED), {"site": "ue"})]
    watched.hear(site="ue", proxy=True, policy=MISSPELT.digest)
    assert watched.look() == []
    watched.hear(site="ue", policy=MISSPELT.digest)
    assert watched.look() == [(str(LogEvent.POLICY_SITE_SERVED), {"site": "ue"})]


async def test_a_member_that_was_forgotten_leaves_nothing_behind(watched):
    watched.hear(now_ms=watched.clock.now_ms())
    watched.look()
    member = watched.members.get(OTHER)
    watched.members.remove([OTHER])
    assert watched.look() == []
    assert watched.offsets.offset_s(member) is None
