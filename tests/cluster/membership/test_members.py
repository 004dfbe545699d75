import asyncio

import msgspec
import pytest

from registry.catalog.members import MemberRow, SyncPoint
from registry.cluster.membership.members import AWAY_S, PRESUMED_DEAD_S, Member, Members, Progress
from registry.cluster.membership.store import MemberRecords
from registry.cluster.rpc.messages import Heartbeat
from registry.telemetry.events import LogEvent
from tests.support.logs import recorded
from tests.support.stand_ins import RecordedMembership

OWN, OTHER, THIRD = "0" * 32, "1" * 32, "2" * 32


def beat(incarnation=1, published_seq=0, site="eu", **more):
    return Heartbeat(
        site,
        "http://other:1",
        more.pop("advertise_site", ""),
        "1",
        incarnation,
        0,
        published_seq,
        bytes(16),
        {},
        **more,
    )


@pytest.fixture
async def members():
    return Members(OWN, "eu", RecordedMembership())


class Loop:
    """Moves the loop's clock."""

    def __init__(self, monkeypatch):
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time()
        monkeypatch.setattr("registry.cluster.membership.members.now_s", lambda: self.now)


async def test_an_older_heartbeat_changes_nothing(members):
    assert members.receive_heartbeat(OTHER, beat(incarnation=5, published_seq=3), 7, on_bus=True)
    assert not members.receive_heartbeat(OTHER, beat(incarnation=5, published_seq=1), 7, on_bus=True)
    assert not members.receive_heartbeat(OTHER, beat(incarnation=5, published_seq=1), 6, on_bus=True)
    assert not members.receive_heartbeat(OTHER, beat(incarnation=4, published_seq=9), 99, on_bus=True)
    assert members.get(OTHER).beat.published_seq == 3
    assert members.receive_heartbeat(OTHER, beat(incarnation=6), 1, on_bus=True)


async def test_our_own_heartbeat_is_nobodys(members):
    assert members.receive_heartbeat(OWN, beat(), 1, on_bus=True) is None
    assert members.all() == []


async def test_a_member_is_presumed_dead_after_three_missed_heartbeats(members, monkeypatch):
    loop = Loop(monkeypatch)
    member = members.receive_heartbeat(OTHER, beat(), 1, on_bus=False)
    loop.now += PRESUMED_DEAD_S - 0.1
    assert member.live
    loop.now += 0.2
    assert not member.live
    assert not member.reachable


async def test_a_member_that_failed_is_left_alone_for_longer_each_time(members, monkeypatch):
    loop = Loop(monkeypatch)
    member = members.receive_heartbeat(OTHER, beat(), 1, on_bus=False)
    for pause in (1, 2, 4):
        member.failed()
        loop.now += pause - 0.1
        assert not member.reachable
        loop.now += 0.2
        members.receive_heartbeat(OTHER, beat(), int(loop.now * 1000), on_bus=False)
        assert member.reachable
    member.answered()
    member.failed()
    loop.now += 1.1
    assert member.reachable, "an answer makes the first pause short again"


async def test_a_member_that_failed_is_not_expected_to_be_prompt_until_it_has_answered(members, monkeypatch):
    loop = Loop(monkeypatch)
    member = members.receive_heartbeat(OTHER, beat(), 1, on_bus=False)
    member.failed()
    loop.now += 1.1
    assert member.reachable and member.suspect and not member.prompt
    member.answered()
    assert member.prompt


async def test_a_member_may_be_restarting_for_ten_seconds_after_it_stopped_answering(members, monkeypatch):
    loop = Loop(monkeypatch)
    member = members.receive_heartbeat(OTHER, beat(), 1, on_bus=False)
    assert not members.may_recover()
    for _ in range(10):
        member.failed()
        loop.now += 0.9
        assert members.may_recover()
    loop.now += 1.1
    assert not members.may_recover()
    member.answered()
    member.failed()
    assert members.may_recover()


async def test_whom_only_the_disk_knows_may_come_until_we_have_been_up_for_ten_seconds(members, monkeypatch):
    loop = Loop(monkeypatch)
    members.load([MemberRow(OTHER, "eu", "http://other:1", "", "1", 1, 0)], {})
    assert members.may_recover()
    loop.now += 10.1
    assert not members.may_recover()


