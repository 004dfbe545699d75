"""The tries behind the state digests, cached in memory.

A cached trie belongs to a document as of one commit number; where the number in the catalog is another one, another
process has written, and the trie is built again from the view. A transaction that is rolled back drops what it put
here, since its commit numbers will be used again. So the cache may be dropped at any time.
"""

from collections import OrderedDict

from crdt.trie import DIGEST_SIZE, Node, build, find, update
from registry.catalog.database import Database

EMPTY_DIGEST = build(()).digest
DEFAULT_ENTRIES = 1_000_000


class TrieCache:
    """Tries of documents' facts by document and commit number, the least recently used dropped first."""

    def __init__(self, max_entries: int = DEFAULT_ENTRIES) -> None:
        self._max_entries = max_entries
        self._entries = 0
        self._tries: OrderedDict[int, tuple[int, Node]] = OrderedDict()

    def get(self, document: int, changed: int) -> Node | None:
        found = self._tries.get(document)
        if found is None or found[0] != changed:
            return None
        self._tries.move_to_end(document)
        return found[1]

    def put(self, document: int, changed: int, trie: Node) -> None:
        self.drop(document)
        self._tries[document] = (changed, trie)
        self._entries += trie.size
        while self._entries > self._max_entries and len(self._tries) > 1:
            self.drop(next(iter(self._tries)))

    def drop(self, document: int) -> None:
        found = self._tries.pop(document, None)
        if found is not None:
            self._entries -= found[1].size


class RootTrie:
    """The trie over all documents that have live facts, brought up to date when it is asked for."""

    WIDTH = 2 * DIGEST_SIZE

    def __init__(self, database: Database) -> None:
        self._database = database
        self._node: Node = build((), self.WIDTH)
        self._upto = 0

    def node(self) -> Node:
        """The trie as of what is committed now."""
        sql = "SELECT key, digest, facts, changed FROM documents WHERE changed > ?"
        removed, added = [], []
        for key, digest, facts, changed in self._database.rows(sql, (self._upto,)):
            before = find(self._node, key)
            if before is not None:
                removed.append(before)
            if facts:
                added.append(key + digest)
            self._upto = max(self._upto, changed)
        self._node = update(self._node, removed, added, self.WIDTH)
        return self._node
