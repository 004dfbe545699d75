"""Access control in a data directory on which no instance runs: the first administrator, and recovery."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from registry.access import changes
from registry.access.changes import Draft
from registry.access.facts import OPERATOR, USER
from registry.access.passwords import MIN_PASSWORD_CHARACTERS, hash_password
from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.catalog.access import change_access, drop_marks
from registry.catalog.catalog import Catalog
from registry.catalog.change_sink import Unpublished
from registry.errors import CannotStart, OciError
from registry.ports import Clock, Disk


def create_administrator(data: Path, name: str, password: str) -> str:
    """Make an administrator. Return the account's id. Raises CannotStart."""
    hashed = _hashed(password)
    return _change(data, partial(changes.create_account, name=name, kind=USER, password_hash=hashed, admin=True), False)


def recover(data: Path, name: str, password: str) -> str:
    """Make an administrator, or an account one again, and let the credentials of a restored directory count. Return the
    account's id. Raises CannotStart."""
    if not data.is_dir():
        raise CannotStart(f"{data} is not a data directory of Concord: there is no such directory")
    return _change(data, partial(changes.recover, name=name, password_hash=_hashed(password)), True)


def _hashed(password: str) -> str:
    if len(password) < MIN_PASSWORD_CHARACTERS:
        raise CannotStart(f"the password is too short: expected {MIN_PASSWORD_CHARACTERS} characters or more")
    return hash_password(password)


def _change(data: Path, plan: Callable[[Draft], str], recovers: bool) -> str:
    from registry.runtime.sockets import locked

    with locked(data):
        try:
            return asyncio.run(commit_offline(SystemDisk(data), SystemClock(), plan, recovers))
        except OciError as error:
            raise CannotStart(error.message) from None


async def commit_offline(disk: Disk, clock: Clock, plan: Callable[[Draft], str], recovers: bool) -> str:
    """Commit a change by the operator in a catalog that no instance has open. Return what `plan` returns. Raises
    OciError."""
    catalog = Catalog(disk, clock)
    await catalog.start()
    catalog.database.attach(Unpublished())
    try:
        account, _ = await catalog.database.write(
            lambda tx: change_access(tx, catalog.documents, clock, OPERATOR, plan)
        )
        if recovers or not catalog.access.is_restored:  # an administrator is made before the first start, too
            await catalog.database.write(drop_marks)
    finally:
        await catalog.stop()
    return account
