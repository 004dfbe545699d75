"""The bus: Redis pub/sub, through any number of servers at once.

Every frame is published to all servers and listened for at all of them; one that works is enough. Publishing never
waits: frames go through a bounded queue for each server, and the oldest are dropped when a server does not keep up.
Pub/sub delivers at most once, and a connection whose other end has silently gone away looks alive for a long time; so
each subscription listens for its own heartbeat, and is opened anew when that does not come back.
"""

import asyncio
import logging
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import redis.asyncio
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from registry.errors import CannotStart
from registry.redis_address import is_encrypted, names_sentinels, parse_sentinels, shown

log = logging.getLogger("concord.bus")

PROBE_S = 2.0
DEAF_S = 6.0
RETRY_S = 0.5
TIMEOUT_S = 3.0
MAX_QUEUED_FRAMES = 4096
MAX_QUEUED_BYTES = 32 * 1024 * 1024
MAX_BATCH = 256
MAX_HEARD = 8192


class RedisBus:
    """See `registry.seams.Bus`. The first of `clusters` names the channel to publish on; all are listened to, so that a
    cluster key can be exchanged while everyone runs."""

    def __init__(self, urls: Sequence[str], clusters: Sequence[str], site: str) -> None:
        channels = [channel for name in clusters for channel in (_channel(name), _channel(name, site))]
        self._cluster = clusters[0]
        self._heard: asyncio.Queue[bytes] = asyncio.Queue(MAX_HEARD)
        self._servers = [_Server(url, channels, self._heard) for url in urls]

    def publish(self, frame: bytes, site: str | None = None) -> None:
        for server in self._servers:
            server.queue(_channel(self._cluster, site), frame)

    async def listen(self) -> AsyncIterator[bytes]:
        tasks = [asyncio.create_task(work) for server in self._servers for work in (server.send(), server.hear())]
        try:
            while True:
                yield await self._heard.get()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def servers(self) -> dict[str, bool]:
        return {server.name: server.connected for server in self._servers}


class _Server:
    """One Redis server."""

    def __init__(self, url: str, channels: Sequence[str], heard: "asyncio.Queue[bytes]") -> None:
        self.name = shown(url)
        self._client = _client(url)
        self._probe = f"concord:probe:{secrets.token_hex(8)}"
        self._channels = [*channels, self._probe]
        self._heard = heard
        self._queue: deque[tuple[str, bytes]] = deque()
        self._queued_bytes = 0
        self._filled = asyncio.Event()
        self.connected = False

    def queue(self, channel: str, frame: bytes) -> None:
        self._queue.append((channel, frame))
        self._queued_bytes += len(frame)
        while len(self._queue) > MAX_QUEUED_FRAMES or self._queued_bytes > MAX_QUEUED_BYTES:
            self._queued_bytes -= len(self._queue.popleft()[1])
        self._filled.set()

    async def send(self) -> None:
        """Publish what is queued, for ever. What fails is lost; the others find out by themselves."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
                self._queued_bytes -= sum(len(frame) for _, frame in batch)
                try:
                    async with self._client.pipeline(transaction=False) as pipeline:
                        for channel, frame in batch:
                            pipeline.publish(channel, frame)
                        await pipeline.execute()
                except (RedisError, OSError, TimeoutError):
                    await asyncio.sleep(RETRY_S)
                except Exception:
                    log.exception("publishing to the bus at %s failed", self.name)
                    await asyncio.sleep(RETRY_S)

    async def hear(self) -> None:
        """Hear frames, for ever, on one subscription after the other."""
        tried = False
        while True:
            try:
                await self._subscribe()
            except (RedisError, OSError, TimeoutError) as error:
                if self.connected or not tried:
                    log.warning("the bus at %s is not heard: %s", self.name, _shortened(error))
            except Exception:
                log.exception("listening to the bus at %s failed", self.name)
            finally:
                self.connected, tried = False, True
            await asyncio.sleep(RETRY_S)

    async def _subscribe(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(*self._channels)
            heard_at = loop.time()
            probing = asyncio.create_task(self._probe_often())
            try:
                while True:
                    message = await subscription.get_message(timeout=PROBE_S)
                    if message is not None:
                        heard_at = loop.time()
                        if not self.connected:
                            self.connected = True
                            log.info("the bus at %s is heard", self.name)
                        if message["channel"] != self._probe.encode():
                            await self._heard.put(message["data"])
                    elif loop.time() - heard_at > DEAF_S:
                        raise TimeoutError("it does not echo")
            finally:
                probing.cancel()

    async def _probe_often(self) -> None:
        while True:
            self.queue(self._probe, b"")
            await asyncio.sleep(PROBE_S)


def _shortened(error: Exception) -> str:
    """Without the address, which is in the line already, and without the page of settings that the library names when
    Sentinels do not answer."""
    text = re.sub(r"^Error -?[0-9]+ (?:while )?connecting to \S+\. ", "", str(error).partition(" : <")[0])
    return text.removesuffix(".") or type(error).__name__


def _client(url: str) -> Any:
    """A client that connects when it is used. One by Sentinels asks them for the master at every connection. Raises
    CannotStart for an address with options that there are not."""
    limits: dict[str, Any] = {"socket_connect_timeout": TIMEOUT_S, "socket_timeout": TIMEOUT_S, "retry": None}
    if is_encrypted(url):
        limits["ssl_check_hostname"] = True  # older versions of the library look at the signature alone
    client = _by_sentinels(url, limits) if names_sentinels(url) else _direct(url, limits)
    try:
        client.connection_pool.make_connection()  # connects nowhere, and else each attempt to would fail
    except TypeError as error:
        raise CannotStart(f"the address of the Redis {shown(url)} has an unknown option: {error}") from None
    return client


def _direct(url: str, limits: dict[str, Any]) -> Any:
    return redis.asyncio.Redis.from_url(url, max_connections=8, **limits)


def _by_sentinels(url: str, limits: dict[str, Any]) -> Any:
    said = parse_sentinels(url)
    if said.encrypted:
        limits |= {"ssl": True, "ssl_ca_certs": said.trusted}
    login: dict[str, Any] = {"password": said.sentinel_password} if said.sentinel_password else {}
    sentinels = Sentinel(said.hosts, sentinel_kwargs={**limits, **login})  # type: ignore[no-untyped-call]
    master: dict[str, Any] = {"username": said.user, "password": said.password, "db": said.database}
    return sentinels.master_for(said.master, max_connections=8, **master, **limits)


def _channel(cluster: str, site: str | None = None) -> str:
    return f"concord:{cluster}" if site is None else f"concord:{cluster}:{site}"
