"""Who may give up its copy, when everybody wants to at the same moment."""

import random
from types import SimpleNamespace

import pytest

from registry.cluster.evict import Evict
from registry.cluster.ranking import Candidate, designated
from registry.policy import Copies
from tests.support.client import sha256


def instance(own, candidates, holders, copies):
    """One instance, as it sees the others: all of them, answering for what they hold now."""

    async def keeps(member, digest, timeout_s):
        return member.instance in holders

    members = SimpleNamespace(
        own=own,
        keepers=lambda: [one for one in candidates if one != own],
        get=lambda name: SimpleNamespace(instance=name, reachable=True),
    )
    catalog = SimpleNamespace(queries=SimpleNamespace(links_of=lambda digest: [("app", (1, 1))]))
    kept = SimpleNamespace(
        designated=lambda repository, digest: designated(copies, digest, candidates), is_front_end=False
    )
    return Evict(1, catalog, None, members, SimpleNamespace(keeps=keeps), kept, None, None)


@pytest.mark.parametrize("copies", [Copies(), Copies(number=1), Copies(number=2), Copies(number=3)], ids=str)
async def test_all_at_once_leave_as_many_as_the_policy_asks_for(copies):
    """Each is asked before any has removed its own, as it is when they cannot hear each other."""
    drawn, given_up = random.Random(str(copies)), 0
    for number in range(300):
        candidates = [Candidate(f"{drawn.getrandbits(128):032x}", drawn.choice("abc")) for _ in range(6)]
        digest = sha256(b"%d" % number)
        holding = set(drawn.sample(candidates, drawn.randint(1, 6)))
        names = {one.instance for one in holding}
        gone = {
            one
            for one in sorted(holding)
            if await instance(one, candidates, names, copies)._is_held_by_higher_ones(digest)
        }
        given_up += len(gone)
        assert len(holding - gone) >= min(max(copies.number, 1), len(holding))
        assert not gone & set(designated(copies, digest, candidates))
    assert given_up > 50
