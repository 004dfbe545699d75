"""The state digest: a canonical binary hash trie over sets of fixed-width entries.

An entry is a 16-byte hash, which places it, followed by a value that may be empty. Up to 64 entries are one leaf; more
are a branch by the next bit of the placing hash. The shape depends on nothing but the set, so two replicas that hold
the same have the same digest, and two that do not can find the difference by descending where digests differ (after
Merkle, 1987; one trie serves comparison, repair and `concord diff`).

    leaf     BLAKE3(0x00, the entries in order)
    branch   BLAKE3(0x01, left digest, right digest)        all cut to 16 bytes

Inside a document the entries are the hashes of its live facts. Over all documents they are the hash of a document's
name and its digest; a document without live facts is not among them.

Nodes are immutable. An update makes new nodes along the changed paths and shares the rest, so that a transaction that
fails leaves nothing to undo.
"""

from bisect import bisect_left
from collections.abc import Collection, Generator, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from blake3 import blake3

DIGEST_SIZE = 16
MAX_LEAF = 64
MAX_DEPTH = 8 * DIGEST_SIZE
STEP_ENTRIES = 512
"""Entries that one step of `build_in_steps` and `update_in_steps` handles, in about 2 ms of processor time."""
BUCKET_BITS = 8


class Leaf(NamedTuple):
    """Entries in order, joined; `width` bytes each."""

    digest: bytes
    size: int
    width: int
    joined: bytes

    def entries(self) -> list[bytes]:
        return _entries(self.joined, self.width)


class Branch(NamedTuple):
    """Two subtrees: entries whose next bit is 0, and those whose next bit is 1."""

    digest: bytes
    size: int
    left: "Node"
    right: "Node"

    def entries(self) -> list[bytes]:
        return self.left.entries() + self.right.entries()


Node = Leaf | Branch


class Prefix(NamedTuple):
    """A place in a trie: the first `depth` bits of placing hashes, as a number."""

    bits: int = 0
    depth: int = 0

    def holds(self, entry: bytes) -> bool:
        placed = int.from_bytes(entry[:DIGEST_SIZE], "big")
        return placed >> (MAX_DEPTH - self.depth) == self.bits


def build(entries: Iterable[bytes], width: int = DIGEST_SIZE) -> Node:
    """The trie over `entries`, each `width` bytes long, in any order."""
    return _build(sorted(entries), width, 0, 0)


def update(node: Node, removed: Collection[bytes], added: Collection[bytes], width: int = DIGEST_SIZE) -> Node:
    """The trie with some entries taken out and others put in. Removing what is not there is an error of the caller."""
    if not removed and not added:
        return node
    return _update(node, sorted(removed), sorted(added), width, 0, 0)


def build_in_steps(pages: Iterable[Sequence[bytes]], width: int = DIGEST_SIZE) -> Generator[None, None, Node]:
    """Return what `build` returns of all pages, and yield after each bounded step, so that the caller can pause."""
    remaining = iter(pages)
    first, second = next(remaining, ()), next(remaining, None)
    if second is None:
        return build(first, width)
    buckets: list[list[bytes]] = [[] for _ in range(1 << BUCKET_BITS)]
    for page in chain((first, second), remaining):
        for entry in page:
            buckets[entry[0]].append(entry)
        yield
    nodes: list[Node] = []
    for number, bucket in enumerate(buckets):
        prefix = number << (MAX_DEPTH - BUCKET_BITS)
        nodes.append(_build(sorted(bucket), width, BUCKET_BITS, prefix))
        if len(bucket) >= STEP_ENTRIES or number % MAX_LEAF == 0:
            yield
    while len(nodes) > 1:
        nodes = [_branch(nodes[at], nodes[at + 1], width) for at in range(0, len(nodes), 2)]
    return nodes[0]


def update_in_steps(
    node: Node, removed: Collection[bytes], added: Collection[bytes], width: int = DIGEST_SIZE
) -> Generator[None, None, Node]:
    """Return what `update` returns, and yield after each bounded step, so that the caller can pause.

    Each step changes one range of placing hashes. Changes in random order would visit every path again in each step.
    """
    if len(removed) + len(added) <= STEP_ENTRIES:
        return update(node, removed, added, width)
    out, new = sorted(removed), sorted(added)
    yield
    at_out = at_new = 0
    while at_out < len(out) or at_new < len(new):
        next_ones = [
            entries[at + STEP_ENTRIES]
            for entries, at in ((out, at_out), (new, at_new))
            if at + STEP_ENTRIES < len(entries)
        ]
        end_out = bisect_left(out, min(next_ones), at_out) if next_ones else len(out)
        end_new = bisect_left(new, min(next_ones), at_new) if next_ones else len(new)
        node = update(node, out[at_out:end_out], new[at_new:end_new], width)
        at_out, at_new = end_out, end_new
        yield
    return node


