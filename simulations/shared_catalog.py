"""Catalogs in memory for very many instances: what is the same at several of them exists once.

An instance's documents are states, and a state is known by its document and state vector: equal vectors mean equal
facts (the simulations hold the registry to that), so an instance that reaches a vector that another one has reached
before takes over what was computed then. Admission, order and every message are each instance's own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from crdt.audit import Summary, summarize
from crdt.catchup import Changes, State
from crdt.change import Change
from crdt.delta import Delta, decode_delta, encode_delta
from crdt.document import Document
from crdt.fact import fact_hash
from crdt.gate import admit
from crdt.revisions import Revision
from crdt.trie import DIGEST_SIZE, Node, Prefix, build, update
from crdt.vector import Vector
from registry.catalog.documents import Applied, MissingDependencies, document_key
from registry.catalog.incoming import Incoming

CHANGES_PER_ANSWER = 1000
LOADED_DIFFS = 1000

Identity = tuple[int, int]


class Held:
    """One state of one document. Its facts and its trie are made when they are first needed."""

    def __init__(self, parts: tuple[bytes, ...], vector: Vector, digest: bytes, facts: dict[Identity, str] | None):
        self.parts = parts
        self.vector = vector
        self.digest = digest
        self._facts = facts
        self._trie: Node | None = None

    @property
    def facts(self) -> dict[Identity, str]:
        if self._facts is None:
            self._facts = {(w, clock): text for part in self.parts for w, clock, text in decode_delta(part).added}
        return self._facts

    @property
    def trie(self) -> Node:
        if self._trie is None:
            self._trie = build(map(fact_hash, self.facts.values()))
        return self._trie

    def after(self, raw: bytes, delta: Delta, vector: Vector) -> "Held":
        facts = dict(self.facts)
        added = {(w, clock): text for w, clock, text in delta.added if clock >= self.vector.get(w, 0)}
        facts.update(added)
        ended = [(w, c) for w, ranges in delta.deleted.items() for first, n in ranges for c in range(first, first + n)]
        removed = [fact_hash(facts.pop(identity)) for identity in ended if identity in self.facts]
        trie = update(self.trie, removed, [fact_hash(text) for text in added.values()])
        held = Held((*self.parts, raw), vector, trie.digest, facts)
        held._trie = trie
        return held


EMPTY = Held((), {}, build([]).digest, {})


class Base(NamedTuple):
    """The documents that all instances begin with."""

    documents: dict[str, Held]
    root: Node


def base(documents: Iterable[tuple[str, int, Sequence[str]]]) -> Base:
    """Documents by name, each with the writer and the texts of its facts."""
    held = {}
    for name, writer, texts in documents:
        raw = encode_delta(writer, 0, texts, ())
        held[name] = Held((raw,), {writer: len(texts)}, build(map(fact_hash, texts)).digest, None)
    return Base(held, build((document_key(name) + one.digest for name, one in held.items()), 2 * DIGEST_SIZE))


class States:
    """All states that some instance is in."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[str, frozenset[Identity]], Held] = WeakValueDictionary()
        self._diffs: dict[tuple[str, frozenset[Identity], frozenset[Identity]], bytes] = {}

    def after(self, name: str, held: Held, raw: bytes, delta: Delta, vector: Vector) -> Held:
        key = name, frozenset(vector.items())
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = held.after(raw, delta, vector)
        return found

    def diff(self, name: str, held: Held, vector: Mapping[int, int]) -> bytes:
        key = name, frozenset(held.vector.items()), frozenset(vector.items())
        if key not in self._diffs:
            while len(self._diffs) >= LOADED_DIFFS:
                del self._diffs[next(iter(self._diffs))]
            self._diffs[key] = Document(held.parts).diff(vector)
        return self._diffs[key]


