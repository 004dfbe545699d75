"""How many are asked who has a content."""

import asyncio

import pytest

from registry.cluster.membership.members import Members
from registry.cluster.rpc.messages import Heartbeat
from registry.cluster.transfer.locator import HEDGE_S, LIKELY, LIKELY_NEAR, Locator
from registry.ports import PeerUnreachable
from tests.support.client import sha256
from tests.support.stand_ins import RecordedMembership

OWN = "0" * 32
DIGEST = sha256(b"wanted")


class PeerClient:
    """Answers at once, or never: as `holders` and `silent` say."""

    def __init__(self):
        self.asked, self.holders, self.silent = [], set(), set()

    async def held_size(self, member, digest, timeout_s, quarantined=False):
        self.asked.append(member.instance)
        if member.instance in self.silent:
            await asyncio.sleep(timeout_s)
            raise PeerUnreachable("silent")
        return 6 if member.instance in self.holders else None


@pytest.fixture
async def many():
    """A hundred members at five sites."""
    members, peers = Members(OWN, "s0", RecordedMembership()), PeerClient()
    for number in range(1, 101):
        beat = Heartbeat(f"s{number % 5}", f"http://i{number}", "", "1", 1, 0, 0, bytes(16), {})
        members.receive_heartbeat(f"{number:032x}", beat, 1, on_bus=False)
    return members, peers, Locator(peers, members)


async def found(locate, uploader=None):
    async for member, _ in locate.holders(DIGEST, uploader=uploader):
        return member.instance
    return None


async def test_a_handful_is_asked_when_one_of_those_has_it(many):
    _members, peers, locate = many
    peers.holders = {f"{77:032x}"}
    assert await found(locate, uploader=f"{77:032x}") == f"{77:032x}"
    assert len(peers.asked) <= LIKELY + LIKELY_NEAR + 1


async def test_everybody_is_asked_when_none_of_those_has_it_and_who_had_it_is_remembered(many):
    _members, peers, locate = many
    peers.holders = {f"{77:032x}"}
    assert await found(locate) == f"{77:032x}"
    assert len(peers.asked) == 100
    peers.asked.clear()
    assert await found(locate) == f"{77:032x}"
    assert len(peers.asked) <= LIKELY + LIKELY_NEAR + 1


async def test_who_says_nothing_costs_a_moment(many):
    members, peers, locate = many
    assert await found(locate) is None
    peers.silent, peers.holders = set(peers.asked[: LIKELY + LIKELY_NEAR]), {peers.asked[-1]}
    locate = Locator(peers, members)
    begun = asyncio.get_running_loop().time()
    assert await found(locate) in peers.holders
    assert asyncio.get_running_loop().time() - begun < HEDGE_S + 0.5
    locate.close()


async def test_near_ones_come_first_and_then_fast_ones(many):
    members, _peers, locate = many
    near, far, fast = (members.get(f"{number:032x}") for number in (5, 1, 2))
    far.answers_in_s, fast.answers_in_s = 0.2, 0.01
    assert sorted([far, fast, near], key=locate._distance) == [near, fast, far]
