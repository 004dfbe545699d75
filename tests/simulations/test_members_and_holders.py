"""Regressions found by simulations: instances that join, leave and hold content for others."""

import asyncio

import pytest

from registry.cluster.transfer.transfer import Transfers
from registry.ports import PeerUnreachable
from simulations.checkers import Violation
from simulations.disturbances import CALM_S
from simulations.plan import draw_plan
from simulations.planted import leases
from simulations.run import run
from simulations.simulation import Simulation
from simulations.workload.images import ALL_IMAGES, digest_of
from tests.simulations.steps import held, play, pushed, put_again, told_to_leave


async def counted_on(simulation, first, second):
    """Have two instances know each other, and answer how the first one knows the second."""
    await simulation.start()
    await pushed(simulation.client(), first, "v1", ALL_IMAGES[0])
    await asyncio.sleep(1)
    return first.instance.cluster.members.get(second.instance.catalog.instance_id)


def test_who_comes_in_the_place_of_an_instance_does_not_answer_in_its_name():
    """A new instance at the address of one that was lost with its disk was taken for both: its one copy counted as two,
    and content was evicted of which no other instance had a copy. An answer from another instance than the one that was
    asked now counts as none."""

    async def act(simulation: Simulation) -> None:
        first, second = simulation.nodes
        before = await counted_on(simulation, first, second)
        simulation.lifecycle.expect_disk_loss(second)
        second.die(True)
        second.image = ({}, dict(simulation.cluster.template))
        await simulation.lifecycle.restart(second)
        await asyncio.sleep(3)
        peers, digest = first.instance.cluster.peers, digest_of(ALL_IMAGES[0].body)
        now = first.instance.cluster.members.get(second.instance.catalog.instance_id)
        assert await peers.keeps(now, digest, 1.0)
        with pytest.raises(PeerUnreachable):
            await peers.keeps(before, digest, 1.0)

    play(act, sites=("eu", "eu"))


def test_a_bit_that_changes_on_the_way_keeps_a_holder_out_for_a_moment_only():
    """A holder that seemed to send wrong bytes was skipped for a minute, so a bit that flipped on the way kept the only
    holder from serving its content, and from handing it over in a decommission. It is now skipped for two seconds,
    doubled each time, up to a minute."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        await pushed(simulation.client(), first, "v1", ALL_IMAGES[0])
        work, digest = simulation.client(), digest_of(ALL_IMAGES[0].blobs[0])
        simulation.cluster.packet_simulator.flips = 1.0
        assert (await work.pull_blob(second, "app", digest)).status == 503
        simulation.cluster.packet_simulator.flips = 0.0
        await asyncio.sleep(3)
        assert (await work.pull_blob(second, "app", digest)).status == 200

    play(act, sites=("eu", "us"))


def test_a_push_that_waits_for_holders_has_who_comes_meanwhile():
    """A push that waited for its write concern asked only the holders that were known when it arrived, and was refused
    although another instance had joined meanwhile."""

    async def act(simulation: Simulation) -> None:
        simulation.cluster.settings |= {"copies": "2", "acknowledge": "2"}
        await simulation.start()
        pushing = asyncio.create_task(simulation.client().push(simulation.nodes[0], "app", "v1", ALL_IMAGES[1]))
        await asyncio.sleep(1)
        assert not pushing.done()
        await simulation.cluster.add_node("eu").start()
        assert await pushing

    play(act, sites=("eu",))


def test_an_instance_that_goes_on_under_another_id_is_one_holder_of_a_push():
    """An instance that continued under another id, because it had been removed, is asked too by a push that waits, and
    counts as one holder under two ids."""

    async def act(simulation: Simulation) -> None:
        simulation.cluster.settings |= {"copies": "3", "acknowledge": "3"}
        first, second = simulation.nodes
        await simulation.start()
        before = second.instance.catalog.instance_id
        pushing = asyncio.create_task(simulation.client().push(first, "app", "v1", ALL_IMAGES[1]))
        await asyncio.sleep(1)
        simulation.disturbances.note()
        await first.instance.cluster.removals.remove(before)
        assert not await pushing
        assert second.instance.catalog.instance_id != before

    play(act, sites=("eu", "eu"))


@pytest.mark.parametrize("seed", range(4))
def test_one_that_was_forgotten_hears_of_its_neighbours_before_it_is_ready(seed):
    """An instance that was back after it had been removed was not greeted as newcomers are. One whose disk knew no
    members heard of no neighbour for a second, took itself for alone at its site, and was ready without their
    changes."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first = simulation.nodes[0]
        await pushed(simulation.client(), first, "v1", ALL_IMAGES[0])
        second = simulation.cluster.add_node("eu")
        await second.start()
        instance = second.instance.catalog.instance_id
        await asyncio.sleep(1.2)  # its disk knows no member yet
        second.die(False)
        await asyncio.sleep(7 + seed / 2)
        await first.instance.cluster.removals.remove(instance)
        assert await put_again(simulation.client(), first, "v2")
        await simulation.lifecycle.restart(second)
        while not second.instance.ready:
            await asyncio.sleep(0.05)
        assert second.instance.catalog.queries.tags("app", "", 9) == ["v1", "v2"]

    play(act, sites=("eu",))


