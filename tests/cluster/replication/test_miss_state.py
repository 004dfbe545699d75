"""The members that a miss asks: none where the instance is in step with its site and no member has announced more."""

from types import SimpleNamespace

import pytest

from registry.cluster.replication.miss_state import MissState
from registry.cluster.replication.read_lease import ReadLease

ROOT, OTHER = b"root", b"other"


def member(name, ahead=False, root=ROOT):
    return SimpleNamespace(instance=name, ahead=ahead, beat=SimpleNamespace(root=root))


class Replica:
    def root(self):
        return ROOT


class Members:
    def __init__(self, near, far):
        self.near, self.far = near, far

    def reachable(self):
        return [*self.near, *self.far]

    def of_own_site(self):
        return self.near


@pytest.fixture
def lease():
    return ReadLease(lambda: 100.0)


def asked(state):
    return [one.instance for one in state.members_to_ask()]


def test_an_instance_with_the_lease_asks_those_who_are_ahead(lease):
    state = MissState(
        Members([member("a"), member("b", ahead=True)], [member("c"), member("d", ahead=True)]), lease, Replica()
    )
    lease.extend(101.0)
    assert asked(state) == ["b", "d"]


def test_an_instance_without_the_lease_asks_its_whole_site_too(lease):
    state = MissState(Members([member("a"), member("b")], [member("c"), member("d", ahead=True)]), lease, Replica())
    assert asked(state) == ["a", "b", "d"]


def test_a_miss_is_answered_at_once_under_the_lease_while_nobody_is_ahead(lease):
    near = member("a")
    state = MissState(Members([near], []), lease, Replica())
    lease.extend(101.0)
    assert not lease.allows_miss(), "nobody has looked yet"
    state.update()
    assert lease.allows_miss()
    near.ahead = True
    state.update()
    assert not lease.allows_miss() and lease.allows_read()
    near.ahead, near.beat.root = False, OTHER
    state.update()
    assert not lease.allows_miss(), "it may have got something from a member that has left"
    assert asked(state) == ["a"]
    near.beat.root = ROOT
    state.update()
    assert lease.allows_miss()
    lease.extend(99.0)
    assert not lease.allows_miss()
