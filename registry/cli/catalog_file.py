"""Opening a data directory's catalog to read it, also while an instance runs on it."""

from pathlib import Path
from typing import Any

import apsw

from registry.catalog import schema
from registry.catalog.catalog import PATH
from registry.errors import CannotStart

READ_ONLY = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI


def open_read_only(data: Path) -> apsw.Connection:
    """The catalog of a data directory. Raises CannotStart where there is none, or none that this version can read."""
    catalog = data / PATH
    if not catalog.is_file():
        raise CannotStart(f"{data} is not a data directory of Concord: it has no {PATH}")
    try:
        connection = apsw.Connection(f"{catalog.absolute().as_uri()}?mode=ro", flags=READ_ONLY)
        version = connection.pragma("user_version")
    except apsw.Error as error:
        raise CannotStart(f"the catalog in {data} cannot be read: {error}") from None
    if version > schema.VERSION:
        connection.close()
        raise CannotStart(f"the catalog in {data} was made by a newer version of Concord")
    return connection


def instance_of(data: Path) -> str:
    """Return whose catalog is in a directory. Raises CannotStart."""
    catalog = open_read_only(data)
    try:
        row: Any = catalog.execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
        return str(row[0]) if row else ""
    except apsw.Error as error:
        raise CannotStart(f"the catalog in {data} cannot be read: {error}") from None
    finally:
        catalog.close()


def succession(old: str, new: str) -> str:
    """Return the advice to remove an instance whose data directory continues as another instance."""
    which = f"the old one ({old})" if old else "the old one (concord status at another instance shows its id)"
    return (
        f"this directory is instance {new} now. If {which} will not come back, remove it once the new one runs, else "
        f"collection waits for it for ever: concord forget URL {old[:12] or 'ID'}"
    )
