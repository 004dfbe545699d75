"""Making a bundle of a data directory, also while an instance runs on it."""

import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import apsw
import msgspec
from blake3 import blake3

from crdt.document import Document
from registry.catalog.queries import KIND
from registry.cli.bundle import LIST, MAC, VERSION, Bundle, DocumentFile, Moved, is_right, mac_of, moved
from registry.cli.catalog_file import open_read_only
from registry.cli.target import PART, Directory, Target
from registry.cluster.rpc.keys import ClusterKey
from registry.errors import CannotStart
from registry.oci.names import Digest
from registry.storage.store import READ_BYTES, content_path

_WRITERS = "SELECT w.writer, w.instance FROM vectors v JOIN writers w ON w.writer = v.writer WHERE v.document = ?"
_BODIES = (
    "SELECT DISTINCT m.digest, m.body FROM facts f JOIN manifests m ON m.digest = f.key "
    "WHERE f.document = ? AND f.kind = 'm'"
)
_CONTENTS = (
    "SELECT DISTINCT c.digest, c.size FROM facts f JOIN content c ON c.digest = f.key "
    "WHERE f.document = ? AND f.kind = 'b'"
)


def export_bundle(data: Path, target: Path, patterns: list[str], keys: list[ClusterKey]) -> Moved:
    """Write the repositories whose names match. Raises CannotStart."""
    if target.exists() and any(target.iterdir()) and not (target / "documents").exists():
        raise CannotStart(f"{target} is neither empty nor a bundle")
    reading = open_read_only(data)
    try:
        reading.execute("BEGIN")  # everything as of one moment
        return _export(reading, data, target, patterns, keys)
    except apsw.Error as error:
        raise CannotStart(f"the catalog in {data} cannot be read: {error}") from None
    finally:
        reading.close()


def _export(
    reading: apsw.Connection, data: Path, directory: Path, patterns: list[str], keys: list[ClusterKey]
) -> Moved:
    documents = _documents(reading, patterns)
    if patterns and not any(name.startswith(KIND) for _, name in documents):
        raise CannotStart(f"no repository is matched by {', '.join(patterns)}")
    source, target = Directory(data), Target(directory)
    bundle, new, wrong = Bundle(VERSION, [], {}, {}), 0, []
    for document, name in documents:
        update = _update_of(reading, document)
        file = f"documents/{len(bundle.documents)}"
        target.write(file, update)
        writers = {f"{writer:x}": who for writer, who in _rows(reading, _WRITERS, document)}
        bundle.documents.append(DocumentFile(name, file, blake3(update).hexdigest(), writers))
        for digest, body in _rows(reading, _BODIES, document):
            file = f"bodies/{digest.partition(':')[2]}"
            target.write(file, body)
            bundle.bodies[digest] = file
        for digest, size in _rows(reading, _CONTENTS, document):
            bundle.contents[digest] = size
    for digest, size in list(bundle.contents.items()):
        path = content_path(Digest(digest))
        if is_right(target.open(path), Digest(digest), size):
            continue
        if not _copy(source, target, path):
            del bundle.contents[digest]  # collected or evicted meanwhile
        elif not is_right(target.open(path + PART), Digest(digest), size):
            target.drop(path)
            del bundle.contents[digest]
            wrong.append(Digest(digest))
        else:
            target.put(path)
            new += 1
    encoded = msgspec.json.encode(bundle)
    target.write(LIST, encoded)
    target.write(MAC, mac_of(encoded, keys[0] if keys else None).encode())
    return moved(bundle, new, wrong)


def _copy(source: Directory, target: Target, path: str) -> bool:
    """Return False when the file is missing, or is no regular file."""
    reading = source.open(path)
    if reading is None:
        return False
    with reading, target.create(path) as writing:
        shutil.copyfileobj(reading, writing, READ_BYTES)
    return True


def _documents(reading: apsw.Connection, patterns: list[str]) -> list[tuple[int, str]]:
    rows: Any = reading.execute("SELECT id, name FROM documents ORDER BY name").fetchall()
    return [
        (number, name)
        for number, name in rows
        if name.startswith(KIND) and any(fnmatchcase(name.removeprefix(KIND), one) for one in patterns or ["*"])
    ]


def _update_of(reading: apsw.Connection, document: int) -> bytes:
    parts = [data for (data,) in _rows(reading, "SELECT data FROM snapshots WHERE document = ?", document)]
    parts += [data for (data,) in _rows(reading, "SELECT delta FROM log WHERE document = ? ORDER BY number", document)]
    return Document(parts).snapshot()


def _rows(reading: apsw.Connection, sql: str, document: int) -> list[Any]:
    return reading.execute(sql, (document,)).fetchall()
