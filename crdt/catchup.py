"""A replica catching up with a peer, as a protocol without I/O.

`catch_up` is a generator: it yields questions for the peer and actions for this replica, is sent the answers, and
returns a report. Its caller, the driver, decides on transport, time and failure. When an answer does not arrive, the
driver closes the generator, and nothing is lost but the time.

A replica that remembers a sync point with a peer (the peer's commit number, for one incarnation of the peer) asks only
for the documents changed since. Otherwise it compares the two tries. Under load some change is always in flight, so
documents that differ are compared again after a pause; those that still differ are exchanged, in both directions.

When two replicas have equal vectors, each read in one step, and different facts, a writer was used by two processes: a
directory was cloned, or restored without a new identity. Such documents are reported as forked.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from blake3 import blake3

from crdt.audit import Summary, compare
from crdt.errors import Malformed
from crdt.trie import DIGEST_SIZE, Prefix
from crdt.vector import Vector, covers, encode_vector

DIFFS_PER_REQUEST = 64
NAMES_PER_REQUEST = 1000


class State(NamedTuple):
    """A document as one replica has it, read in one step. A document never heard of has an empty vector."""

    vector: Vector
    digest: bytes

    def fingerprint(self) -> bytes:
        """Equal for equal states only: operations that left nothing behind show in the vector alone."""
        return blake3(encode_vector(self.vector) + self.digest).digest(DIGEST_SIZE)


class Replica(Protocol):
    """The part of a replica that the protocol reads, at the side that runs it."""

    def summaries(self, places: list[Prefix]) -> list[Summary]:
        """Return summaries of the trie over all documents, see `audit.summarize`."""

    def names(self, keys: Sequence[bytes]) -> list[str]:
        """Return the names of documents, given the hashes of their names. Unknown hashes are left out."""

    def state(self, document: str) -> State: ...

    def diff(self, document: str, vector: Vector) -> bytes:
        """Return an update with all of the document that a replica at `vector` lacks."""


# The steps that the generator yields; `→` gives the answer that it is sent.


class AskChanges(NamedTuple):
    """Names of documents changed after a commit number → Changes."""

    since: int


class Changes(NamedTuple):
    names: list[str]
    commit: int
    """The commit number up to which changes are covered by these names."""
    more: bool


class AskSummaries(NamedTuple):
    """Summaries of places → list[Summary]."""

    places: list[Prefix]


class AskNames(NamedTuple):
    """Names of documents by their keys → list[str]."""

    keys: list[bytes]


class AskFingerprints(NamedTuple):
    """Fingerprints of documents, one for each name → list[bytes]."""

    names: list[str]


class AskDiffs(NamedTuple):
    """The updates that this replica lacks, given its vectors → list[Diff], one for each document."""

    vectors: list[tuple[str, Vector]]


class Diff(NamedTuple):
    """The peer's state and, where its vector shows something we lack, the update that has it (or nothing, when the
    answer would have become too long)."""

    state: State
    update: bytes


class Apply(NamedTuple):
    """Apply updates here, each to another document → None."""

    updates: list[tuple[str, bytes]]


class Send(NamedTuple):
    """Give the peer updates that it lacks → None."""

    updates: list[tuple[str, bytes]]


class Pause(NamedTuple):
    """Wait a moment, between the two looks → None."""


Step = AskChanges | AskSummaries | AskNames | AskFingerprints | AskDiffs | Apply | Send | Pause


@dataclass
class Report:
    """The result of catching up."""

    commit: int = 0
    """The peer's commit number that has been reached, 0 when it was not caught up by commit numbers."""
    exchanged: list[str] = field(default_factory=list)
    forked: list[str] = field(default_factory=list)
    pages: int = 0
    """The number of answers that listed the changed documents."""
    left_out: int = 0
    """The number of updates that the peer left out of an answer that would have become too long."""


Steps = Generator[Step, Any, Any]


