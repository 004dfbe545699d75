import asyncio

import pytest

from registry.cluster.membership.events import MembershipEvents
from registry.cluster.membership.liveness import PROBES_AT_ONCE, LivenessProbe
from registry.cluster.membership.members import Members
from tests.cluster.membership.test_members import OTHER, OWN, beat


class Probes:
    """Collects probes, each under way until it is let go."""

    def __init__(self):
        self.begun: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, member):
        self.begun.append(member.instance)
        await self.go.wait()


@pytest.fixture
def events():
    return MembershipEvents()


@pytest.fixture
async def members(events):
    return Members(OWN, "eu", events)


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_probe_of_a_member_under_way_is_not_sent_twice(members, events):
    probes = Probes()
    events.connect(heard=(), proof=LivenessProbe("eu", probes), stale=None)
    for sequence in range(1, 10):
        members.receive_heartbeat(OTHER, beat(), sequence, on_bus=True)
        await settle()
    assert probes.begun == [OTHER]
    probes.go.set()
    await settle()
    members.receive_heartbeat(OTHER, beat(), 10, on_bus=True)
    await settle()
    assert probes.begun == [OTHER, OTHER], "the next heartbeat is the next attempt"


async def test_probes_of_other_sites_are_bounded_and_own_site_is_not_behind_them(members, events):
    probes = Probes()
    events.connect(heard=(), proof=LivenessProbe("eu", probes), stale=None)
    for number in range(100):
        members.receive_heartbeat(f"{number + 16:032x}", beat(site="us"), 1, on_bus=True)
    members.receive_heartbeat(OTHER, beat(), 1, on_bus=True)
    await settle()
    assert len(probes.begun) == PROBES_AT_ONCE + 1
    assert OTHER in probes.begun
    probes.go.set()
    await asyncio.sleep(0.01)
    assert len(probes.begun) == 101


async def test_closed_probes_end(members, events):
    probes = Probes()
    liveness = LivenessProbe("eu", probes)
    events.connect(heard=(), proof=liveness, stale=None)
    liveness.request(members.receive_heartbeat(OTHER, beat(), 1, on_bus=True))
    await settle()
    liveness.close()
    await settle()
    assert len(asyncio.all_tasks()) == 1
