"""The keys of identity providers: fetched when they are needed, cached in memory and on disk.

A key set is fetched again after an hour, so that a key that its issuer has withdrawn ends. Where the issuer does not
answer, the cached set counts until it is a day old: sign-in from CI survives an outage of its identity provider, and a
restart meanwhile. A token that names an unknown key has the set fetched at once, since issuers rotate keys; but one
attempt a minute is made for each issuer, whatever clients send, and one at a time.

The caller asks only for issuers that a binding in force names, so that no client chooses an address to be contacted.
"""

import asyncio
from functools import partial

import msgspec
from blake3 import blake3

from registry.access.id_tokens import InvalidKeySet, KeySet
from registry.errors import IssuerUnavailable, StorageFailed
from registry.ports import Clock, Disk, IssuerUnreachable, KeySource
from registry.storage.jobs import in_executor
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.access_control")

DIRECTORY = "identity"
REFRESH_MS = 3600_000
"""Age from which a key set is fetched again."""
STALE_MS = 24 * 3600_000
"""Age up to which a key set counts where its issuer does not answer."""
ATTEMPT_INTERVAL_S = 60.0
"""Time between two attempts to fetch the keys of one issuer."""


class _Stored(msgspec.Struct, frozen=True):
    """A key set as the disk holds it."""

    issuer: str
    fetched_ms: int
    keys: msgspec.Raw


class _Fetched:
    """The key set of an issuer, and when it was fetched."""

    def __init__(self, keys: KeySet, fetched_ms: int) -> None:
        self.keys = keys
        self.fetched_ms = fetched_ms

    def is_younger(self, age_ms: int, now_ms: int) -> bool:
        """Return whether the set was fetched less than so long ago. A clock that was set back makes it old."""
        return 0 <= now_ms - self.fetched_ms < age_ms


class NoKeySource:
    """The source of keys where no identity provider is reached."""

    async def fetch(self, issuer: str) -> bytes:
        """Raise IssuerUnreachable."""
        raise IssuerUnreachable("identity providers are not reached from here")


class IssuerKeys:
    """The key sets of issuers, in the primary."""

    def __init__(self, source: KeySource, disk: Disk, clock: Clock) -> None:
        self._source = source
        self._disk = disk
        self._clock = clock
        self._fetched: dict[str, _Fetched] = {}
        self._read: set[str] = set()
        """Issuers whose file was read."""
        self._attempted_s: dict[str, float] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def key_set(self, issuer: str, key_id: str) -> KeySet:
        """Return the keys of an issuer that a binding names, newly fetched ones where `key_id` is not among them.
        Raises IssuerUnavailable without any."""
        if issuer not in self._read:
            await self._load(issuer)
        found = self._fetched.get(issuer)
        now_ms = self._clock.now_ms()
        if found is None or not found.keys.has(key_id) or not found.is_younger(REFRESH_MS, now_ms):
            await self._refresh(issuer)
            found = self._fetched.get(issuer)
        if found is None or not found.is_younger(STALE_MS, self._clock.now_ms()):
            raise IssuerUnavailable(issuer, int(ATTEMPT_INTERVAL_S))
        return found.keys

    async def _refresh(self, issuer: str) -> None:
        """Fetch the keys of an issuer, unless that was tried a short while ago."""
        task = self._under_way.get(issuer)
        if task is None:
            now_s = self._clock.steady_s()
            if now_s - self._attempted_s.get(issuer, -ATTEMPT_INTERVAL_S) < ATTEMPT_INTERVAL_S:
                return
            self._attempted_s[issuer] = now_s
            task = asyncio.create_task(self._fetch(issuer))
            self._under_way[issuer] = task
            task.add_done_callback(lambda _: self._under_way.pop(issuer))
        await asyncio.shield(task)

    async def _fetch(self, issuer: str) -> None:
        try:
            data = await self._source.fetch(issuer)
            keys = KeySet(data)
        except (IssuerUnreachable, InvalidKeySet) as error:
            log.warning(
                LogEvent.ISSUER_KEYS_FAILED,
                "the keys of the identity provider %(issuer)s cannot be fetched: %(error)s",
                issuer=issuer,
                error=error,
            )
            return
        fetched_ms = self._clock.now_ms()
        self._fetched[issuer] = _Fetched(keys, fetched_ms)
        log.info(LogEvent.ISSUER_KEYS_FETCHED, "the keys of %(issuer)s were fetched", issuer=issuer)
        try:
            await in_executor(partial(self._write, _Stored(issuer, fetched_ms, msgspec.Raw(data))))
        except StorageFailed as error:
            log.warning(LogEvent.ISSUER_KEYS_NOT_STORED, "keys cannot be stored: %(error)s", issuer=issuer, error=error)

    async def _load(self, issuer: str) -> None:
        """Read what an earlier process has stored of an issuer. A file that cannot be read counts as none."""
        try:
            stored = await in_executor(partial(self._stored, issuer))
            if stored.issuer == issuer and issuer not in self._fetched:
                self._fetched[issuer] = _Fetched(KeySet(bytes(stored.keys)), stored.fetched_ms)
        except (StorageFailed, msgspec.DecodeError, InvalidKeySet):
            pass
        self._read.add(issuer)

    def _stored(self, issuer: str) -> _Stored:
        file = self._disk.open(f"{DIRECTORY}/{_name(issuer)}")
        try:
            return msgspec.json.decode(file.pread(0, file.size()), type=_Stored)
        finally:
            file.close()

    def _write(self, stored: _Stored) -> None:
        """Replace the file of an issuer. Fetches of one issuer never overlap, so its new file has one writer."""
        self._disk.make_directory(DIRECTORY)
        name = _name(stored.issuer)
        new = f"{name}.new"
        if new in self._disk.names(DIRECTORY):
            self._disk.remove(f"{DIRECTORY}/{new}")
        file = self._disk.create(f"{DIRECTORY}/{new}")
        try:
            file.append([msgspec.json.encode(stored)])
            file.sync()
        finally:
            file.close()
        self._disk.rename(f"{DIRECTORY}/{new}", f"{DIRECTORY}/{name}")
        self._disk.sync_directory(DIRECTORY)


def _name(issuer: str) -> str:
    return f"{blake3(issuer.encode()).hexdigest(length=16)}.json"
