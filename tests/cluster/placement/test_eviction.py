"""Who may give up its copy, when everybody wants to at the same moment."""

import contextlib
import random
from types import SimpleNamespace

import pytest

from registry.catalog.content import UsedRow
from registry.cluster.placement.eviction import Evictor
from registry.cluster.placement.rendezvous import Candidate, designated
from registry.settings.policy import Copies
from registry.storage.disk_budget import DiskBudget
from registry.storage.shared_usage import SharedUsage
from tests.support.client import sha256


def budget(limit_bytes):
    return DiskBudget(limit_bytes, SharedUsage())


def instance(own, candidates, holders, copies):
    """One instance, as it sees the others: all of them, answering for what they hold now."""

    async def keeps(member, digest, timeout_s):
        return member.instance in holders

    members = SimpleNamespace(
        own=own,
        replica_candidates=lambda: [one for one in candidates if one != own],
        get=lambda name: SimpleNamespace(instance=name, reachable=True),
    )
    catalog = SimpleNamespace(queries=SimpleNamespace(links_of=lambda digest: [("app", (1, 1))]))
    kept = SimpleNamespace(designated=lambda repository, digest: designated(copies, digest, candidates), is_proxy=False)
    return Evictor(budget(1), catalog, None, members, SimpleNamespace(keeps=keeps), kept, None, None)


async def test_what_nobody_else_holds_is_not_asked_for_again_and_again(monkeypatch):
    """A disk full of last copies had the others asked for each of them every five seconds. The pause now doubles, up to
    a minute."""
    now, passes = 0.0, []

    async def held_bytes(database):
        return 100

    monkeypatch.setattr("registry.cluster.placement.eviction.now_s", lambda: now)
    monkeypatch.setattr("registry.cluster.placement.eviction.content_bytes_aside", held_bytes)
    monkeypatch.setattr("registry.cluster.placement.eviction.least_used", lambda *arguments: passes.append(now) or [])
    evict = Evictor(budget(100), SimpleNamespace(database=None), *[None] * 6)
    for second in range(0, 600, 5):
        now = float(second)
        await evict.once()
    assert passes[:5] == [0, 5, 15, 35, 75], "longer each time"
    assert len(passes) < 16


async def test_what_is_read_while_room_is_made_stays(monkeypatch):
    """Content that was read during an eviction was evicted where that took long: content that came meanwhile seemed to
    have been used later."""
    removed = []

    async def held_bytes(database):
        evict.touch("hot")
        return 100

    async def removing(path):
        removed.append(path)

    async def write(operation):
        return operation(None)

    rows = [UsedRow("hot", 30, 1), UsedRow("cold", 30, 2)]
    monkeypatch.setattr("registry.cluster.placement.eviction.content_bytes_aside", held_bytes)
    monkeypatch.setattr(
        "registry.cluster.placement.eviction.least_used", lambda database, last, limit: rows if last[1] == "" else []
    )
    monkeypatch.setattr("registry.cluster.placement.eviction.drop_content", lambda tx, digest: None)
    monkeypatch.setattr("registry.cluster.placement.eviction.content_path", str)
    catalog = SimpleNamespace(database=SimpleNamespace(write=write))
    store = SimpleNamespace(changing=lambda digest: contextlib.nullcontext(), remove=removing)
    evict = Evictor(
        budget(100), catalog, store, None, None, None, SimpleNamespace(is_leased=lambda digest: False), AClock()
    )
    monkeypatch.setattr(evict, "_is_held_by_higher_ones", says_yes)
    monkeypatch.setattr(evict, "_repositories", lambda digest: [])
    await evict.once()
    assert removed == ["cold"]


async def says_yes(digest):
    return True


class AClock:
    def now_ms(self):
        return 1


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
