"""Pushes, deletes and mounts, as changes of a repository's document.

A push by tag deletes the tag's observed facts and appends a new one, and does the same for everything the manifest
depends on: its own reference, its children at all levels, and the links of their blobs. So a delete of any of those
that is under way elsewhere, and has not seen this push, loses. One push is one operation and one update, never split.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from crdt.change import Change
from crdt.fact import BLOB, MANIFEST, TAG, Fact, blob_fact, manifest_fact, tag_fact
from registry.catalog.database import Transaction
from registry.catalog.documents import Documents
from registry.catalog.manifest_walk import ManifestWalk
from registry.catalog.queries import document_name
from registry.catalog.view import Identity, LiveFact, observed, observed_tags_of
from registry.catalog.wrong_sizes import compare_content
from registry.errors import BlobUnknown, ManifestBlobUnknown, ManifestInvalid, ManifestUnknown
from registry.event_loop.steps import ROWS_PER_STEP, Steps
from registry.oci.manifest import MAX_PARTS, Manifest
from registry.oci.names import Digest, Repository, Tag, algorithm_of, digest_of
from registry.oci.stored_manifest import UNREADABLE

MAX_PARTS_READ = 100_000
"""Bound on the parts that one push looks at over all levels. A part that several manifests share counts for each of
them: otherwise nested indexes could multiply the work without bound. 0.2 s of processor time, in steps."""


class Pushed(NamedTuple):
    """A manifest that is being pushed."""

    digest: Digest
    body: bytes
    manifest: Manifest
    tags: Sequence[Tag]


def push_manifest(
    tx: Transaction, documents: Documents, repository: Repository, pushed: Pushed, sparse: bool, now_ms: int
) -> Steps[Change]:
    """Store a manifest and point tags at it, in bounded steps.

    Raises ManifestBlobUnknown with every missing part, unless `sparse`, and ManifestInvalid for one that depends on
    more parts than can be looked up in a moment.
    """
    name = document_name(repository)
    document = documents.document_id(tx, name)
    found = _Observed(tx, document)
    missing = yield from found.add_parts(pushed.manifest)
    if missing and not sparse:
        raise ManifestBlobUnknown("the manifest refers to content that is not in this repository", missing)
    found.add(MANIFEST, pushed.digest)
    for tag in pushed.tags:
        found.add(TAG, tag)
    time, writer = documents.clock.tick(now_ms), documents.begin(tx)
    kept = yield from found.repeated(time, writer, without=pushed.digest)
    own = manifest_fact(pushed.digest, pushed.manifest.media_type, len(pushed.body), time, writer)
    tags = [tag_fact(tag, pushed.digest, time, writer) for tag in dict.fromkeys(pushed.tags)]
    yield from store_body(tx, pushed.digest, pushed.body, pushed.manifest)
    facts, observed_ones = [*tags, own, *kept], _identities(found.facts)
    return (yield from documents.write_in_steps(tx, name, observed_ones, facts, (pushed.body,), writer))


def store_body(tx: Transaction, digest: Digest, body: bytes, manifest: Manifest) -> Steps[None]:
    """Keep a manifest's body, what it refers to, and what the referrers API tells of it."""
    tx.execute(
        "INSERT OR IGNORE INTO manifests (digest, body, subject, artifact_type, annotations) VALUES (?, ?, ?, ?, ?)",
        (digest, body, manifest.subject, manifest.artifact_type, manifest.annotations),
    )
    if tx.changes():
        compare_content(tx, MANIFEST, digest, len(body))
        parts = manifest.parts()
        for at in range(0, len(parts), ROWS_PER_STEP):
            if at:
                yield
            tx.execute_many(
                "INSERT OR IGNORE INTO descriptors (manifest, kind, digest, required) VALUES (?, ?, ?, ?)",
                ((digest, *part) for part in parts[at : at + ROWS_PER_STEP]),
            )
    tx.execute("DELETE FROM missing_bodies WHERE digest = ?", (digest,))


def drop_wrong_body(tx: Transaction, digest: Digest) -> bool:
    """Delete a manifest's body that does not match its digest, and note that it is missing. Return whether it was
    deleted."""
    row = tx.row("SELECT body FROM manifests WHERE digest = ?", (digest,))
    if row is None or digest_of(row[0], algorithm_of(digest)) == digest:
        return False
    tx.execute("DELETE FROM manifests WHERE digest = ?", (digest,))
    tx.execute(
        "INSERT OR IGNORE INTO missing_bodies (digest, document) SELECT f.key, f.document "
        "FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind = 'm' AND f.key = ?",
        (digest,),
    )
    return True


def link_blob(
    tx: Transaction, documents: Documents, repository: Repository, digest: Digest, size: int, now_ms: int
) -> Change:
    """Make a blob readable in a repository, after its upload or by a mount."""
    name = document_name(repository)
    document = documents.document_id(tx, name)
    before = observed(tx, document, BLOB, digest) if document is not None else []
    link = blob_fact(digest, size, documents.clock.tick(now_ms), documents.writer)
    return documents.write(tx, name, _identities(before), [link])


def reassert_link(
    tx: Transaction, documents: Documents, repository: Repository, digest: Digest, now_ms: int
) -> Change | None:
    """Re-assert the link of a blob, so that it survives a concurrent release of the present link. Return None where the
    blob is not linked any more."""
    found = _observed_in(tx, documents, repository, BLOB, digest)
    if not found:
        return None
    size = _size_here(tx, BLOB, digest)
    return link_blob(tx, documents, repository, digest, found[-1].size if size is None else size, now_ms)


