"""A replicated document: a pycrdt `Doc` that holds one array of facts for each writer.

It is an observed-remove set. A replica may delete any fact that it has seen. A delete wins over the facts that it
observed and loses to all others. Facts are never changed, and every writer appends to an array of its own, so
concurrent writes cannot collide. (Shared `Map` keys lose writes and nested types lose whole branches, so neither is
used.)

The registry keeps documents as a snapshot and a log of updates and loads them only to answer what another replica
lacks, or to make the next snapshot: its own writes are encoded by `delta` alone.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from pycrdt import Array, Doc

from crdt.errors import DocumentBroken
from crdt.vector import Vector, decode_vector, encode_vector

T = TypeVar("T")


class Document:
    """One document in memory. Updates given to it must have passed `delta.decode_delta`.

    Raises DocumentBroken where pycrdt fails on an update; drop the object then.
    """

    def __init__(self, updates: Iterable[bytes] = ()) -> None:
        self._doc: Doc[Array[str]] = Doc(client_id=0)  # it reads and merges, and never writes under any id
        for update in updates:
            self.apply(update)

    def apply(self, update: bytes) -> None:
        """Take in an update from which nothing before it is missing. Applying one again changes nothing."""
        _guarded(lambda: self._doc.apply_update(update))

    def vector(self) -> Vector:
        """Return the state vector: the next clock of each writer."""
        return decode_vector(self._doc.get_state())

    def diff(self, vector: Mapping[int, int]) -> bytes:
        """An update with everything that a replica at `vector` lacks, and the whole delete set."""
        return _guarded(lambda: self._doc.get_update(encode_vector(vector)))

    def snapshot(self) -> bytes:
        """The whole document as one update."""
        return _guarded(self._doc.get_update)

    def texts(self) -> list[str]:
        """All live facts, sorted: for snapshots, audits and tests, not for requests. Arrays are read whole, as JSON,
        since pycrdt looks for each single entry from the beginning."""
        arrays = (self._doc.get(name, type=Array) for name in self._doc.keys())  # noqa: SIM118  # a Doc is not iterable by name
        return sorted(text for array in arrays for text in json.loads(str(array)))


def _guarded(call: Callable[[], T]) -> T:
    """Run one call into pycrdt, whose Rust panics are BaseExceptions that would otherwise end the process."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise DocumentBroken(f"{type(error).__name__}: {error}") from None