def descend(root: Node, prefix: Prefix) -> Node:
    """The node at a place. Where a leaf ends above it, the leaf of just those entries that belong there."""
    node = root
    for depth in range(prefix.depth):
        if isinstance(node, Leaf):
            return _leaf(b"".join(entry for entry in node.entries() if prefix.holds(entry)), node.width)
        node = node.right if prefix.bits >> (prefix.depth - depth - 1) & 1 else node.left
    return node


def find(root: Node, key: bytes) -> bytes | None:
    """The entry that a placing hash places, if there is one."""
    node, depth = root, 0
    while isinstance(node, Branch):
        node = node.right if _bit(key, depth) else node.left
        depth += 1
    return next((entry for entry in node.entries() if entry.startswith(key)), None)


def _entries(joined: bytes, width: int) -> list[bytes]:
    return [joined[at : at + width] for at in range(0, len(joined), width)]


def _bit(entry: bytes, depth: int) -> int:
    return entry[depth >> 3] & 0x80 >> (depth & 7)


def _leaf(joined: bytes, width: int) -> Leaf:
    return Leaf(blake3(b"\0" + joined).digest()[:DIGEST_SIZE], len(joined) // width, width, joined)


def _branch(left: Node, right: Node, width: int) -> Node:
    size = left.size + right.size
    if size <= MAX_LEAF:
        return _leaf(b"".join(left.entries() + right.entries()), width)
    return Branch(blake3(b"\1" + left.digest + right.digest).digest()[:DIGEST_SIZE], size, left, right)


def _boundary(prefix: int, depth: int) -> int:
    """The least placing hash, as a number, of those that agree with `prefix` in `depth` bits and have the next one
    set."""
    return prefix | 1 << (MAX_DEPTH - 1 - depth)


def _split(entries: list[bytes], boundary: int) -> int:
    """Return the index, in ordered entries, of the first one at or after a placing hash."""
    return bisect_left(entries, boundary.to_bytes(DIGEST_SIZE, "big"))


def _joined(leaf: Leaf, removed: list[bytes], added: list[bytes]) -> bytes:
    """The entries of a leaf with some taken out and others put in, not taken apart, since most updates change one."""
    joined, width = leaf.joined, leaf.width
    for entry in removed:
        at = _place(joined, entry, width)
        if joined[at : at + width] != entry:
            raise ValueError("an entry to be removed is not there")
        joined = joined[:at] + joined[at + width :]
    for entry in added:
        at = _place(joined, entry, width)
        joined = joined[:at] + entry + joined[at:]
    return joined


def _place(joined: bytes, entry: bytes, width: int) -> int:
    """Return the offset at which an entry is, or would be inserted, in joined ordered entries."""
    low, high = 0, len(joined) // width
    while low < high:
        middle = (low + high) // 2
        if joined[middle * width : (middle + 1) * width] < entry:
            low = middle + 1
        else:
            high = middle
    return low * width


def _build(entries: list[bytes], width: int, depth: int, prefix: int) -> Node:
    if len(entries) <= MAX_LEAF or depth == MAX_DEPTH:
        return _leaf(b"".join(entries), width)
    boundary = _boundary(prefix, depth)
    at = _split(entries, boundary)
    left = _build(entries[:at], width, depth + 1, prefix)
    return _branch(left, _build(entries[at:], width, depth + 1, boundary), width)


def _update(node: Node, removed: list[bytes], added: list[bytes], width: int, depth: int, prefix: int) -> Node:
    """`node` is at `depth`, where entries begin with the bits of `prefix`."""
    if isinstance(node, Leaf):
        if len(added) > MAX_LEAF:
            kept = _entries(_joined(node, removed, []), width)
            return _build(sorted(kept + added), width, depth, prefix)
        joined = _joined(node, removed, added)
        if len(joined) <= MAX_LEAF * width:
            return _leaf(joined, width)
        return _build(_entries(joined, width), width, depth, prefix)
    _, _, left, right = node
    boundary = _boundary(prefix, depth)
    out, new = _split(removed, boundary), _split(added, boundary)
    if out or new:
        left = _update(left, removed[:out], added[:new], width, depth + 1, prefix)
    if out < len(removed) or new < len(added):
        right = _update(right, removed[out:], added[new:], width, depth + 1, boundary)
    return _branch(left, right, width)