def test_a_disk_takes_with_it_that_somebody_was_forgotten_where_nobody_else_had_heard():
    """The checker asked too much: a disk was destroyed just after it had stored a removal, before any other instance
    had heard of it. As with other writes, what one disk alone has is lost with it."""
    held(
        15290,
        sites=("eu", "eu", "us"),
        faults=("bus-cut", "forgotten", "disk-destroyed"),
        conditions=("two-copies",),
        operations=3,
        calm_operations=0,
        between_sites_s=0.0,
    )


def test_who_was_forgotten_stays_so_when_another_has_heard_of_it():
    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second, third = simulation.nodes
        for heard in (False, True):
            simulation.checkers.identities.gone.clear()
            await simulation.lifecycle.restart(third)
            await asyncio.sleep(3)
            instance = third.instance.catalog.instance_id
            third.die(False)
            simulation.cluster.packet_simulator.loss = 0.0 if heard else 1.0
            await first.instance.cluster.removals.remove(instance)
            simulation.lifecycle.removed(third, instance)
            await asyncio.sleep(0.5)  # the frame before was lost, and a diff replaces it
            simulation.checkers.identities.excuse(simulation.lifecycle.known_to_be_gone([second, third]), set())
            assert (instance in simulation.checkers.identities.gone) is heard

    play(act)


def test_who_starts_while_others_cannot_hear_it_is_not_expected_to_be_greeted():
    """The checker asked too much: an instance started during a partition, which ended before the checker looked, and
    was expected to have heard its neighbours."""
    held(
        15564,
        sites=("eu", "eu", "eu"),
        faults=("one-way", "leave", "disk-destroyed"),
        conditions=("two-copies",),
        operations=5,
        calm_operations=0,
        between_sites_s=0.0,
    )


def test_a_holder_that_is_destroyed_after_it_has_answered_was_a_holder_for_who_made_room():
    """The checker asked too much: where the policy asks for one copy, its holder was destroyed between its answer to an
    evicting instance and the removal there. No instance can know that."""
    held(
        17622,
        sites=("eu", "us"),
        faults=("replayed-requests", "rolling-key"),
        conditions=("lose-one", "evict"),
        between_sites_s=0.0,
    )


def test_who_is_not_waited_for_may_have_caught_up_just_before_the_answer():
    """The checker asked too much: an instance that had missed a write, so that the next one did not wait for it, was
    expected to show that write as soon as it had caught up. It must be waited for only if it was known before the
    answer that it keeps step again."""
    held(
        13590,
        sites=("eu", "us", "ap"),
        faults=("clone", "join", "new-key", "stalled-redis", "power-cut-at-frame", "forgotten"),
        conditions=("collect",),
        between_sites_s=0.0,
    )


