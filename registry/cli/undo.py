"""Tags and manifests that a bundle or a backup holds and that were deleted since: listing and re-asserting them.

A delete wins over the facts it has observed, so none of them returns by itself when an older copy is merged.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crdt.delta import Delta
from crdt.fact import BLOB, MANIFEST, TAG, Fact, parse_fact
from registry.catalog.catalog import Catalog
from registry.catalog.content import held_size
from registry.catalog.queries import KIND
from registry.catalog.reassert import compare, reassert
from registry.catalog.winner import winner_first
from registry.cli.catalog_file import open_read_only
from registry.cli.client import ask
from registry.cli.compare import tag_facts
from registry.oci.names import Digest

MAX_NAMED = 50
_TAGS = f"""
SELECT d.name, d.digest, f.key, f.digest FROM facts f JOIN documents d ON d.id = f.document
WHERE f.kind = 't' ORDER BY d.name, f.key, {winner_first("f")}
"""


class Since(NamedTuple):
    """The changes to tags and manifests of an older copy since it was made."""

    deleted: list[str]
    """Tags, as `repository:tag`, and manifests, as `repository@digest`."""
    moved: list[str]
    """Tags that point elsewhere."""

    def add(self, document: str, absent: Iterable[Fact], moved: Iterable[Fact]) -> None:
        name = document.removeprefix(KIND)
        tags = [fact for fact in absent if fact.kind == TAG]
        tagged = {fact.digest for fact in tags}
        self.deleted.extend(f"{name}:{fact.key}" for fact in tags)
        self.deleted.extend(f"{name}@{f.key}" for f in absent if f.kind == MANIFEST and f.key not in tagged)
        self.moved.extend(f"{name}:{fact.key}" for fact in moved)


class Undo:
    """The comparison of one import: which facts of a bundle were live before it was imported, and after."""

    def __init__(self, catalog: Catalog, reasserts: bool) -> None:
        self._catalog = catalog
        self._reasserts = reasserts
        self._older: list[Fact] = []
        self._before: list[Fact] = []
        self._blobs: set[Digest] = set()
        self.since = Since([], [])

    async def before(self, document: str, delta: Delta) -> None:
        """Note which facts of a repository are not live here before the bundle's document is imported."""
        self._older = [parse_fact(entry.text) for entry in delta.added] if document.startswith(KIND) else []
        self._before = (await self._compare(document)).absent if self._reasserts else []

    async def after(self, document: str) -> None:
        """Note which facts are not live although the document was imported, and re-assert them if that is requested.
        Facts that the import made live are re-asserted too, since other instances may know that they were deleted."""
        older = await self._compare(document)
        self.since.add(document, older.absent, older.moved)
        if self._before:
            documents, facts = self._catalog.documents, self._before
            self._blobs |= {Digest(fact.key) for fact in facts if fact.kind == BLOB}
            await self._catalog.database.write_in_steps(lambda tx: reassert(tx, documents, document, facts))

    async def _compare(self, document: str) -> Any:
        documents, older = self._catalog.documents, self._older
        return await self._catalog.database.write_in_steps(lambda tx: compare(tx, documents, document, older))

    def lacking(self) -> list[Digest]:
        """Return the contents of re-asserted facts that are neither in the bundle nor here."""
        return sorted(digest for digest in self._blobs if held_size(self._catalog.database, digest) is None)


def since_backup(data: Path, url: str) -> Since:
    """Compare the tags of a restored directory with those of a running instance. Raises NoAnswer and CannotStart."""
    catalog = open_read_only(data)
    try:
        rows: list[Any] = catalog.execute(_TAGS).fetchall()
    finally:
        catalog.close()
    repositories: dict[str, dict[str, str]] = {}
    digests: dict[str, str] = {}
    for document, digest, tag, manifest in rows:
        name = document.removeprefix(KIND)
        repositories.setdefault(name, {}).setdefault(tag, manifest)  # the winner comes first
        digests[name] = digest.hex()
    theirs, since = _repository_digests(url), Since([], [])
    for name, tags in repositories.items():
        if theirs.get(name) == digests[name]:
            continue
        live = tag_facts(url, name) if name in theirs else {}
        for tag, manifest in tags.items():
            if tag not in live:
                since.deleted.append(f"{name}:{tag}")
            elif manifest not in {fact["digest"] for fact in live[tag]}:
                since.moved.append(f"{name}:{tag}")
    return since


def _repository_digests(url: str) -> dict[str, str]:
    found: dict[str, str] = {}
    last = ""
    while last is not None:
        page = ask(url, "/_concord/digest", {"repositories": "", "last": last})
        found |= page["repositories"]
        last = page["last"]
    return found


def show(title: str, names: Sequence[str]) -> None:
    """Print names below a title, as many as can be read."""
    if names:
        print(f"{title}:")
        for name in names[:MAX_NAMED]:
            print(f"  {name}")
        if len(names) > MAX_NAMED:
            print(f"  and {len(names) - MAX_NAMED} more")
