"""Scenarios in which everything breaks, and regressions found by simulations."""

import asyncio
import errno
import statistics

import pytest

from registry.cluster.placement.garbage_collection import GarbageCollector
from registry.cluster.placement.write_concern import WriteConcern
from simulations.faults import FAULTS
from simulations.plan import draw_plan
from simulations.run import run
from simulations.simulation import Simulation
from simulations.workload.client import GRACE_S
from simulations.workload.images import ALL_IMAGES, digest_of
from tests.simulations.steps import agree, play, pushed, put_again, upload_through, winners

YEARS_S = 365 * 86400.0


@pytest.mark.parametrize("seed", range(3))
def test_every_earlier_backup_is_restored_while_the_others_run_on(seed):
    async def act(simulation: Simulation) -> None:
        await simulation.start()
        node, work = simulation.nodes[0], simulation.client()
        backups = []
        for number in range(12):
            place = simulation.nodes[number % 3]
            await work.push(place, "app", f"v{number % 3}", ALL_IMAGES[number % 5])
            if number % 4 == 3:
                await work.delete_tag(place, "app")
            backups.append(node.backup())
        for backup in backups:
            await simulation.lifecycle.restore(node, backup)
            await work.push(node, "app", "again", ALL_IMAGES[0])
            await agree(simulation)
        await simulation.check_invariants()

    play(act, seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_push_that_saw_another_always_wins_whatever_the_clocks_show(seed):
    async def act(simulation: Simulation) -> None:
        await simulation.start()
        work, rng = simulation.client(), simulation.cluster.rng
        for number in range(16):
            for node in simulation.nodes:
                node.clock_offset_s = rng.choice((-10, 0, 10)) * YEARS_S
            image = ALL_IMAGES[number % 5]
            await pushed(work, rng.choice(simulation.nodes), "v1", image)
            await asyncio.sleep(0.2)
            assert winners(simulation) == {digest_of(image.body)}
        await agree(simulation)

    play(act, seed=seed)


@pytest.mark.parametrize("refused", ["open", "sync_directory", "sqlite sync"])
def test_an_instance_whose_disk_refuses_its_start_is_started_again(refused):
    """An error of the simulation: an instance whose disk refused its start stayed half started, and a checker that met
    the refusal ended the run. It now ends, as the product does, and is started again."""
    left = 3

    async def act(simulation: Simulation) -> None:
        def refuse(call, name):
            nonlocal left
            if call == refused and left:
                left -= 1
                raise OSError(errno.EIO, "EIO", name)

        await simulation.start()
        node = simulation.nodes[0]
        await pushed(simulation.client(), node, "v1", ALL_IMAGES[0])
        node.die(False)
        starting = asyncio.ensure_future(simulation.lifecycle.restart(node))
        await asyncio.sleep(0)
        node.on_disk_call = refuse
        await starting
        assert node.started
        assert await simulation.client().pull_manifest(node, "app", "v1") == ALL_IMAGES[0].body

    play(act)
    assert left == 0


def test_a_site_that_was_away_for_thirty_days_brings_nothing_back():
    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second, away = simulation.nodes
        work = simulation.client()
        for number, image in enumerate(ALL_IMAGES):
            await pushed(work, first, f"v{number}", image)
        await asyncio.sleep(1)
        away.die(False)
        for number in range(len(ALL_IMAGES)):
            path = f"/v2/app/manifests/v{number}"
            await work.ask("delete tag", second, "DELETE", path, repository="app", reference=f"v{number}")
        for node in (first, second):
            node.instance.compactor.request("repository/app")
        simulation.cluster.loop.now += 30 * 86400
        await asyncio.sleep(60)
        await pushed(work, second, "new", ALL_IMAGES[0])
        await simulation.lifecycle.restart(away)
        await agree(simulation)
        for node in simulation.nodes:
            assert node.instance.catalog.queries.tags("app", "", 100) == ["new"]
        await simulation.check_invariants()

    play(act)


def test_load_that_never_pauses_between_sites_that_are_far_apart():
    """50 writes a second, 80 ms from site to site: what is on its way is not taken for lost."""
    asked = []

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        for number, image in enumerate(ALL_IMAGES):
            await pushed(simulation.client(), simulation.nodes[number % 2], "v1", image)
        await asyncio.sleep(2)
        simulation.cluster.network.on_request.append(
            lambda source, target, path: asked.append((simulation.now_s, path))
        )
        simulation.commits.delays_s.clear()
        begun = simulation.now_s
        await asyncio.gather(*(push_often(simulation, number) for number in range(5)))
        assert simulation.now_s - begun == pytest.approx(20, abs=3)
        await agree(simulation)

    async def push_often(simulation: Simulation, number: int) -> None:
        work, place = simulation.client(f"client{number}"), simulation.nodes[number % 2]
        for turn in range(200):
            image = ALL_IMAGES[(turn + number) % 5]
            path = f"/v2/app/manifests/t{number}-{turn % 10}"
            headers = {"Content-Type": image.media_type}
            answer = await work.ask(
                "push", place, "PUT", path, image.body, headers, "app", path.rpartition("/")[2], digest_of(image.body)
            )
            assert answer is None or answer.status in (201, 404)
            await asyncio.sleep(0.09)

    outcome = play(act, sites=("eu", "us"), between_sites_s=0.08)
    diffs = [at for at, path in asked if path.endswith(("/diffs", "/updates"))]
    assert len(diffs) / 20 <= 1, "diffs are for what was lost"
    assert len(outcome.delays_s) >= 900
    assert statistics.median(outcome.delays_s) < 0.2
    assert max(outcome.delays_s) < 1


# What runs have found in the registry, each as it was found.


def test_an_original_whose_copy_ran_for_a_while_is_heard_again():
    """A copied data directory ran for a while under a later incarnation. Members then ignored the original's heartbeats
    and never requested what it had. An instance now begins a newer incarnation when it hears of a later one, retries
    while the disk refuses to record that, and outdoes the latest one it has heard of, not the first."""
    for seed in range(6):
        plan = draw_plan(seed, faults=("clone", "stalled-redis"), sites=("eu", "eu", "us"), operations=10)
        assert run(plan).violations == []


def test_what_comes_by_a_frame_while_others_are_asked_is_no_miss(monkeypatch):
    """A miss was answered 404 although the frame had arrived while read repair asked other members: their answer
    brought nothing new. The view is now looked up again in any case. Here a miss asks although the instances agree."""

    async def ask_in_vain(cluster, repository):
        await asyncio.sleep(0.2)

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        work = simulation.client()
        await pushed(work, first, "other", ALL_IMAGES[0])
        monkeypatch.setattr("registry.cluster.node.Cluster.read_repair", ask_in_vain)
        monkeypatch.setattr("registry.cluster.replication.read_lease.ReadLease.allows_miss", lambda lease: False)
        asking = asyncio.ensure_future(simulation.client("client2").pull_manifest(second, "app", "v1"))
        await asyncio.sleep(0.05)
        await pushed(work, first, "v1", ALL_IMAGES[0])
        assert await asking == ALL_IMAGES[0].body

    play(act, sites=("eu", "us"))


def test_an_upload_is_passed_on_to_an_owner_that_has_just_restarted():
    """A request with content failed after its receiver had restarted: the session was with the last incarnation, and
    content cannot be sent twice. Sessions are now renewed as soon as a heartbeat shows another incarnation, and tried
    out before content is sent."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        work = simulation.client()
        await upload_through(work, first, second)
        second.die(False)
        await simulation.lifecycle.restart(second)
        await asyncio.sleep(8.5)
        assert simulation.disturbances.calm
        await upload_through(work, first, second)

    play(act, sites=("eu", "eu"))


def test_an_upload_is_passed_on_though_the_owners_clock_made_the_session_expire():
    """A request with content failed after its receiver's clock had jumped: the session was expired, and content cannot
    be sent twice. A session is now tried out before content is sent."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        for jump_s in (0, 7200, 7200):
            second.clock_offset_s += jump_s
            await asyncio.sleep(8.5)
            assert simulation.disturbances.calm
            await upload_through(simulation.client(), first, second)

    play(act, sites=("eu", "eu"))


def test_an_instance_put_back_after_its_copy_ran_learns_that_it_is_not_believed():
    """An instance that was put back to a backup after a copy of it had run began under an incarnation below the copy's,
    and no member believed it. A member that hears such a heartbeat now tells the sender."""
    for seed in (11813, 912, 784):
        assert run(draw_plan(seed)).violations == []


def test_a_member_that_begins_anew_is_caught_up_with_at_once():
    """A member with a new incarnation was compared with only in the next round of anti-entropy, too late to agree
    within two rounds. A member that is new, or back after a silence, and shows another digest is now asked at once."""
    assert run(draw_plan(20448)).violations == []


def test_a_start_never_has_the_number_of_one_that_is_forgotten():
    """After a clock had been ahead once, each incarnation was the last one's number plus one, so a directory that was
    put back began under a number that had been used, and its messages were taken for old ones. The last bits of an
    incarnation are now random."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        first.clock_offset_s = YEARS_S
        first.die(False)
        await simulation.lifecycle.restart(first)
        first.clock_offset_s = 0.0
        await asyncio.sleep(3)
        backup = first.backup()
        starts = []
        for _ in range(2):
            first.die(False)
            simulation.lifecycle.expect_disk_loss(first)
            first.image = backup
            await first.start()
            await asyncio.sleep(8)
            starts.append(first.instance.cluster.incarnation.number)
            for number in range(3):
                await pushed(simulation.client(f"client{len(starts)}"), first, f"t{number}", ALL_IMAGES[number])
                assert f"t{number}" in second.instance.catalog.queries.tags("app", "", 99)
        assert len(set(starts)) == 2

    play(act, sites=("eu", "eu"))


def test_an_instance_that_joins_is_not_ready_because_its_neighbours_refuse_it_for_a_moment():
    """An empty instance whose neighbours refused it for a moment was ready at once, without anything."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        await pushed(simulation.client(), simulation.nodes[0], "v1", ALL_IMAGES[0])
        await asyncio.sleep(3)
        newcomer = simulation.cluster.add_node("eu")
        simulation.cluster.packet_simulator.resets = 1.0
        starting = asyncio.ensure_future(newcomer.start())
        for moment in range(48):
            await asyncio.sleep(0.25)
            if moment == 6:
                simulation.cluster.packet_simulator.resets = 0.0
            if newcomer.started and newcomer.instance.ready:
                assert newcomer.instance.catalog.queries.tags("app", "", 9) == ["v1"]
        assert newcomer.instance.ready
        await starting

    play(act, sites=("eu",))


def test_a_body_that_its_frame_did_not_carry_is_fetched_at_once(monkeypatch):
    """A manifest's body that no frame carried was fetched in rounds of five seconds where the facts came by a frame,
    and at once only where they came by a diff."""
    monkeypatch.setattr("registry.cluster.replication.frame_sender.BODY_ROOM_BYTES", 0)

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        for image in ALL_IMAGES:
            await pushed(simulation.client(), simulation.nodes[0], "v1", image)
            await asyncio.sleep(0.2)
            for node in simulation.nodes:
                assert node.instance.cluster.gossip.frames["announced"] == 0
                assert node.instance.catalog.queries.body(digest_of(image.body)) == image.body

    play(act)


def test_a_push_whose_manifest_is_deleted_meanwhile_is_answered_at_once(monkeypatch):
    """A push that waited for its write concern, and whose manifest was deleted meanwhile, waited to the end and was
    refused: no instance can hold what is deleted. An instance that knows of the push and of the delete now counts as a
    holder."""
    hold = WriteConcern.replicate_manifest

    async def act(simulation: Simulation) -> None:
        async def after_a_delete(self, question, asker):
            path = f"/v2/app/manifests/{question.digest}"
            await simulation.client("deleting").ask(
                "delete manifest", second, "DELETE", path, repository="app", digest=question.digest
            )
            return await hold(self, question, asker)

        simulation.cluster.settings |= {"copies": "2", "acknowledge": "2"}
        await simulation.start()
        first, second = simulation.nodes
        await pushed(simulation.client(), first, "v1", ALL_IMAGES[0])
        await asyncio.sleep(8.5)
        assert simulation.disturbances.calm
        monkeypatch.setattr(WriteConcern, "replicate_manifest", after_a_delete)
        begun = simulation.now_s
        assert await simulation.client("pushing").push(first, "app", "v1", ALL_IMAGES[0])
        assert simulation.now_s - begun < 1
        assert winners(simulation) == {None}

    play(act, sites=("eu", "us"))


@pytest.mark.parametrize("seed", range(4))
def test_nobody_is_presumed_dead_because_the_bus_is_cut(seed):
    """When the bus was cut, members were presumed dead in the moment in which they were first asked over HTTP. For up
    to two seconds uploads with bytes were answered 404, and misses and deletes asked no member. A member that is silent
    on the bus is now asked after a heartbeat and a half, and one that does not answer delays no other."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        second.die(False)
        await asyncio.sleep(seed / 2)  # so that one does not ask when the other beats
        await simulation.lifecycle.restart(second)
        await asyncio.sleep(9)
        work = simulation.client()
        upload = await upload_through(work, first, second)
        simulation.cluster.redis.stall()
        for _ in range(100):
            for node, other in ((first, second), (second, first)):
                assert node.instance.cluster.members.get(other.instance.catalog.instance_id).prompt
                answer = await work.ask("upload status", node, "GET", upload, repository="app")
                assert answer.status == 204
            await asyncio.sleep(0.1)

    play(act, sites=("eu", "eu"), seed=seed)


@pytest.mark.parametrize("first", [0, 3], ids=["near", "far"])
def test_what_is_announced_while_its_document_is_asked_for_is_asked_for_too(monkeypatch, first):
    """A change that was only announced, while its document was being fetched, was left to the next heartbeat; until
    then its site did not show what had been acknowledged. It is now fetched as soon as that answer is here, and a
    neighbour's at once, although a member far away is being asked."""
    monkeypatch.setattr("registry.cluster.replication.frame_sender.MAX_DELTA_BYTES", 0)

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        await pushed(simulation.client(), simulation.nodes[0], "v1", ALL_IMAGES[0])
        await asyncio.sleep(8.5)
        assert simulation.disturbances.calm
        for turn in range(20):
            places = simulation.nodes[first], simulation.nodes[turn % 3 if first else 0]
            pushing = asyncio.create_task(put_again(simulation.client(f"first{turn}"), places[0], f"a{turn}"))
            await asyncio.sleep(turn * 0.001 + (0.1 if first else 0.0))
            assert await put_again(simulation.client(f"then{turn}"), places[1], f"b{turn}")
            assert await pushing
            await asyncio.sleep(3)

    play(act, sites=("eu", "eu", "eu", "us"), between_sites_s=0.08)  # it is left at one of the site before the answer


@pytest.mark.parametrize("told", [0, 1], ids=["by the collecting", "by another"])
@pytest.mark.parametrize("asked_later", [False, True], ids=["all were asked", "one is asked later"])
def test_a_blob_is_kept_of_which_a_client_is_told_while_it_is_collected(monkeypatch, told, asked_later):
    """A lease protected content only at the instance that granted it. A client that was told that a blob exists between
    a collector's mark and its release was answered 404 when it pushed the manifest, because other members had dropped
    the link. The link is now re-asserted before the client is told, and a member that releases a blob drops only links
    that the collector knew of before it asked."""
    image, ask_all, relied = ALL_IMAGES[0], GarbageCollector._ask_all, GarbageCollector.answer_references

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        collecting, last, place = (
            simulation.nodes[0],
            simulation.nodes[2],
            simulation.nodes[told],
        )
        work, operator = simulation.client(), simulation.client("operator")

        async def tell():
            for blob in image.blobs:
                assert await work.has(place, "app", blob)

        async def ask_and_tell(self, digests):
            found = await ask_all(self, digests)
            if not asked_later:
                await tell()
            return found

        async def hear_nothing(frame, sender):
            pass

        async def answer_late(self, asker, question):
            if asked_later and self is last.instance.cluster.garbage_collector:
                await asyncio.sleep(0.1)
                monkeypatch.setattr(collecting.instance.cluster.gossip, "_receive_change", hear_nothing)
                await tell()
                await asyncio.sleep(0.1)
            return await relied(self, asker, question)

        for blob in image.blobs:
            while not await work.upload(collecting, "app", blob):
                pass
        for turn in range(2):
            if turn:
                await asyncio.sleep(GRACE_S + 1)
                monkeypatch.setattr(GarbageCollector, "_ask_all", ask_and_tell)
                monkeypatch.setattr(GarbageCollector, "answer_references", answer_late)
            await operator.ask("collect", collecting, "POST", "/_concord/gc", b"{}")
        await asyncio.sleep(1)
        assert await put_again(work, place, "v1")

    play(act)


def test_faults_have_names_that_can_be_given_on_the_command_line():
    assert all(name == name.lower() and " " not in name for name in FAULTS)