async def test_a_member_with_an_unanswered_question_is_not_expected_to_be_prompt(members, monkeypatch):
    loop = Loop(monkeypatch)
    member = members.receive_heartbeat(OTHER, beat(), 1, on_bus=False)
    member.pending_since.append(loop.now)
    assert member.prompt
    loop.now += 0.3
    assert not member.prompt
    assert member.reachable


async def test_members_of_other_sites_are_reached_at_their_sites_address(members):
    near = members.receive_heartbeat(OTHER, beat(advertise_site="http://site:1"), 1, on_bus=False)
    far = members.receive_heartbeat(THIRD, beat(site="us", advertise_site="http://site:1"), 1, on_bus=False)
    assert (members.url(near), members.url(far)) == ("http://other:1", "http://site:1")
    assert members.of_own_site() == [near]
    assert members.reachable() == [near, far]


async def test_members_behind_the_own_shared_address_are_of_the_own_site_whatever_they_call_it(caplog):
    members = Members(OWN, "eu", RecordedMembership(), "http://site:1")
    for sequence in (1, 2):
        near = members.receive_heartbeat(
            OTHER, beat(site="old", advertise_site="http://site:1"), sequence, on_bus=False
        )
    far = members.receive_heartbeat(THIRD, beat(site="us", advertise_site="http://site:2"), 1, on_bus=False)
    assert members.of_own_site() == [near]
    assert (near.beat.site, near.site_name) == ("eu", "old")
    assert (far.beat.site, far.site_name) == ("us", "us")
    assert (members.url(near), members.url(far)) == ("http://other:1", "http://site:2")
    assert len(recorded(caplog.records, LogEvent.SITE_NAME_MISMATCHED, instance=OTHER)) == 1, "it is logged once"


async def test_instances_without_a_shared_address_are_of_the_site_that_they_name():
    members = Members(OWN, "eu", RecordedMembership())
    assert members.receive_heartbeat(OTHER, beat(site="us"), 1, on_bus=False).beat.site == "us"
    assert members.of_own_site() == []


async def test_a_member_that_the_disk_knows_is_of_the_own_site_by_its_shared_address(members):
    members = Members(OWN, "eu", RecordedMembership(), "http://site:1")
    row = MemberRow(OTHER, "old", "http://other:1", "http://site:1", "1", 5, 1000)
    members.load([row], {})
    assert (members.get(OTHER).beat.site, members.get(OTHER).site_name) == ("eu", "old")


async def test_the_number_of_members_is_bounded(members, monkeypatch):
    monkeypatch.setattr("registry.cluster.membership.members.MAX_MEMBERS", 2)
    for number in range(1, 5):
        members.receive_heartbeat(f"{number:032x}", beat(), 1, on_bus=False)
    assert len(members.all()) == 2


def test_progress_counts_contiguously_however_changes_come():
    progress = Progress()
    for sequence in (1, 3, 4):
        progress.note(7, sequence)
    assert progress.contiguous_seq(7) == 1
    assert progress.seen(7, 3) and not progress.seen(7, 2)
    progress.note(7, 2)
    assert progress.contiguous_seq(7) == 4
    progress.note_up_to(7, 10)
    progress.note(7, 11)
    assert progress.contiguous_seq(7) == 11


def test_progress_begins_anew_with_a_new_start_and_ignores_an_old_one():
    progress = Progress()
    progress.note(7, 1)
    progress.note(8, 1)
    progress.note(7, 2)
    assert (progress.contiguous_seq(7), progress.contiguous_seq(8)) == (0, 1)


def test_how_far_a_member_is_known_counts_for_its_latest_start_only():
    member = Member(OTHER)
    for incarnation, number in ((1, 900), (2, 5), (1, 1000), (2, 7), (2, 6)):
        member.advance_sync_point(SyncPoint(incarnation, number))
    assert member.sync_point == (2, 7)


async def test_members_heard_on_the_bus_alone_are_known_but_not_live(members):
    """Heartbeats can be recorded and published again; an answered request cannot."""
    for sequence in (1, 2, 3):
        member = members.receive_heartbeat(OTHER, beat(published_seq=5), sequence, on_bus=True)
    assert members._listener.unproven_members == [OTHER] * 3, "each heartbeat is a reason to ask for a proof"
    assert not member.live and not member.reachable
    assert members.all() == [member] and members.of_own_site() == []
    assert members.on_bus() == []


