"""The last uses of credentials at this instance: when a robot's key was last accepted, so that unused ones are found.

A use is noted by the process that accepts the credential, once an hour at most while its decision is cached, and is
written by the primary now and then. So a time is right to an hour, and a crash loses the last minute. Uses are facts of
one instance: they are not replicated.
"""

from collections.abc import Callable, Iterable

from registry.catalog.database import Database
from registry.ports import Clock

PREFIX = "credential used "
"""Beginning of the keys of the catalog that hold the times."""


class CredentialUses:
    """The last uses of credentials at one instance."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._noted: dict[str, int] = {}
        self._sources: list[Callable[[], Iterable[str]]] = []

    def attach(self, collect: Callable[[], Iterable[str]]) -> None:
        """Name the source of the uses in this process: it returns the ids of credentials, each once."""
        self._sources.append(collect)

    def _collect(self) -> None:
        for collect in self._sources:
            self.note(collect())

    def note(self, credentials: Iterable[str]) -> None:
        """Note that credentials were accepted."""
        self._noted |= dict.fromkeys(credentials, self._clock.now_ms())

    async def save(self) -> None:
        """Write what was noted. Raises StorageFailed."""
        self._collect()
        noted, self._noted = self._noted, {}
        if not noted:
            return
        rows = [(PREFIX + credential, time_ms) for credential, time_ms in noted.items()]
        await self._database.write(
            lambda tx: tx.execute_many("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", rows)
        )

    def last_use_ms(self, credential: str) -> int | None:
        """Return the time at which a credential was last accepted here; None where it was not."""
        self._collect()
        if credential in self._noted:
            return self._noted[credential]
        row = self._database.row("SELECT value FROM meta WHERE key = ?", (PREFIX + credential,))
        return int(row[0]) if row is not None else None
