"""A replica in memory, made of crdt/ alone: what the registry's catalog is to documents, without SQLite."""

from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import Any

from blake3 import blake3

from crdt.audit import Summary, summarize
from crdt.catchup import (
    Apply,
    AskChanges,
    AskDiffs,
    AskFingerprints,
    AskNames,
    AskSummaries,
    Changes,
    Diff,
    Pause,
    Report,
    Send,
    State,
    Step,
    catch_up,
)
from crdt.delta import decode_delta, encode_delta
from crdt.document import Document
from crdt.fact import fact_hash
from crdt.gate import admit
from crdt.trie import DIGEST_SIZE, Node, Prefix, build
from crdt.vector import Vector, covers

decoded = lru_cache(maxsize=512)(decode_delta)
"""The decoded update. It arrives at several replicas, at some more than once, and is only read."""


class Held:
    """One document: its pycrdt document, and what updates said."""

    def __init__(self) -> None:
        self.document = Document()
        self.vector: Vector = {}
        self.facts: dict[tuple[int, int], str] = {}
        self.changed = 0
        self._digests: dict[tuple[str, ...], bytes] = {}
        """The digest, by the facts that it was last made of."""

    @property
    def digest(self) -> bytes:
        facts = tuple(self.facts.values())
        if facts not in self._digests:
            self._digests = {facts: build(map(fact_hash, facts)).digest}
        return self._digests[facts]


class MemoryReplica:
    """Satisfies `crdt.catchup.Replica`."""

    def __init__(self, writer: int) -> None:
        self.writer = writer
        self.documents: dict[str, Held] = {}
        self.commit = 0

    def held(self, name: str) -> Held:
        if name not in self.documents:
            self.documents[name] = Held()
        return self.documents[name]

    def write(self, name: str, texts: Sequence[str], deleted: Sequence[str] = ()) -> bytes:
        """One operation; answers its delta."""
        held = self.held(name)
        doomed = [identity for identity, text in held.facts.items() if text in set(deleted)]
        delta = encode_delta(self.writer, held.vector.get(self.writer, 0), texts, doomed)
        assert self.apply(name, delta)
        return delta

    def apply(self, name: str, update: bytes, needs: Vector | None = None) -> bool:
        """Take in an update unless something is missing before it."""
        held = self.held(name)
        delta = decoded(update)
        after = admit(held.vector, delta, needs or {})
        if after is None:
            return False
        held.document.apply(update)
        for writer, clock, text in delta.added:
            if clock >= held.vector.get(writer, 0):
                held.facts[writer, clock] = text
        for writer, ranges in delta.deleted.items():
            for first, length in ranges:
                for clock in range(first, first + length):
                    held.facts.pop((writer, clock), None)
        if after != held.vector:
            self.commit += 1
            held.changed = self.commit
        held.vector = after
        return True

    def texts(self, name: str) -> list[str]:
        return sorted(self.held(name).facts.values())

    # crdt.catchup.Replica

    def root_trie(self) -> Node:
        entries = [key_of(name) + held.digest for name, held in self.documents.items() if held.facts]
        return build(entries, 2 * DIGEST_SIZE)

    def summaries(self, places: list[Prefix]) -> list[Summary]:
        return summarize(self.root_trie(), places)

    def names(self, keys: Sequence[bytes]) -> list[str]:
        return [name for name in sorted(self.documents) if key_of(name) in set(keys)]

    def state(self, document: str) -> State:
        held = self.documents.get(document)
        return State(dict(held.vector), held.digest) if held else State({}, build([]).digest)

    def diff(self, document: str, vector: Vector) -> bytes:
        return self.held(document).document.diff(vector)

    def changes(self, since: int, limit: int = 3) -> Changes:
        """A few at a time, so that paging is exercised."""
        changed = sorted((h.changed, name) for name, h in self.documents.items() if h.changed > since)
        page, more = changed[:limit], len(changed) > limit
        return Changes([name for _, name in page], page[-1][0] if more else self.commit, more)


def key_of(name: str) -> bytes:
    return blake3(name.encode()).digest(DIGEST_SIZE)


def answer(peer: MemoryReplica, replica: MemoryReplica, step: Step) -> Any:
    """Carry out one step of `replica` catching up with `peer`."""
    match step:
        case AskChanges(since):
            return peer.changes(since)
        case AskSummaries(places):
            return peer.summaries(places)
        case AskNames(keys):
            return peer.names(keys)
        case AskFingerprints(names):
            return [peer.state(name).fingerprint() for name in names]
        case AskDiffs(vectors):
            return [
                Diff(peer.state(n), b"" if covers(v, peer.state(n).vector) else peer.diff(n, v)) for n, v in vectors
            ]
        case Apply(updates):
            for document, update in updates:
                replica.apply(document, update)
        case Send(updates):
            for document, update in updates:
                peer.apply(document, update)
        case Pause():
            pass
    return None


def steps_of(
    replica: MemoryReplica, peer: MemoryReplica, since: int | None
) -> Generator[tuple[Step, Any], None, Report]:
    """Catch up, yielding each step and its answer; the generator's value is the report."""
    protocol = catch_up(replica, since)
    said: Any = None
    while True:
        try:
            step = protocol.send(said)
        except StopIteration as done:
            report: Report = done.value
            return report
        said = answer(peer, replica, step)
        yield step, said


def bring_together(replica: MemoryReplica, peer: MemoryReplica, since: int | None = None) -> Report:
    steps = steps_of(replica, peer, since)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            report: Report = done.value
            return report
