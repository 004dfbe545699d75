"""Taking in what other instances send: updates of documents, with manifest bodies."""

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from crdt.delta import Delta, decode_delta
from crdt.fact import MANIFEST, parse_fact
from crdt.revisions import Revision
from crdt.vector import Vector
from registry.catalog.database import Transaction
from registry.catalog.documents import Applied, Documents
from registry.catalog.repository import store_body
from registry.event_loop.steps import Steps
from registry.oci.names import Digest, digest_of
from registry.oci.stored_manifest import read_stored
from registry.units import KIB

_WRITER = re.compile(r"[0-9a-f]{1,14}\Z")
DECODED_AT_ONCE_BYTES = 64 * KIB
"""Updates up to this size, that of the largest in a frame, are decoded on the loop: 1 to 3 ms of processor time."""
_INSTANCE = re.compile(r"[0-9a-f]{32}\Z")


class ForeignWriter(Exception):
    """A change under a writer that belongs to another instance than its sender. It changed nothing."""


class Incoming(NamedTuple):
    """An update from elsewhere, checked and decoded."""

    document: str
    raw: bytes
    delta: Delta
    needs: Vector
    bodies: Sequence[bytes] = ()
    revisions: Sequence[Revision] = ()
    """The extent of other documents at its sender."""


async def decode_aside(update: bytes) -> Delta:
    """Decode an update as `decode_delta` does; a large one in the executor, in time in proportion to its size."""
    if len(update) <= DECODED_AT_ONCE_BYTES:
        return decode_delta(update)
    return await asyncio.get_running_loop().run_in_executor(None, decode_delta, update)


def bind_writer(tx: Transaction, writer: int, instance: str) -> None:
    """Record the instance of a writer at its first change. Raises ForeignWriter where it is another instance's."""
    row = tx.row("SELECT instance FROM writers WHERE writer = ?", (writer,))
    if row is None:
        tx.execute("INSERT INTO writers (writer, instance) VALUES (?, ?)", (writer, instance))
    elif row[0] != instance:
        raise ForeignWriter(f"writer {writer:x} is {row[0]}'s, not {instance}'s")


def note_writers(tx: Transaction, writers: Mapping[str, str]) -> None:
    """Record the instances of writers as another instance knows them, as hints."""
    for writer, instance in writers.items():
        if _WRITER.match(writer) and _INSTANCE.match(instance):
            tx.execute("INSERT OR IGNORE INTO writers (writer, instance) VALUES (?, ?)", (int(writer, 16), instance))


def take_in(tx: Transaction, documents: Documents, incoming: Incoming, now_ms: int) -> Steps[Applied]:
    """Apply an update and keep the manifest bodies that came with it, in bounded steps. Raises what `Documents.apply`
    raises."""
    applied = yield from documents.apply(tx, incoming.document, incoming.raw, incoming.delta, incoming.needs, now_ms)
    if incoming.bodies:
        facts = (parse_fact(entry.text) for entry in incoming.delta.added)
        media_types = {Digest(fact.key): fact.media_type for fact in facts if fact.kind == MANIFEST}
        for body in incoming.bodies:
            yield from _keep_if_named(tx, body, media_types)
    return applied


def store_missing_body(tx: Transaction, body: bytes) -> Steps[bool]:
    """Keep a manifest body if a live manifest is waiting for it. Return whether one was."""
    for algorithm in ("sha256", "sha512"):
        digest = digest_of(body, algorithm)
        row = tx.row(
            "SELECT f.media_type FROM missing_bodies w CROSS JOIN facts f ON f.document = w.document AND f.kind = 'm' "
            "AND f.key = w.digest WHERE w.digest = ? LIMIT 1",
            (digest,),
        )
        if row is not None:
            manifest = yield from read_stored(body, row[0])
            yield from store_body(tx, digest, body, manifest)
            return True
    return False


def _keep_if_named(tx: Transaction, body: bytes, media_types: Mapping[Digest, str]) -> Steps[None]:
    """Store a body whose digest a fact of the update names; drop any other."""
    hashed = {algorithm: hashlib.new(algorithm, body).hexdigest() for algorithm in ("sha256", "sha512")}
    for digest, media_type in media_types.items():
        algorithm, _, encoded = digest.partition(":")
        if hashed[algorithm] == encoded:
            manifest = yield from read_stored(body, media_type)
            yield from store_body(tx, digest, body, manifest)