class SharedReplica:
    """A replica with the interface of `registry.catalog.replica.DocumentReplica`."""

    def __init__(self, states: States, common: Base) -> None:
        self._states = states
        self._common = common.documents
        self.own: dict[str, tuple[Held, int]] = {}
        """Documents changed here, each with the number of its last change."""
        self.trie = common.root
        self.commit = 1 if common.documents else 0
        self._names: dict[bytes, str] | None = None

    def held(self, name: str) -> Held:
        own = self.own.get(name)
        return own[0] if own else self._common.get(name, EMPTY)

    def put(self, name: str, held: Held) -> None:
        key, before = document_key(name), self.held(name)
        out = [key + before.digest] if before.digest != EMPTY.digest else []
        new = [key + held.digest] if held.digest != EMPTY.digest else []
        self.trie = update(self.trie, out, new, 2 * DIGEST_SIZE)
        self.commit += 1
        self.own.pop(name, None)
        self.own[name] = (held, self.commit)
        self._names = None

    def root(self) -> bytes:
        return self.trie.digest

    def commit_number(self) -> int:
        return self.commit

    def summaries(self, places: list[Prefix]) -> list[Summary]:
        return summarize(self.trie, places)

    def names(self, keys: Sequence[bytes]) -> list[str]:
        if self._names is None:
            self._names = {document_key(name): name for name in self._common | self.own}
        return [self._names[key] for key in keys if key in self._names]

    def state(self, document: str) -> State:
        held = self.held(document)
        return State(dict(held.vector), held.digest)

    def changes(self, since: int) -> Changes:
        """Own changes are in the order of their numbers; what all began with is change number 1."""
        changed = [] if since else [(name, 1) for name in self._common if name not in self.own]
        for name in reversed(self.own):
            if self.own[name][1] <= since:
                break
            changed.append((name, self.own[name][1]))
        changed.sort(key=lambda entry: entry[1])
        page = changed[:CHANGES_PER_ANSWER]
        while page[1:] and len(page) < len(changed) and page[-1][1] == changed[len(page)][1]:
            page.append(changed[len(page)])
        more = len(page) < len(changed)
        return Changes([name for name, _ in page], page[-1][1] if more else max(self.commit, since), more)

    def diff(self, document: str, vector: Vector) -> bytes:
        return self._states.diff(document, self.held(document), vector)

    def state_and_diff(self, document: str, vector: Vector) -> tuple[State, bytes]:
        return self.state(document), self.diff(document, vector)


class _Nothing:
    """Stands for what the database would remember beside documents: nothing is asked again."""

    async def write(self, operation: object) -> None:
        pass

    def rows(self, sql: str, bindings: Sequence[Any] = ()) -> list[Any]:
        return []

    def writers_of(self, names: Iterable[str]) -> dict[str, str]:
        return {}


class _NoAccess:
    """Stands for the facts of access control, which `scale` does not play."""

    digest = ""
    is_enforced = is_awaited = is_restored = False
    reached: tuple[Revision, ...] = ()

    def require_reached(self, revisions: Iterable[Revision]) -> None:
        pass


class SharedCatalog:
    """A catalog with the interface that gossip and anti-entropy use of `registry.catalog.catalog.Catalog`."""

    def __init__(self, states: States, common: Base, instance_id: str, writer: int) -> None:
        self._states = states
        self.instance_id = instance_id
        self.writer = writer
        self.incarnation = 1
        self.replica = SharedReplica(states, common)
        self.database = self.queries = _Nothing()
        self.access = _NoAccess()
        self._seen: dict[str, Vector] = {}
        """Of documents written here, their vectors after the last write."""
        self._publish: Callable[[Change], None]
        self.on_reached: Callable[[str, Vector, Vector], None] = lambda name, before, after: None

    def attach(self, publish: Callable[[Change], None]) -> None:
        """Publish what is written from now on."""
        self._publish = publish

    def write(self, name: str, texts: Sequence[str], ended: Sequence[Identity], bodies: tuple[bytes, ...]) -> None:
        """One operation, committed and told."""
        held = self.replica.held(name)
        clock = held.vector.get(self.writer, 0)
        raw = encode_delta(self.writer, clock, texts, ended)
        seen = self._seen.get(name, {})
        needs = {w: c for w, c in held.vector.items() if w != self.writer and c != seen.get(w)}
        delta = decode_delta(raw)
        after = held.vector | {self.writer: sum(delta.spans[self.writer])}
        self._reach(name, held, raw, delta, after)
        self._seen[name] = after
        self._publish(
            Change(name, self.writer, clock, needs, raw, self.replica.held(name).digest, self.replica.commit, bodies)
        )

    async def take_in(self, incoming: Incoming, sender: str | None = None) -> Applied:
        held = self.replica.held(incoming.document)
        after = admit(held.vector, incoming.delta, incoming.needs)
        if after is None:
            raise MissingDependencies(incoming.document)
        if after == held.vector:
            return Applied(after, held.digest, False)
        self._reach(incoming.document, held, incoming.raw, incoming.delta, after)
        return Applied(after, self.replica.held(incoming.document).digest, True)

    def _reach(self, name: str, held: Held, raw: bytes, delta: Delta, after: Vector) -> None:
        self.replica.put(name, self._states.after(name, held, raw, delta, after))
        self.on_reached(name, held.vector, after)
