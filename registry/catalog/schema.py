"""The tables, their migrations, and the checks when a database is opened.

The schema's version is SQLite's `user_version`. Each migration brings a database one version further, in the
transaction that also sets the version; a database of a newer version than this program knows is refused untouched.

To change the schema, append to `MIGRATIONS`. Never change, reorder or remove a step that a release has had: databases
of all releases are migrated by the same list. Each release keeps a data directory in `tests/golden`, which the tests
open with every later version.
"""

from collections.abc import Callable
from typing import Any

import apsw

from registry.errors import CannotStart
from registry.oci.stored_manifest import read_stored_in_one_piece

_FIRST = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- Replicated documents. `changed` is the commit number of the last change.
CREATE TABLE documents (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    key BLOB NOT NULL UNIQUE,
    digest BLOB NOT NULL,
    facts INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    snapshot_bytes INTEGER NOT NULL DEFAULT 0,
    logged_count INTEGER NOT NULL DEFAULT 0,
    logged_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX documents_by_change ON documents (changed);
CREATE INDEX documents_live ON documents (name) WHERE facts > 0;

-- State vectors. `changed` is the commit number at which the entry last grew.
CREATE TABLE vectors (
    document INTEGER NOT NULL,
    writer INTEGER NOT NULL,
    clock INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    PRIMARY KEY (document, writer)
) STRICT, WITHOUT ROWID;

-- A document's bytes: its snapshot, which holds the log up to `log_number`, and the updates since. The number of a log
-- entry is a commit number, never reused.
CREATE TABLE snapshots (
    document INTEGER PRIMARY KEY,
    log_number INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE log (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL,
    delta BLOB NOT NULL
) STRICT;
CREATE INDEX log_by_document ON log (document, number);

-- The view: live facts, with the identity under which they can be deleted. See crdt.fact for kinds and fields.
CREATE TABLE facts (
    document INTEGER NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    time INTEGER NOT NULL,
    writer INTEGER NOT NULL,
    clock INTEGER NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (document, kind, key, time, writer, clock)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX facts_by_identity ON facts (document, writer, clock);
CREATE INDEX facts_of_blobs ON facts (key) WHERE kind = 'b';
CREATE INDEX facts_of_targets ON facts (document, digest) WHERE kind = 't';

-- Tags with several live facts that disagree.
CREATE TABLE conflicts (
    document INTEGER NOT NULL,
    tag TEXT NOT NULL,
    PRIMARY KEY (document, tag)
) STRICT, WITHOUT ROWID;

-- Which instance a writer belongs to. A writer is registered before it writes.
CREATE TABLE writers (
    writer INTEGER PRIMARY KEY,
    instance TEXT NOT NULL
) STRICT;

-- Manifest bodies. `subject`, `artifact_type` and `annotations` are read from the body, for the referrers API.
CREATE TABLE manifests (
    digest TEXT PRIMARY KEY,
    body BLOB NOT NULL,
    subject TEXT,
    artifact_type TEXT,
    annotations BLOB
) STRICT;
CREATE INDEX manifests_by_subject ON manifests (subject) WHERE subject IS NOT NULL;

-- Manifests that facts name and whose bodies are not here yet.
CREATE TABLE missing_bodies (
    digest TEXT NOT NULL,
    document INTEGER NOT NULL,
    PRIMARY KEY (digest, document)
) STRICT, WITHOUT ROWID;

-- Content files on this disk. `chunk_digests` are the 32-byte BLAKE3 digests of each MiB.
CREATE TABLE content (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    chunk_digests BLOB NOT NULL,
    checked_ms INTEGER NOT NULL
) STRICT;

-- Uploads under way. `size` bytes are durable and have the digest `sha256`.
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Uploads that were finished or cancelled, remembered for two days.
CREATE TABLE ended_uploads (
    id TEXT PRIMARY KEY,
    ended_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
    instance TEXT PRIMARY KEY,
    site TEXT NOT NULL,
    advertise TEXT NOT NULL,
    advertise_site TEXT NOT NULL,
    version TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- The sync point with each member: the commit number up to which this instance has applied all of its changes, for one
-- incarnation of the member.
CREATE TABLE sync_points (
    instance TEXT PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    commit_number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

_CONTENT_BY_CHECK = """
-- What a scrub looks at next, without walking all content.
CREATE INDEX content_by_check ON content (checked_ms);
"""

# The time content was read last, so that eviction can begin with the content that is used least.
_CONTENT_BY_USE = """
ALTER TABLE content ADD COLUMN used_ms INTEGER NOT NULL DEFAULT 0;
CREATE INDEX content_by_use ON content (used_ms, digest);
"""

# The digests that manifests refer to, so that unreferenced content can be found. `?` stands for the references of a
# manifest that this program cannot read.
_DESCRIPTORS = """
CREATE TABLE descriptors (
    manifest TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (manifest, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX descriptors_by_digest ON descriptors (digest);
CREATE INDEX facts_of_manifests ON facts (key) WHERE kind = 'm';
"""

# The number of the last heartbeat of each member, so that recorded ones are stale after a restart, too.
_SEQUENCES = "ALTER TABLE members ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;"

# What the operators of members call them, so that a member that is gone can still be identified by its name.
_NAMES = "ALTER TABLE members ADD COLUMN name TEXT NOT NULL DEFAULT '';"

# What manifests refer to: each digest with the kind of facts that link it (b for blobs, m for manifests), and whether
# it has to be in the registry. So neither a push of an index nor a request about one reads its children's bodies.
_DESCRIPTORS_BY_KIND = """
DROP TABLE descriptors;
CREATE TABLE descriptors (
    manifest TEXT NOT NULL,
    kind TEXT NOT NULL,
    digest TEXT NOT NULL,
    required INTEGER NOT NULL,
    PRIMARY KEY (manifest, kind, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX descriptors_by_digest ON descriptors (digest);
"""


def _fill_descriptors(connection: apsw.Connection) -> None:
    """Read the descriptors of every body that is here, also of one that no fact names now: a push may name it again."""
    digests = connection.execute("SELECT digest FROM manifests").fetchall()
    for (digest,) in digests:
        rows: list[Any] = connection.execute(
            "SELECT m.body, f.media_type FROM manifests m LEFT JOIN facts f ON f.kind = 'm' AND f.key = m.digest "
            "WHERE m.digest = ? LIMIT 1",
            (digest,),
        ).fetchall()
        body, media_type = rows[0]
        connection.executemany(
            "INSERT INTO descriptors (manifest, kind, digest, required) VALUES (?, ?, ?, ?)",
            ((digest, *part) for part in read_stored_in_one_piece(body, media_type).parts()),
        )


# Bodies are the last column: SQLite reads a row from its beginning, and a list of referrers needs none of their bodies.
_BODIES_LAST = """
CREATE TABLE ordered (
    digest TEXT PRIMARY KEY,
    subject TEXT,
    artifact_type TEXT,
    annotations BLOB,
    body BLOB NOT NULL
) STRICT;
INSERT INTO ordered SELECT digest, subject, artifact_type, annotations, body FROM manifests ORDER BY rowid;
DROP TABLE manifests;
ALTER TABLE ordered RENAME TO manifests;
CREATE INDEX manifests_by_subject ON manifests (subject) WHERE subject IS NOT NULL;
"""

# What members can do, so that it is known of those that are away, too.
_CAPABILITIES = "ALTER TABLE members ADD COLUMN capabilities TEXT NOT NULL DEFAULT '';"

# How many live critical facts of each document are not understood; and facts that a later version may understand. See
# `understanding`.
_CRITICAL_FACTS = """
ALTER TABLE documents ADD COLUMN not_understood INTEGER NOT NULL DEFAULT 0;
CREATE INDEX documents_not_understood ON documents (name) WHERE not_understood > 0;
CREATE INDEX facts_not_understood ON facts (document) WHERE kind IN ('!', '?');
"""

MIGRATIONS: list[tuple[str, Callable[[apsw.Connection], None] | None]] = [
    (_FIRST, None),
    (_DESCRIPTORS, None),
    (_CONTENT_BY_CHECK, None),
    (_CONTENT_BY_USE, None),
    (_SEQUENCES, None),
    (_NAMES, None),
    (_DESCRIPTORS_BY_KIND, _fill_descriptors),
    (_BODIES_LAST, None),
    (_CAPABILITIES, None),
    (_CRITICAL_FACTS, None),
]
"""The step to each schema version: its SQL, and the function that fills new tables from existing data, if any."""
VERSION = len(MIGRATIONS)

PRAGMAS = {"journal_mode": "wal", "synchronous": 2}


def plan_once(connection: apsw.Connection) -> None:
    """Keep a statement's plan whatever is bound to it. Else SQLite compiles many of ours anew at each use, since the
    values could favour another index: that took three times as long as the query."""
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def configure(connection: apsw.Connection) -> None:
    """Set and check what durability rests on. Raises CannotStart where SQLite does not comply."""
    plan_once(connection)
    for name, wanted in PRAGMAS.items():
        connection.pragma(name, wanted)
        if connection.pragma(name) != wanted:
            raise CannotStart(
                f"SQLite did not accept {name}={wanted} for the catalog; "
                "is the data directory on a network file system? It needs a local one",
                "durability-unsupported",
            )


def migrate(connection: apsw.Connection) -> None:
    """Bring a database to this program's version. Raises CannotStart for one of a newer version."""
    version = connection.pragma("user_version")
    if version > VERSION:
        raise CannotStart(
            "the data directory was made by a newer version of Concord "
            f"(its schema is {version}, this program knows {VERSION})",
            "schema-newer",
        )
    for number in range(version, VERSION):
        with connection:
            tables, fill = MIGRATIONS[number]
            for _ in connection.execute(tables):
                pass
            if fill is not None:
                fill(connection)
            connection.pragma("user_version", number + 1)
