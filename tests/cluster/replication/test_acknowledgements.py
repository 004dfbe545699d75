import asyncio

import pytest

from registry.catalog.members import MemberRow
from registry.cluster.membership.members import Members
from registry.cluster.replication.acknowledgements import (
    ACKNOWLEDGEMENT_TIMEOUT_S,
    DIRECT_PUSH_AFTER_S,
    LAPSE_S,
    SLOW_MEMBER_S,
    Acknowledgements,
)
from registry.cluster.replication.read_lease import READ_WAIT_S
from tests.cluster.membership.test_members import OTHER, OWN, THIRD, beat
from tests.support.stand_ins import RecordedMembership

pytestmark = pytest.mark.slow


@pytest.fixture
async def site():
    members = Members(OWN, "eu", RecordedMembership())
    for instance in (OTHER, THIRD):
        members.receive_heartbeat(instance, beat(), 1, on_bus=False)
    members.receive_heartbeat("f" * 32, beat(site="us"), 1, on_bus=False)
    return members, Acknowledgements(members)


async def waited_s(acknowledgements, commit):
    begun = asyncio.get_running_loop().time()
    await acknowledgements.wait(commit)
    return asyncio.get_running_loop().time() - begun


async def test_a_write_waits_for_every_member_of_the_site(site):
    members, acknowledgements = site
    acknowledgements.published(commit=10, sequence=1)
    waiting = asyncio.create_task(acknowledgements.wait(10))
    acknowledgements.acknowledged(members.get(OTHER), [1], 1)
    await asyncio.sleep(0)
    assert not waiting.done()
    acknowledgements.acknowledged(members.get(THIRD), [1], 1)
    await asyncio.wait_for(waiting, 0.01)
    assert acknowledgements.missed == 0


async def test_a_member_that_misses_the_patience_is_waited_for_once(site):
    members, acknowledgements = site
    acknowledgements.published(10, 1)
    acknowledgements.acknowledged(members.get(OTHER), [1], 1)
    assert await waited_s(acknowledgements, 10) >= ACKNOWLEDGEMENT_TIMEOUT_S * 0.9
    assert acknowledgements.missed == 1
    acknowledgements.published(11, 2)
    acknowledgements.acknowledged(members.get(OTHER), [2], 2)
    assert await waited_s(acknowledgements, 11) < ACKNOWLEDGEMENT_TIMEOUT_S / 2


async def miss_one(site):
    members, acknowledgements = site
    acknowledgements.published(10, 1)
    acknowledgements.acknowledged(members.get(OTHER), [1], 1)
    await acknowledgements.wait(10)
    return members, acknowledgements, members.get(THIRD)


async def is_waited_for(members, acknowledgements, sequence):
    acknowledgements.published(100 + sequence, sequence)
    acknowledgements.acknowledged(members.get(OTHER), [sequence], sequence)
    return await waited_s(acknowledgements, 100 + sequence) >= ACKNOWLEDGEMENT_TIMEOUT_S * 0.9


async def test_it_is_waited_for_again_once_a_heartbeat_says_it_has_everything(site):
    members, acknowledgements, late = await miss_one(site)
    acknowledgements.caught_up(late, applied=0)
    assert not await is_waited_for(members, acknowledgements, 2)
    acknowledgements.caught_up(late, applied=2)
    assert await is_waited_for(members, acknowledgements, 3)


async def test_it_is_waited_for_again_once_it_keeps_step_with_changes(site):
    members, acknowledgements, late = await miss_one(site)
    acknowledgements.published(11, 2)
    acknowledgements.published(12, 3)
    acknowledgements.acknowledged(late, [2], applied=0)
    assert not await is_waited_for(members, acknowledgements, 4), "it has not got the first one yet"
    acknowledgements.acknowledged(late, [3], applied=3)
    assert await is_waited_for(members, acknowledgements, 5)


async def test_one_that_catches_up_while_a_write_waits_is_waited_for_by_that_too(site):
    """An instance that had missed a write and kept step again was waited for by the next write only, not by one that
    waited already: that answer left, and its neighbour did not show the write for some milliseconds."""
    members, acknowledgements, late = await miss_one(site)
    acknowledgements.published(11, 2)
    waiting = asyncio.create_task(acknowledgements.wait(11))
    acknowledgements.acknowledged(late, [1], applied=1)
    acknowledgements.acknowledged(members.get(OTHER), [2], applied=2)
    await asyncio.sleep(0.001)
    assert not waiting.done()
    acknowledgements.acknowledged(late, [2], applied=2)
    await asyncio.wait_for(waiting, 0.01)
    assert acknowledgements.missed == 1