@pytest.mark.parametrize("since_s", [0.0, 0.1], ids=["just now", "a while ago"])
def test_who_has_caught_up_just_now_is_not_expected_to_be_waited_for(since_s):
    """The checker asked too much: an instance that had missed a write had just caught up, and its acknowledgement was
    on its way, when the answer to another write left. An acknowledgement that arrived a while ago counts."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        await asyncio.sleep(CALM_S)
        first, second = simulation.nodes
        applier, work, going_on = second.instance.cluster.applier, simulation.client(), asyncio.Event()
        apply, missed = applier._apply, first.instance.cluster.incarnation.published_seq + 1

        async def late(frame, incoming):
            await (going_on if frame.sequence == missed else asyncio.Event()).wait()
            await apply(frame, incoming)

        applier._apply, applier._send_acknowledgements = late, lambda: None
        second.instance.cluster.site_lease._extend = lambda now: None  # its lease lasts: clients may read there
        second.instance.lease.extend(float("inf"))
        while not await work.upload(first, "app", b"missed"):
            pass
        first.on_disk_call = lambda call, name: going_on.set() if call == "rename" else None
        if since_s:
            going_on.set()
        await asyncio.sleep(since_s)
        while not await work.upload(first, "app", b"not waited for"):
            pass

    plan = draw_plan(0, sites=("eu", "eu"), faults=(), conditions=(), between_sites_s=0.0)
    with leases.lapse_not_awaited():  # else every answer waits until that instance may show nothing older
        violations = run(plan, act).violations
    assert ["does not show it" in violation for violation in violations] == [True] * bool(since_s)


def test_content_that_is_linked_again_while_it_is_copied_is_copied_once(monkeypatch):
    """Content that was linked again while it was copied was fetched once more when it had arrived. In one run that was
    all that still happened at the end."""
    begun, begin_transfer = [], Transfers._begin

    def noted(self, transfer, uploader):
        begun.append(transfer.digest)
        return begin_transfer(self, transfer, uploader)

    async def act(simulation: Simulation) -> None:
        simulation.cluster.settings |= {"copies": "2"}
        await simulation.start()
        monkeypatch.setattr(Transfers, "_begin", noted)
        first, work = simulation.nodes[0], simulation.client()
        for turn in range(20):
            for repository in ("app", "scratch"):
                while not await work.upload(first, repository, bytes([turn]) * 100):
                    pass
                await asyncio.sleep(turn * 0.05)
        await asyncio.sleep(3)
        assert len(begun) == 20

    play(act, sites=("eu", "us"), between_sites_s=0.08)


def test_a_blob_that_is_deleted_while_its_holder_is_waited_for_is_a_miss(monkeypatch):
    """A blob that was collected while a GET waited for its holder, because transfers of it broke off, was answered 503,
    which clients retry. If its link is gone by then it is now a miss (404)."""

    async def break_off(self, member, transfer, ingest, kind):
        return False

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        work, blob = simulation.client(), b"a layer"
        while not await work.upload(first, "app", blob):
            pass
        await asyncio.sleep(1)
        monkeypatch.setattr(Transfers, "_receive_from", break_off)
        pulling = asyncio.create_task(simulation.client("pulling").pull_blob(second, "app", digest_of(blob)))
        await asyncio.sleep(1)
        path = f"/v2/app/blobs/{digest_of(blob)}"
        await work.ask("delete blob", first, "DELETE", path, repository="app", digest=digest_of(blob))
        assert (await pulling).status == 404

    play(act, sites=("eu", "us"))


def test_a_disk_that_is_put_back_after_a_leaver_has_asked_it_was_a_holder_for_the_leaver():
    """The checker asked too much: a leaver had handed its content over and was about to go, when the disk of the
    instance that had taken it was put back to a backup. A leaver that asked before that cannot know."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        backup = second.backup()
        await pushed(simulation.client(), first, "v1", ALL_IMAGES[0])
        left = await told_to_leave(simulation, first)
        while not first.instance.cluster.lifecycle.has_left:
            await asyncio.sleep(0.1)
        second.die(False)
        simulation.lifecycle.expect_disk_loss(second)
        second.image = backup
        asked_s, simulation.checkers.holders.asked_s = simulation.checkers.holders.asked_s, {}
        with pytest.raises(Violation, match="no other instance has"):
            simulation.checkers.holders.check_left(first)
        simulation.checkers.holders.asked_s = asked_s
        await simulation.lifecycle.restart(second)
        await left

    play(act, sites=("eu", "eu"))


def test_who_starts_while_a_neighbour_runs_twice_may_have_asked_the_other_one():
    """The checker asked too much: a clone of a neighbour was running when an instance started. Of the two it believes
    the later incarnation, and is ready without what the other has said since the copy; that arrives when the other has
    begun a newer incarnation."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        simulation.checkers.lost.doubled = True
        clone = simulation.cluster.add_node("eu")
        clone.image = first.backup()
        await clone.start()
        await asyncio.sleep(2.6)
        second.die(False)
        work = simulation.client()
        while not await work.upload(first, "app", b"said while its copy was believed"):
            pass
        await simulation.lifecycle.restart(second)
        while not second.instance.ready:
            simulation.checkers.readiness.look()
            await asyncio.sleep(0.02)
        simulation.checkers.readiness.look()

    play(act, sites=("eu", "eu"))


def test_what_is_to_be_here_is_copied_soon_after_a_start():
    """All links were gone over for local replicas in the moment of the start, before any member was heard. Nothing
    could be fetched, and the retry came after 30 s. Replicas in place of a leaver's were made late, and the last one
    was lost meanwhile. The retry now comes after five seconds, while a member may be about to answer."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        await pushed(simulation.client(), first, "v1", ALL_IMAGES[0])
        await asyncio.sleep(1)
        simulation.cluster.settings |= {"copies": "2"}
        second.die(False)
        await simulation.lifecycle.restart(second)
        await asyncio.sleep(7)
        assert all(second.instance.store.held_size(digest_of(blob)) for blob in ALL_IMAGES[0].blobs)

    play(act, sites=("eu", "eu"))


