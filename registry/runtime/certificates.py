"""The TLS of an instance, read again when its files change.

Each connection is made with the newest context, and keeps it to its end. A context cannot be changed in place: it would
go on presenting a certificate of another type of key, and never forget an authority.

Files are looked at every second. New ones are read once they have stayed the same for a second, since a certificate and
its key are rarely written in one step. Files that cannot be used change nothing: the last good ones stay in use. Every
process of an instance reads the files for itself. The supervisor does before it forks, so that a process that replaces
another one never begins with less than the last good files.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from registry.adapters.tls import UnusableFile, load
from registry.config import Config
from registry.errors import CannotStart
from registry.settings.tls_files import TlsFiles
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.tls")

LOOK_INTERVAL_S = 1.0
Signature = tuple[object, ...]


class ReloadedTls:
    """The TLS of one side of an instance: towards clients, or between instances."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises CannotStart."""
        self._files = files
        self._read_as = self._seen_as = self._signature()
        try:
            self._loaded = load(files)
        except UnusableFile as error:
            raise CannotStart(str(error), "tls-files") from None
        self.removals = 0
        """The number of times that an authority was removed: identities that were proved before may be void."""
        self._warn_if_expired()

    @property
    def accepting(self) -> ssl.SSLContext | None:
        """The context for a connection that is accepted."""
        return self._loaded.accepting

    @property
    def connecting(self) -> ssl.SSLContext | None:
        """The context for a connection to another instance."""
        return self._loaded.connecting

    @property
    def expires_s(self) -> float | None:
        """The time since 1970 at which the certificate expires."""
        return self._loaded.expires_s

    def look(self) -> None:
        """Read the files again if they have changed, and no longer do."""
        signature, before = self._signature(), self._seen_as
        self._seen_as = signature
        if signature == before:
            self.catch_up()

    def catch_up(self) -> None:
        """Read the files again if they have changed."""
        if self._signature() != self._read_as:
            self.reload()

    def reload(self) -> None:
        """Read the files again. Logs files that cannot be used, and goes on with the last good ones."""
        self._read_as = self._seen_as = self._signature()
        try:
            loaded = load(self._files)
        except UnusableFile as error:
            message = "%(problem)s; this process goes on with the files it has read before"
            log.error(LogEvent.TLS_RELOAD_FAILED, message, problem=error, pid=os.getpid())
            return
        before, self._loaded = self._loaded, loaded
        if before.authorities - loaded.authorities:
            self.removals += 1
        named = self._files.certificate or self._files.authorities
        log.info(LogEvent.TLS_RELOADED, "%(file)s was read again", file=named, pid=os.getpid())
        self._warn_if_expired()

    def _signature(self) -> Signature:
        """Return what changes whenever one of the files does."""
        return tuple(_signature_of(path) for path in self._files[1:] if path)

    def _warn_if_expired(self) -> None:
        if self.expires_s is not None and self.expires_s <= time.time():
            message = "the certificate in %(file)s has expired; clients refuse it"
            log.warning(LogEvent.TLS_CERTIFICATE_EXPIRED, message, file=self._files.certificate)


def _signature_of(path: str) -> Signature:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(frozen=True)
class InstanceTls:
    """All TLS of an instance."""

    clients: ReloadedTls | None
    """For `--listen`; None for plain HTTP."""
    peers: ReloadedTls | None
    """For `--listen-internal`, and for requests to other instances."""

    @classmethod
    def of(cls, config: Config) -> "InstanceTls":
        """Read the files that the settings name. Raises CannotStart."""
        clients, peers = config.tls_files, config.peer_tls_files
        return cls(ReloadedTls(clients) if clients else None, ReloadedTls(peers) if peers else None)

    def look(self) -> None:
        """Read files again that have changed."""
        for one in self._all():
            one.look()

    def catch_up(self) -> None:
        """Read files again that have changed, without waiting until they no longer do."""
        for one in self._all():
            one.catch_up()

    def reload(self) -> None:
        """Read all files again."""
        for one in self._all():
            one.reload()

    async def watch(self) -> None:
        """Read files again that change, for ever."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            self.look()

    def __bool__(self) -> bool:
        return self.clients is not None or self.peers is not None

    def _all(self) -> Iterable[ReloadedTls]:
        return [one for one in (self.clients, self.peers) if one is not None]


class CertificateExpiry(Collector):
    """The metric of when the certificates of an instance expire, by listener."""

    def __init__(self, tls: InstanceTls) -> None:
        self._by_listener = {"public": tls.clients, "internal": tls.peers}

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "concord_tls_certificate_expiry_timestamp_seconds",
            "time at which the certificate that a listener presents expires",
            labels=["listener"],
        )
        for listener, tls in self._by_listener.items():
            if tls is not None and tls.expires_s is not None:
                family.add_metric([listener], tls.expires_s)
        yield family