async def test_one_that_catches_up_after_that_is_not_given_up_on_again(site):
    members, acknowledgements, late = await miss_one(site)
    acknowledgements.published(11, 2)
    acknowledgements.acknowledged(members.get(OTHER), [2], applied=2)
    acknowledgements.caught_up(late, applied=2)
    await asyncio.sleep(ACKNOWLEDGEMENT_TIMEOUT_S * 1.2)
    assert acknowledgements.missed == 1
    assert await is_waited_for(members, acknowledgements, 3)


async def test_nobody_in_the_site_is_no_wait():
    acknowledgements = Acknowledgements(Members(OWN, "eu", RecordedMembership()))
    acknowledgements.published(10, 1)
    assert await waited_s(acknowledgements, 10) < 0.01


async def test_the_bus_is_waited_for_while_it_is_heard():
    acknowledgements = Acknowledgements(Members(OWN, "eu", RecordedMembership()))
    acknowledgements.echoed(None)
    acknowledgements.published(10, 1)
    waiting = asyncio.create_task(acknowledgements.wait(10))
    await asyncio.sleep(0.001)
    assert not waiting.done()
    acknowledgements.echoed(1)
    await asyncio.wait_for(waiting, 0.01)
    acknowledgements.published(11, 2)
    assert await waited_s(acknowledgements, 11) >= ACKNOWLEDGEMENT_TIMEOUT_S * 0.9
    acknowledgements.published(12, 3)
    assert await waited_s(acknowledgements, 12) < 0.01, "a bus that hangs costs one write its patience"
    acknowledgements.echoed(None)
    acknowledgements.published(13, 4)
    assert await waited_s(acknowledgements, 13) >= ACKNOWLEDGEMENT_TIMEOUT_S * 0.9


# Exclusion


async def excluded(site):
    """A member that has acknowledged nothing, after its leases have lapsed."""
    members, acknowledgements = site
    acknowledgements.published(10, 1)
    acknowledgements.acknowledged(members.get(OTHER), [1], 1)
    await acknowledgements.wait(10)
    return members, acknowledgements, members.get(THIRD)


async def test_a_write_that_a_member_misses_waits_until_its_leases_have_lapsed(site):
    members, acknowledgements = site
    acknowledgements.published(10, 1)
    acknowledgements.published(11, 2)
    acknowledgements.acknowledged(members.get(OTHER), [1, 2], 2)
    assert LAPSE_S <= await waited_s(acknowledgements, 10) < LAPSE_S + ACKNOWLEDGEMENT_TIMEOUT_S * 3
    assert await waited_s(acknowledgements, 11) < ACKNOWLEDGEMENT_TIMEOUT_S, "an exclusion is waited for once"
    assert (acknowledgements.missed, acknowledgements.excluded) == (1, 1)


async def test_a_member_that_acknowledges_late_is_not_excluded(site):
    members, acknowledgements = site
    acknowledgements.published(10, 1)
    acknowledgements.acknowledged(members.get(OTHER), [1], 1)
    waiting = asyncio.create_task(acknowledgements.wait(10))
    await asyncio.sleep(ACKNOWLEDGEMENT_TIMEOUT_S * 2)
    assert not waiting.done()
    acknowledgements.acknowledged(members.get(THIRD), [1], 1)
    await asyncio.wait_for(waiting, 0.01)
    await asyncio.sleep(LAPSE_S)
    assert acknowledgements.excluded == 0


async def test_a_member_that_missed_the_patience_is_granted_no_lease(site):
    members, acknowledgements = site
    acknowledgements.published(10, 1)
    assert acknowledgements.may_hold_lease(members.get(THIRD), 0)
    await asyncio.sleep(ACKNOWLEDGEMENT_TIMEOUT_S * 1.2)
    assert not acknowledgements.may_hold_lease(members.get(THIRD), 0)
    assert acknowledgements.may_hold_lease(members.get(OTHER), 1)


