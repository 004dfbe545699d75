"""The same code with many instances: what must not grow with their number."""

import asyncio

import pytest

from simulations.scale import Deployment, Size

SIZE = Size(instances=24, sites=4, repositories=300, tags=6000, pushes_per_s=20, loss=0.001, calm_s=12, cut_s=6)


@pytest.fixture(scope="module")
def played():
    deployment = Deployment(SIZE)
    yield {phase.name: phase for phase in deployment.play()}, deployment
    for one in deployment.instances.values():
        deployment.loop.run_until_complete(one.close())
    asyncio.set_event_loop(None)


def test_every_push_is_everywhere_and_all_agree(played):
    phases, _ = played
    for name in ("pushes", "a site cut off"):
        assert len(phases[name].delays_s) == phases[name].pushes > 50
        assert phases[name].agreed_s <= 10


def test_many_who_start_are_not_greeted_by_all_each_time(played):
    """Each newcomer was answered by everybody at once: with N instances N squared heartbeats, each heard by N."""
    phases, _ = played
    usual = SIZE.instances * phases["all start"].virtual_s / 2
    assert phases["all start"].traffic.count["heartbeats published"] < 3 * usual


def test_a_round_asks_few_however_many_there_are(played):
    """Under load every state is another one, and every instance asked every other in every round."""
    phases, _ = played
    phase = phases["pushes"]
    rounds = SIZE.instances * phase.virtual_s / 5
    assert phase.traffic.count["/changes"] < 6 * rounds


def test_an_empty_instance_is_filled_once(played):
    """It took everything from everybody, and everybody sent it everything."""
    phases, deployment = played
    size = sum(len(part) for held in deployment.common.documents.values() for part in held.parts)
    traffic = phases["an empty one joins"].traffic
    assert size < traffic.bytes["/diffs"] + traffic.bytes["/updates"] < 1.5 * size