async def test_members_that_answer_a_request_are_kept_live_by_the_bus(members, monkeypatch):
    loop = Loop(monkeypatch)
    members.receive_heartbeat(OTHER, beat(), 1, on_bus=True)
    assert members._listener.began == [], "nothing is done for a member that may be a recording"
    member = members.receive_heartbeat(OTHER, beat(), 2, on_bus=False)
    for sequence in range(3, 13):
        loop.now += 2
        members.receive_heartbeat(OTHER, beat(), sequence, on_bus=True)
        assert member.live
    assert members._listener.began == [True] + [False] * 10
    assert members._listener.unproven_members == [OTHER]
    assert members.on_bus() == [member]


async def test_members_heard_after_a_silence_have_to_answer_again(members, monkeypatch):
    loop = Loop(monkeypatch)
    member = members.receive_heartbeat(OTHER, beat(), 1, on_bus=False)
    loop.now += PRESUMED_DEAD_S + 0.1
    members.receive_heartbeat(OTHER, beat(), 2, on_bus=True)
    assert not member.live
    assert members._listener.unproven_members == [OTHER]
    assert members.receive_heartbeat(OTHER, beat(), 3, on_bus=False).is_new
    assert member.live


async def test_members_of_a_new_incarnation_stay_live_only_if_they_answer(members, monkeypatch):
    """The answer of the incarnation before keeps it live for the while that it would have anyway."""
    loop = Loop(monkeypatch)
    member = members.receive_heartbeat(OTHER, beat(incarnation=1), 9, on_bus=False)
    for sequence in (1, 2, 3):
        loop.now += 2
        members.receive_heartbeat(OTHER, beat(incarnation=2), sequence, on_bus=True)
        assert member.live
    loop.now += 1
    assert not member.live
    assert members._listener.unproven_members == [OTHER] * 3
    members.receive_heartbeat(OTHER, beat(incarnation=2), 4, on_bus=False)
    loop.now += 2
    members.receive_heartbeat(OTHER, beat(incarnation=2), 5, on_bus=True)
    loop.now += PRESUMED_DEAD_S - 0.1
    assert member.live


async def test_recorded_heartbeats_are_stale_after_a_restart(members):
    """The disk remembers the last sequence number of each incarnation."""
    members.load([MemberRow(OTHER, "eu", "http://other:1", "", "1", 5, 0, sequence=70)], {})
    assert members.receive_heartbeat(OTHER, beat(incarnation=5), 69, on_bus=True) is None
    assert members.receive_heartbeat(OTHER, beat(incarnation=5), 70, on_bus=True) is None
    assert members.receive_heartbeat(OTHER, beat(incarnation=4), 99, on_bus=True) is None
    assert members.receive_heartbeat(OTHER, beat(incarnation=5), 71, on_bus=True)


async def test_members_whose_recorded_heartbeats_come_are_no_replica_candidates_for_long(members, monkeypatch):
    loop = Loop(monkeypatch)
    members.receive_heartbeat(OTHER, beat(), 1, on_bus=False)
    loop.now += PRESUMED_DEAD_S + 0.1
    for sequence in range(2, 2 + int(AWAY_S / 2)):
        loop.now += 2
        members.receive_heartbeat(OTHER, beat(), sequence, on_bus=True)
    assert members.replica_candidates() == []


async def test_capabilities_of_members_are_known_in_order_and_from_the_disk(members):
    members.load([MemberRow(OTHER, "eu", "http://other:1", "", "1", 5, 0, capabilities="a-b c")], {})
    assert members.get(OTHER).capabilities == ("a-b", "c")
    later = msgspec.structs.replace(beat(incarnation=6), capabilities=["z-of-a-later-version", "a-b", "a-b"])
    assert members.receive_heartbeat(OTHER, later, 1, on_bus=False).capabilities == ("a-b", "z-of-a-later-version")
    rows = MemberRecords().due(members.all(), 0)
    assert [row.capabilities for row in rows] == ["a-b z-of-a-later-version"]