def catch_up(replica: Replica, since: int | None) -> Generator[Step, Any, Report]:
    """Bring this replica and a peer together. `since` is the peer's commit number reached before, if remembered."""
    report = Report()
    if since is None:
        yield from exchange(replica, (yield from differing_by_audit(replica)), report)
        return report
    more = True
    while more:
        changes: Changes = yield AskChanges(since)
        yield from exchange(replica, changes.names, report)
        since, more = changes.commit, changes.more
        report.pages += 1
    report.commit = since
    return report


def differing_by_audit(replica: Replica) -> Generator[Step, Any, list[str]]:
    """The documents that the two replicas hold differently, found by walking both tries."""
    walk = compare()
    places = next(walk)
    while True:
        theirs: list[Summary] = yield AskSummaries(places)
        try:
            places = walk.send((replica.summaries(places), theirs))
        except StopIteration as done:
            ours_only, theirs_only = done.value
            break
    ours = {entry[:DIGEST_SIZE] for entry in ours_only}
    unnamed = sorted({entry[:DIGEST_SIZE] for entry in theirs_only} - ours)
    names: list[str] = replica.names(sorted(ours))
    for at in range(0, len(unnamed), NAMES_PER_REQUEST):
        names += yield AskNames(unnamed[at : at + NAMES_PER_REQUEST])
    return names


def exchange(replica: Replica, names: Iterable[str], report: Report) -> Steps:
    """Exchange, both ways, those of the named documents that differ in two looks."""
    differing = yield from _differing(replica, list(names))
    if differing:
        yield Pause()
        differing = yield from _differing(replica, differing)
        yield from exchange_now(replica, differing, report)


def _differing(replica: Replica, names: list[str]) -> Generator[Step, Any, list[str]]:
    differing = []
    for at in range(0, len(names), NAMES_PER_REQUEST):
        page = names[at : at + NAMES_PER_REQUEST]
        prints: list[bytes] = yield AskFingerprints(page)
        _expect(len(prints) == len(page))
        differing += [
            name for name, theirs in zip(page, prints, strict=True) if replica.state(name).fingerprint() != theirs
        ]
    return differing


def exchange_now(replica: Replica, names: Iterable[str], report: Report) -> Generator[Step, Any, Report]:
    """Exchange the named documents, both ways, without looking first.

    The peer leaves out updates that would make its answer too long; its vectors show which, and they are asked for
    again.
    """
    pending, large = list(names), list[str]()
    while pending:
        page, pending = pending[:DIFFS_PER_REQUEST], pending[DIFFS_PER_REQUEST:]
        left_out = yield from _exchange_page(replica, page, report)
        _expect(len(left_out) < len(page))
        large += left_out
        report.left_out += len(left_out)
        if not pending:
            pending, large = large[:1], large[1:]  # alone, so that nothing else waits for it or fails with it
    return report


def _exchange_page(replica: Replica, names: list[str], report: Report) -> Generator[Step, Any, list[str]]:
    """Exchange some documents. Return those whose updates the peer has left out."""
    before = {name: replica.state(name) for name in names}
    diffs: list[Diff] = yield AskDiffs([(name, before[name].vector) for name in names])
    _expect(len(diffs) == len(names))
    updates, exchanged, left_out = [], list[tuple[str, Vector]](), []
    for name, diff in zip(names, diffs, strict=True):
        ours, theirs = before[name], diff.state
        if ours.vector == theirs.vector and ours.digest != theirs.digest:
            report.forked.append(name)
        elif not diff.update and not covers(ours.vector, theirs.vector):
            left_out.append(name)
        else:
            exchanged.append((name, theirs.vector))
            if diff.update:
                updates.append((name, diff.update))
    if updates:
        yield Apply(updates)
    lacking = [
        (name, replica.diff(name, theirs))
        for name, theirs in exchanged
        if not covers(theirs, replica.state(name).vector)
    ]
    report.exchanged += (name for name, _ in exchanged)
    if lacking:
        yield Send(lacking)
    return left_out


def _expect(condition: bool) -> None:
    if not condition:
        raise Malformed("an answer that does not fit its question")
