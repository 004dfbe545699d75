"""One site is one registry, in the middle of faults: scenarios, and the checker that judges clients' pulls."""

import asyncio
import math

import pytest

from registry.cluster.replication.read_lease import LEASE_S
from simulations.checkers import Violation
from simulations.checkers.read_your_writes import ReadYourWrites
from simulations.history import Operation
from simulations.simulation import Simulation
from simulations.workload.images import BARE, digest_of
from simulations.workload.pipeline import REPOSITORY
from tests.simulations.steps import play

SITE = ("eu", "eu")


def request(number, kind, begun_s, ended_s, digest="", status=201, node="i0"):
    return Operation(number, kind, node, "app", "v1", digest, begun_s, ended_s, status)


def judge(requests, is_parted=lambda site, begin, end: False, is_ready=True):
    """Tell the checker of requests, each at once; a pull shows the digest that it has."""
    checker = ReadYourWrites(is_parted)
    for one in requests:
        is_pull = one.kind == "pull manifest"
        shown = one.digest if is_pull else ""
        checker.begin(one, "eu", is_ready)
        checker.end(one, shown)
    return checker


PUSHES = [request(1, "push", 1, 2, "one"), request(2, "push", 3, 4, "two")]
STALE = request(3, "pull manifest", 5, 6, "one", 200, "i1")


def test_read_your_writes_of_a_stale_pull_is_a_violation():
    with pytest.raises(Violation):
        judge([*PUSHES, STALE])
    with pytest.raises(Violation):
        judge([*PUSHES, request(3, "pull manifest", 5, 6, "", 404, "i1")])


def test_read_your_writes_of_a_current_pull_holds():
    checker = judge([*PUSHES, request(3, "pull manifest", 5, 6, "two", 200, "i1")])
    assert checker.checked == 1
    judge([PUSHES[0], request(2, "delete tag", 3, 4, status=202), request(3, "pull manifest", 5, 6, "", 404, "i1")])
    judge([PUSHES[0], request(2, "push", 3, math.inf, "two", None), request(3, "pull manifest", 5, 6, "two", 200)])


def test_read_your_writes_where_the_site_was_parted_or_the_instance_was_not_ready_is_not_asked_for():
    judge([*PUSHES, STALE], is_parted=lambda site, begin, end: True)
    judge([*PUSHES, STALE], is_ready=False)


def test_reads_beside_a_primary_that_hangs_wait_for_it_and_show_what_was_pushed_meanwhile():
    async def act(simulation: Simulation) -> None:
        await simulation.start()
        one, other = simulation.nodes
        pusher, puller = simulation.client("pusher"), simulation.client("puller")
        await pusher.push(one, REPOSITORY, "live", BARE[0])
        await puller.pull_manifest(other, REPOSITORY, "live")
        other.pause(primary_alone=True)
        begun_s = simulation.now_s
        await pusher.push(one, REPOSITORY, "live", BARE[1])
        assert 0.05 < simulation.now_s - begun_s < LEASE_S * 1.5, "once its lease has ended"
        pulls = [
            asyncio.ensure_future(simulation.client(f"p{n}").pull_manifest(other, REPOSITORY, "live")) for n in (1, 2)
        ]
        await asyncio.sleep(2.0)
        assert not any(pull.done() for pull in pulls), "its worker cannot know what it lacks"
        other.resume()
        assert [digest_of(body) for body in await asyncio.gather(*pulls)] == [digest_of(BARE[1].body)] * 2

    play(act, sites=SITE)


def test_pushes_at_a_site_whose_bus_is_cut_reach_its_other_instances_by_requests():
    async def act(simulation: Simulation) -> None:
        await simulation.start()
        one, other = simulation.nodes[:2]
        for server in simulation.cluster.redis.names:
            for node in (one, other):
                simulation.cluster.packet_simulator.block(node.name, server)
                simulation.cluster.packet_simulator.block(server, node.name)
        simulation.disturbances.note()
        took_s = []
        for image in BARE:
            begun_s = simulation.now_s
            assert await simulation.client().push(one, REPOSITORY, "live", image)
            took_s.append(simulation.now_s - begun_s)
            shown = await simulation.client("puller").pull_manifest(other, REPOSITORY, "live")
            assert digest_of(shown) == digest_of(image.body)
        assert max(took_s) < 0.2, "no instance is excluded"
        simulation.cluster.packet_simulator.clear()

    play(act, sites=(*SITE, "us"))