async def test_a_lapse_that_was_called_off_does_not_end_a_later_one(site):
    members, acknowledgements = site
    acknowledgements.published(10, 1)
    acknowledgements.acknowledged(members.get(OTHER), [1], 1)
    await asyncio.sleep(ACKNOWLEDGEMENT_TIMEOUT_S * 1.2)
    acknowledgements.acknowledged(members.get(THIRD), [1], 1)
    await asyncio.sleep(LAPSE_S * 0.7)
    acknowledgements.published(11, 2)
    acknowledgements.acknowledged(members.get(OTHER), [2], 2)
    assert await waited_s(acknowledgements, 11) >= LAPSE_S


async def test_a_member_that_keeps_step_again_and_hangs_at_once_holds_up_no_write_for_ever(site):
    """The lapse was called off, and nothing else ended the wait of a change that had missed the patience meanwhile."""
    members, acknowledgements = site
    for sequence in (1, 2):
        acknowledgements.published(9 + sequence, sequence)
    acknowledgements.acknowledged(members.get(OTHER), [1, 2], 2)
    await asyncio.sleep(ACKNOWLEDGEMENT_TIMEOUT_S * 1.2)
    acknowledgements.acknowledged(members.get(THIRD), [1], 1)
    assert await asyncio.wait_for(waited_s(acknowledgements, 11), LAPSE_S * 2) >= LAPSE_S * 0.9


async def test_an_excluded_member_that_has_what_it_lacked_is_waited_for_again(site):
    members, acknowledgements, late = await excluded(site)
    assert not acknowledgements.may_hold_lease(late, 0), "a member that cannot store anything would return each time"
    assert acknowledgements.may_hold_lease(late, 1)
    acknowledgements.published(11, 2)
    acknowledgements.acknowledged(members.get(OTHER), [2], 2)
    waiting = asyncio.create_task(acknowledgements.wait(11))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    acknowledgements.acknowledged(late, [2], 2)
    await asyncio.wait_for(waiting, 0.01)


async def test_a_member_that_is_excluded_again_soon_returns_later(site):
    members, acknowledgements, late = await excluded(site)
    assert acknowledgements.may_hold_lease(late, 1)
    acknowledgements.published(11, 2)
    acknowledgements.acknowledged(members.get(OTHER), [2], 2)
    await acknowledgements.wait(11)
    assert not acknowledgements.may_hold_lease(late, 2)
    await asyncio.sleep(1.05)
    assert acknowledgements.may_hold_lease(late, 2)


async def test_a_slow_member_that_keeps_step_is_granted_leases_and_not_excluded(site):
    """There is always a change that has missed the patience. It was refused leases for as long as clients pushed."""
    members, acknowledgements = site
    late, lag_s, granted = members.get(THIRD), ACKNOWLEDGEMENT_TIMEOUT_S * 2.5, []
    for sequence in range(1, 60):
        acknowledgements.published(10 + sequence, sequence)
        acknowledgements.acknowledged(members.get(OTHER), [sequence], sequence)
        asyncio.get_running_loop().call_later(lag_s, acknowledgements.acknowledged, late, [sequence], sequence)
        await asyncio.sleep(0.025)
        granted.append(acknowledgements.may_hold_lease(late, max(0, sequence - 6)))
    assert granted.count(True) > 45
    assert acknowledgements.excluded == 0


async def test_a_lease_that_is_granted_to_a_slow_member_is_waited_for(site):
    members, acknowledgements = site
    late, loop = members.get(THIRD), asyncio.get_running_loop()
    acknowledgements.published(10, 1)
    acknowledgements.acknowledged(members.get(OTHER), [1], 1)
    await asyncio.sleep(ACKNOWLEDGEMENT_TIMEOUT_S * 1.2)
    acknowledgements.acknowledged(late, [1], 1)
    acknowledgements.published(11, 2)
    acknowledgements.acknowledged(members.get(OTHER), [2], 2)
    await asyncio.sleep(ACKNOWLEDGEMENT_TIMEOUT_S * 2)
    granted_at = loop.time()
    assert acknowledgements.may_hold_lease(late, 1)
    await acknowledgements.wait(11)
    assert loop.time() - granted_at >= LAPSE_S * 0.99