def test_an_owner_that_was_put_back_does_not_begin_an_upload_anew_whose_bytes_it_has_lost():
    """An instance whose directory had been put back to a backup, or copied, began an upload again whose bytes it did
    not have, when another instance forwarded the next chunk. It now answers that the upload is unknown, as it does to
    clients."""
    held(
        52008,
        sites=("eu", "eu", "eu"),
        faults=("bus-cut", "power-cut-at-frame", "clone"),
        conditions=("collect",),
        calm_operations=0,
        between_sites_s=0.02,
    )


def test_copies_may_still_be_on_their_way_when_all_agree():
    """The checker asked too much: copies that come in pieces of a few bytes were still on their way half a second after
    all instances agreed."""
    held(
        100203,
        sites=("eu", "eu", "us"),
        faults=("join",),
        conditions=("small", "everywhere"),
        operations=1,
        calm_operations=4,
        between_sites_s=0.08,
    )


def test_what_a_copy_has_answered_does_not_count_as_said_by_the_other():
    """A clone answered in the middle of anti-entropy with its original, whose changes then counted as applied although
    they had not been requested. They count only if the incarnation has not changed meanwhile."""
    held(
        13871,
        sites=("eu", "eu", "us", "us"),
        faults=("reorder", "rolling-key", "join", "clone"),
        conditions=(),
        calm_operations=0,
        between_sites_s=0.02,
    )


def test_keys_are_exchanged_one_after_the_other():
    """An error of the simulation: two kinds of faults rotated keys at once, as two operators would, and left instances
    with different keys. They now come one after the other."""
    outcome = run(draw_plan(3813, faults=("new-key", "rolling-key")))
    assert outcome.violations == []
    assert outcome.fired["new key"]
    assert outcome.fired["rolling key"]


def test_a_push_whose_manifest_was_collected_while_it_waited_has_promised_nothing():
    """The checker asked too much: a push was superseded, and its manifest collected, while it waited for a holder. It
    is then answered and promises nothing any more, when its machine is destroyed with the only copy of its blobs."""
    held(
        3595,
        sites=("eu", "eu", "us"),
        faults=("clone", "disk-destroyed"),
        conditions=("collect", "two-copies"),
        clients=2,
        operations=7,
        calm_operations=0,
        fault_s=12,
        between_sites_s=0,
    )


def test_whoever_came_to_be_designated_while_others_were_asked_makes_no_room_with_that_content():
    """An instance asked others before an eviction, and meanwhile became a replica candidate for the content, since
    another instance was removed. It evicted its replica all the same, and had to fetch it again. That is now checked
    once more at the removal."""
    held(
        8632,
        sites=("eu", "eu", "us", "us"),
        faults=("eio", "kill-at-call", "forgotten", "disk-destroyed"),
        conditions=("collect", "two-copies", "evict"),
        clients=2,
        operations=7,
        calm_operations=0,
        fault_s=12,
        between_sites_s=0.02,
    )


@pytest.mark.parametrize("seed", [12634, 12770])
def test_who_starts_beside_another_that_starts_waits_for_those_who_have_something(seed):
    """Two instances started at once; one caught up with the other, which it heard first and which had nothing yet, and
    was ready. It now catches up with a member that is ready itself, and waits for those that were heard meanwhile."""
    held(seed)


def test_a_last_word_that_was_lost_with_the_only_disk_that_had_it_is_nobodys_fault():
    """The checker asked too much: the disk of the only instance that had heard a leaver's last message was put back
    just before the leaver was gone, instead of after."""
    held(12407)


def test_who_was_told_to_leave_leaves_though_its_answer_is_lost():
    """An error of the simulation: an instance was told to leave, and its answer was lost. It left, while the run went
    on as if the instance had not heard."""
    held(19805)
