"""The laws of replicated documents, by name, and a state machine against what state vectors mean."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from crdt.delta import decode_delta
from crdt.document import Document
from crdt.fact import tag_fact
from crdt.vector import covers
from simulations.documents import Meaning
from simulations.replica import MemoryReplica, bring_together
from tests.support.histories import NAME, history


def applied(deltas):
    """A replica that has taken in deltas, those that are early once nothing before them is missing."""
    replica, pending = MemoryReplica(7), list(deltas)
    while pending:
        left = [raw for raw in pending if not replica.apply(NAME, raw)]
        assert len(left) < len(pending), "each has its turn"
        pending = left
    return replica


def shown(replica):
    held = replica.held(NAME)
    return held.facts, held.vector, held.digest, sorted(held.document.texts())


@given(st.integers(0, 10**6))
def test_idempotent(seed):
    deltas, _ = history(seed)
    twice = [raw for raw in deltas for _ in range(2)]
    assert shown(applied(twice)) == shown(applied(deltas))


@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_commutative(seed, order):
    deltas, _ = history(seed)
    shuffled = list(deltas)
    order.shuffle(shuffled)
    assert shown(applied(shuffled)) == shown(applied(deltas))


@given(st.integers(0, 10**6), st.integers(0, 12))
def test_associative(seed, cut):
    """(a + b) + c is a + (b + c): it does not matter what was put together first."""
    deltas, _ = history(seed)
    first, second = applied(deltas), MemoryReplica(8)
    for part in (deltas[:cut], deltas):
        second.apply(NAME, applied(part).diff(NAME, second.state(NAME).vector))
    assert shown(second) == shown(first)


@given(st.integers(0, 10**6))
def test_monotone(seed):
    """A vector never goes back, and a fact that was ended never returns."""
    deltas, _ = history(seed)
    replica, ended = MemoryReplica(7), set()
    for raw in deltas:
        before = dict(replica.held(NAME).facts)
        vector = dict(replica.held(NAME).vector)
        assert replica.apply(NAME, raw)
        held = replica.held(NAME)
        assert covers(held.vector, vector)
        ended |= before.keys() - held.facts.keys()
        assert not ended & held.facts.keys()


@given(st.integers(0, 10**6))
def test_equal_vectors_mean_equal_facts(seed):
    deltas, replicas = history(seed)
    for replica in replicas:
        bring_together(replica, applied(deltas))
    assert len({str(sorted(replica.held(NAME).facts.items())) for replica in replicas}) == 1


@given(st.integers(0, 10**6))
def test_a_snapshot_says_what_its_updates_said(seed):
    deltas, _ = history(seed)
    document = Document(deltas)
    assert sorted(Document([document.snapshot()]).texts()) == sorted(document.texts())


class Replicas(RuleBasedStateMachine):
    """Three replicas, written to, told late or not at all, brought together; each shows what its vector means."""

    def __init__(self):
        super().__init__()
        self.replicas = [MemoryReplica(10 + n) for n in range(3)]
        self.meaning = Meaning()
        self.told: list[tuple[bytes, dict[int, int]]] = []
        self.number = 0

    @rule(at=st.integers(0, 2), end=st.integers(0, 3), say=st.booleans())
    def write(self, at, end, say):
        replica = self.replicas[at]
        live = replica.texts(NAME)
        self.number += 1
        texts = [tag_fact("v", f"sha256:{self.number:064x}", self.number, replica.writer).text()] if say else []
        vector = dict(replica.held(NAME).vector)
        raw = replica.write(NAME, texts, live[:end])
        self.meaning.add(NAME, raw)
        self.told.append((raw, vector))

    @rule(at=st.integers(0, 2), which=st.integers(0, 100))
    def deliver(self, at, which):
        if self.told:
            raw, needs = self.told[which % len(self.told)]
            before = dict(self.replicas[at].held(NAME).vector)
            if not self.replicas[at].apply(NAME, raw, needs):
                assert self.replicas[at].held(NAME).vector == before

    @rule(at=st.integers(0, 2), other=st.integers(0, 2))
    def catch_up(self, at, other):
        if at != other:
            assert bring_together(self.replicas[at], self.replicas[other]).forked == []
            one, two = (self.replicas[n].state(NAME).digest for n in (at, other))
            assert one == two

    @invariant()
    def each_shows_what_its_vector_means(self):
        for replica in self.replicas:
            held = replica.held(NAME)
            assert held.facts == self.meaning.of(NAME, held.vector)


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(
    max_examples=settings.default.max_examples * 3 // 5,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
)


def test_decoding_says_what_a_delta_does():
    deltas, _ = history(3)
    assert all(len(decode_delta(raw).spans) == 1 for raw in deltas)