async def test_a_member_that_takes_longer_than_a_slow_one_may_is_excluded_in_bounded_time(site):
    """Its acknowledgements put the exclusion off for ever."""
    members, acknowledgements = site
    late, loop = members.get(THIRD), asyncio.get_running_loop()
    for sequence in range(1, 100):
        acknowledgements.published(10 + sequence, sequence)
        acknowledgements.acknowledged(members.get(OTHER), [sequence], sequence)
        loop.call_later(0.8, acknowledgements.acknowledged, late, [sequence], sequence)
        if sequence == 20:
            waiting, begun = asyncio.create_task(acknowledgements.wait(10 + sequence)), loop.time()
        await asyncio.sleep(0.02)
    await asyncio.wait_for(waiting, 0.1)
    assert acknowledgements.excluded >= 1
    assert loop.time() - begun < SLOW_MEMBER_S + LAPSE_S + 2.0


async def test_a_change_whose_acknowledgement_was_lost_is_acknowledged_by_a_later_one(site):
    members, acknowledgements = site
    acknowledgements.published(10, 1)
    acknowledgements.published(11, 2)
    acknowledgements.acknowledged(members.get(OTHER), [1, 2], 2)
    acknowledgements.acknowledged(members.get(THIRD), [2], 2)
    assert await waited_s(acknowledgements, 10) < ACKNOWLEDGEMENT_TIMEOUT_S / 2


async def test_what_waits_when_changes_are_counted_anew_is_answered_when_leases_have_lapsed(site):
    """After a new incarnation, acknowledgements were counted against the numbers of the old one, and a member that had
    missed nothing was not waited for."""
    _, acknowledgements = site
    acknowledgements.published(10, 1)
    waiting = asyncio.create_task(acknowledgements.wait(10))
    await asyncio.sleep(0)
    acknowledgements.begin_incarnation()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), LAPSE_S * 0.9)
    await asyncio.wait_for(waiting, LAPSE_S)


async def test_an_instance_that_has_just_started_waits_for_members_that_its_last_incarnation_knew():
    """They may hold leases that it does not know of."""
    members = Members(OWN, "eu", RecordedMembership())
    members.load([MemberRow(OTHER, "eu", "http://other", "", "", 1, 0)], {})
    acknowledgements = Acknowledgements(members)
    acknowledgements.published(10, 1)
    assert await waited_s(acknowledgements, 10) >= LAPSE_S


async def test_reads_that_wait_at_a_member_that_is_excluded_again_and_again_are_answered(site):
    """Two members of a site shared an overloaded machine. One was excluded for 16 seconds after others of up to 8, and
    refused what clients asked of it after 10."""
    _, acknowledgements = site
    loop = asyncio.get_running_loop()
    for _ in range(8):
        acknowledgements._lapse(THIRD)
        acknowledgements._exclude(THIRD)
        acknowledgements._excluded.discard(THIRD)
    _, not_before_s = acknowledgements._returns[THIRD]
    assert 1.0 < not_before_s - loop.time() <= READ_WAIT_S - 1.0


# Direct pushes


async def test_a_change_that_the_bus_has_not_delivered_in_time_is_due_to_be_pushed(site):
    members, acknowledgements = site
    acknowledgements.published(10, 1)
    acknowledgements.acknowledged(members.get(OTHER), [1], 1)
    assert acknowledgements.unacknowledged() == {}
    await asyncio.wait_for(acknowledgements.push_is_due.wait(), DIRECT_PUSH_AFTER_S * 2)
    assert acknowledgements.unacknowledged() == {THIRD: [1]}


async def test_changes_are_pushed_at_once_to_a_member_that_the_bus_does_not_reach(site):
    members, acknowledgements = site
    acknowledgements.published(10, 1)
    await asyncio.sleep(DIRECT_PUSH_AFTER_S * 1.2)
    acknowledgements.acknowledged(members.get(OTHER), [1], 1)
    acknowledgements.acknowledged(members.get(THIRD), [1], 1)
    acknowledgements.push_is_due.clear()
    acknowledgements.published(11, 2)
    assert acknowledgements.push_is_due.is_set()
    assert acknowledgements.unacknowledged() == {OTHER: [2], THIRD: [2]}