def delete_tag(tx: Transaction, documents: Documents, repository: Repository, tag: Tag) -> Change:
    """Delete a tag. Raises ManifestUnknown where there is no such tag."""
    facts = _observed_in(tx, documents, repository, TAG, tag)
    if not facts:
        raise ManifestUnknown("there is no such tag", {"tag": tag})
    return documents.write(tx, document_name(repository), _identities(facts), [])


def delete_manifest(tx: Transaction, documents: Documents, repository: Repository, digest: Digest) -> Steps[Change]:
    """Delete a manifest's reference and every tag that points at it, in bounded steps. Raises ManifestUnknown."""
    facts = _observed_in(tx, documents, repository, MANIFEST, digest)
    if not facts:
        raise ManifestUnknown("there is no such manifest", {"digest": digest})
    name = document_name(repository)
    document = documents.document_id(tx, name)
    assert document is not None, "a document with live facts exists"
    facts += yield from observed_tags_of(tx, document, digest)
    return (yield from documents.write_in_steps(tx, name, _identities(facts), []))


def delete_blob(tx: Transaction, documents: Documents, repository: Repository, digest: Digest) -> Change:
    """Delete a blob's links. Raises BlobUnknown."""
    facts = _observed_in(tx, documents, repository, BLOB, digest)
    if not facts:
        raise BlobUnknown("there is no such blob in this repository", {"digest": digest})
    return documents.write(tx, document_name(repository), _identities(facts), [])


def _observed_in(tx: Transaction, documents: Documents, repository: Repository, kind: str, key: str) -> list[LiveFact]:
    document = documents.document_id(tx, document_name(repository))
    return observed(tx, document, kind, key) if document is not None else []


def _size_here(tx: Transaction, kind: str, digest: str) -> int | None:
    """Return the size of a content or body that is on this disk; None of one that is not. A size that another instance
    has stated is not repeated as ours where ours is known."""
    sql = {
        BLOB: "SELECT size FROM content WHERE digest = ?",
        MANIFEST: "SELECT LENGTH(body) FROM manifests WHERE digest = ?",
    }.get(kind)
    row = tx.row(sql, (digest,)) if sql is not None else None
    return row[0] if row is not None else None


def _identities(facts: Iterable[LiveFact]) -> list[Identity]:
    return [fact.identity for fact in facts]


class _Observed:
    """The live facts that a push replaces, each once."""

    def __init__(self, tx: Transaction, document: int | None) -> None:
        self._tx = tx
        self._document = document
        self._winners: dict[tuple[str, str], LiveFact | None] = {}
        self.facts: list[LiveFact] = []

    def add(self, kind: str, key: str) -> bool:
        """Observe the facts about one key. Return whether there are any."""
        if (kind, key) not in self._winners:
            if len(self._winners) > MAX_PARTS:
                raise ManifestInvalid(f"the manifest depends on more than {MAX_PARTS} parts, over all levels")
            found = observed(self._tx, self._document, kind, key) if self._document is not None else []
            self._winners[kind, key] = found[0] if found else None
            self.facts += found
        return self._winners[kind, key] is not None

    def add_parts(self, manifest: Manifest) -> Steps[list[dict[str, str]]]:
        """Observe what a manifest depends on, at all levels, each manifest once. Return what is missing.

        Only what the manifest itself names can be missing: its children were complete when they were pushed, or were
        pushed to a registry that takes incomplete ones.
        """
        missing, children = list[str](), list[Digest]()
        for number, (kind, digest, required) in enumerate(manifest.parts(), 1):
            if not self.add(kind, digest):
                missing += [digest] if required else []
            elif kind == MANIFEST:
                children.append(digest)
            if number % ROWS_PER_STEP == 0:
                yield
        yield from self._add_parts_of(children)
        return [{"digest": digest} for digest in dict.fromkeys(missing)]

    def _add_parts_of(self, manifests: list[Digest]) -> Steps[None]:
        """Observe what stored manifests refer to, as far as their bodies are here."""
        walk = ManifestWalk(manifests, self._stored_parts)
        for manifest in walk:
            for kind, part in walk.parts(manifest):
                is_new = (kind, part) not in self._winners
                if is_new and part != UNREADABLE and self.add(kind, part) and kind == MANIFEST:
                    walk.descend(part)
                if walk.may_pause:
                    yield
            if walk.parts_read > MAX_PARTS_READ:
                raise ManifestInvalid(
                    f"the manifests below this one refer to more than {MAX_PARTS_READ} parts, counted for each"
                )

    def _stored_parts(self, manifest: Digest) -> Iterable[tuple[str, Digest]]:
        return self._tx.rows("SELECT kind, digest FROM descriptors WHERE manifest = ?", (manifest,))

    def repeated(self, time: int, writer: int, without: Digest) -> Steps[list[Fact]]:
        """Return the observed references and links, re-asserted: of several facts about one key, the winner."""
        again: list[Fact] = []
        for number, ((kind, key), fact) in enumerate(self._winners.items(), 1):
            if number % ROWS_PER_STEP == 0:
                yield
            if fact is None:
                continue
            here = _size_here(self._tx, kind, key)
            size = fact.size if here is None else here
            if kind == BLOB:
                again.append(blob_fact(key, size, time, writer))
            elif kind == MANIFEST and key != without:
                again.append(manifest_fact(key, fact.media_type, size, time, writer))
        return again
