"""The bus: Redis pub/sub, through any number of servers at once.

Every frame is published to all servers and listened for at all of them; one that works is enough. Publishing never
waits: frames go through a bounded queue for each server, and the oldest are dropped when a server does not keep up.
Pub/sub delivers at most once, and a connection whose other end has silently gone away looks alive for a long time; so
each subscription publishes a probe to itself, and is opened anew when the probe does not come back in time.

Redis has no authority here: a client that can publish may send anything, at any rate. A message whose first bytes are
not those of a frame of this cluster is dropped before anything else is done with it. Reading takes a bounded share of
the event loop, and the queue of received frames is bounded. A subscription that falls behind is opened anew, which
drops the messages that wait; anti-entropy over HTTP makes up for them.

Pub/sub has no databases. The number in an address is put into the names of the channels instead, and no database is
selected: instances whose addresses have different numbers do not hear each other.
"""

import asyncio
import logging
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import redis.asyncio
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from crdt.frame import MAX_FRAME_BYTES
from registry.adapters.clock import SystemClock
from registry.adapters.resp import MessageParser, NoSubscription
from registry.errors import CannotStart
from registry.event_loop.ending import end
from registry.event_loop.share import LoopShare
from registry.settings.redis_address import database_of, is_encrypted, names_sentinels, parse_sentinels, shown
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import UNAUTHENTICATED_PERIOD_S, LogLimit
from registry.units import KIB, MIB

log = EventLog("concord.bus")

PROBE_INTERVAL_S = 2.0
PROBE_TIMEOUT_S = 6.0
RETRY_INTERVAL_S = 0.5
REQUEST_TIMEOUT_S = 3.0
MAX_QUEUED_FRAMES = 4096
MAX_QUEUED_BYTES = 32 * MIB
MAX_BATCH = 256
MAX_RECEIVED_FRAMES = 8192
MAX_RECEIVED_BYTES = 32 * MIB
"""A bound on received frames that were not taken: as much as Redis itself keeps for a subscriber before it
disconnects it."""
READ_BYTES = 64 * KIB
READING_SHARE = 0.2
"""Share of the event loop for all servers together. Reading takes some 2 µs for a short message, so genuine traffic
stays far below it."""
LOG_INTERVAL_S = 10.0
"""Interval between two log lines about one server: a restart is logged at once, and a server that disconnects
subscribers all the time is logged every ten seconds."""

Refusal = Callable[[bytes], str | None]
"""Return why a message is no frame of this cluster, judged by its first bytes alone; None for a possible frame."""


class RedisBus:
    """See `registry.ports.Bus`. The first of `clusters` names the channel to publish on; all are listened to, so that a
    cluster key can be exchanged while everyone runs."""

    def __init__(self, urls: Sequence[str], clusters: Sequence[str], site: str, refusal: Refusal) -> None:
        self._cluster = clusters[0]
        self.refused: Counter[str] = Counter()
        self._received = _FrameQueue()
        channels = [channel for name in clusters for channel in (name, f"{name}:{site}")]
        share = LoopShare(READING_SHARE)
        self._servers = [_Server(url, channels, self._received, share, refusal, self.refused) for url in urls]

    def publish(self, frame: bytes, site: str | None = None, cluster: str | None = None) -> None:
        name = cluster or self._cluster
        channel = name if site is None else f"{name}:{site}"
        for server in self._servers:
            server.publish(channel, frame)

    async def listen(self) -> AsyncIterator[bytes]:
        tasks = [asyncio.create_task(work) for server in self._servers for work in (server.send(), server.receive())]
        try:
            while True:
                yield await self._received.take()
        finally:
            await end(tasks)

    def servers(self) -> dict[str, bool]:
        return {server.name: server.connected for server in self._servers}


class _FrameQueue:
    """A bounded queue of frames that were received and not yet taken."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._filled, self._has_room = asyncio.Event(), asyncio.Event()
        self._has_room.set()

    async def put(self, frames: Sequence[bytes]) -> None:
        """Wait for room, and then keep what one read has brought."""
        await self._has_room.wait()
        self._frames.extend(frames)
        self._bytes += sum(map(len, frames))
        if self._frames:
            self._filled.set()
        self._note_room()

    async def take(self) -> bytes:
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        self._note_room()
        return frame

    def _note_room(self) -> None:
        if len(self._frames) < MAX_RECEIVED_FRAMES and self._bytes < MAX_RECEIVED_BYTES:
            self._has_room.set()
        else:
            self._has_room.clear()


class _Server:
    """One Redis server."""

    def __init__(
        self,
        url: str,
        channels: Sequence[str],
        received: _FrameQueue,
        share: LoopShare,
        refusal: Refusal,
        refused: Counter[str],
    ) -> None:
        database = database_of(url)
        self.name = shown(url) + (f" (database {database})" if database else "")
        self._client = _client(url)
        self._prefix = f"concord/{database}:" if database else "concord:"
        self._probe = f"{channels[0]}:probe:{secrets.token_hex(8)}"
        self._subscribed = [self._prefix + channel for channel in (*channels, self._probe)]
        self._echo_channel = self._subscribed[-1].encode()
        self._received, self._share, self._refusal, self._refused = received, share, refusal, refused
        self._queue: deque[tuple[str, bytes]] = deque()
        self._queued_bytes = 0
        self._filled = asyncio.Event()
        self._probed: dict[bytes, float] = {}
        """Loop times of the probes that have not come back to the present subscription."""
        clock = SystemClock()
        self._disconnected_limit, self._connected_limit = (LogLimit(clock, 1, LOG_INTERVAL_S) for _ in range(2))
        self._publish_limit, self._foreign_limit = (LogLimit(clock, 1, UNAUTHENTICATED_PERIOD_S) for _ in range(2))
        self.connected = False

    def publish(self, channel: str, frame: bytes) -> None:
        self._queue.append((self._prefix + channel, frame))
        self._queued_bytes += len(frame)
        while len(self._queue) > MAX_QUEUED_FRAMES or self._queued_bytes > MAX_QUEUED_BYTES:
            self._queued_bytes -= len(self._queue.popleft()[1])
        self._filled.set()

    async def send(self) -> None:
        """Publish queued frames, for ever. A frame that fails is lost; anti-entropy brings its change."""
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
                        answers = await pipeline.execute(raise_on_error=False)  # what is raised quotes the frame
                    refused = next((answer for answer in answers if isinstance(answer, Exception)), None)
                    if refused is not None:
                        message = "the bus at %(bus)s refuses what is published: %(error)s"
                        self._log_limited(
                            self._publish_limit, logging.WARNING, LogEvent.BUS_PUBLISH_REJECTED, message, error=refused
                        )
                except (RedisError, OSError, TimeoutError):
                    await asyncio.sleep(RETRY_INTERVAL_S)
                except Exception:
                    log.exception(LogEvent.BUS_PUBLISH_FAILED, "publishing to the bus at %(bus)s failed", bus=self.name)
                    await asyncio.sleep(RETRY_INTERVAL_S)

    async def receive(self) -> None:
        """Receive frames for ever, on one subscription after the other."""
        was_logged = False
        while True:
            try:
                await self._subscribe()
            except (RedisError, NoSubscription, OSError, TimeoutError) as error:
                if self.connected or not was_logged:
                    message, reason = "the bus at %(bus)s is not heard: %(error)s", _shortened(error)
                    was_logged = self._log_limited(
                        self._disconnected_limit, logging.WARNING, LogEvent.BUS_DISCONNECTED, message, error=reason
                    )
            except Exception:
                log.exception(LogEvent.BUS_LISTEN_FAILED, "listening to the bus at %(bus)s failed", bus=self.name)
            finally:
                self.connected = False
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def _subscribe(self) -> None:
        connection = self._client.connection_pool.make_connection()
        probing: asyncio.Task[None] | None = None
        try:
            await connection.connect()
            await connection.send_command("SUBSCRIBE", *self._subscribed)
            self._probed.clear()
            probing = asyncio.create_task(self._send_probes())
            await self._read(connection._reader)  # the library's own subscription parses everything, see `resp`
        finally:
            if probing is not None:
                probing.cancel()
            await connection.disconnect(nowait=True)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        loop, parser = asyncio.get_running_loop(), MessageParser(MAX_FRAME_BYTES)
        while True:
            try:
                async with asyncio.timeout(PROBE_INTERVAL_S):
                    data = await stream.read(READ_BYTES)
                if not data:
                    raise ConnectionError("the server closed the connection")
            except TimeoutError:
                data = b""
            begun_s = time.perf_counter()  # the loop's own time stands still while a callback runs
            frames = self._select_frames(parser, data)
            oldest_s = next(iter(self._probed.values()), loop.time())
            if loop.time() - oldest_s > PROBE_TIMEOUT_S:
                raise TimeoutError(f"messages published there do not come back within {PROBE_TIMEOUT_S:g} s")
            now_s = time.perf_counter()
            rest_s = self._share.charge(now_s - begun_s, now_s)
            await self._received.put(frames)
            await asyncio.sleep(rest_s)  # also where `rest_s` is 0: `read` returns at once while data is buffered

    def _select_frames(self, parser: MessageParser, data: bytes) -> list[bytes]:
        """Return the frames in received data. Other messages are counted, and own probes are handled."""
        refusal, frames, refused, too_large = self._refusal, [], 0, parser.too_large
        for channel, payload in parser.feed(data):
            if channel == self._echo_channel:
                self._on_probe_returned(payload)
                continue
            why = refusal(payload)
            if why is None:
                frames.append(payload)
            else:
                self._refused[why] += 1
                refused += 1
        if parser.too_large > too_large:
            self._refused["malformed"] += parser.too_large - too_large
            refused += parser.too_large - too_large
        if refused:
            self._log_limited(
                self._foreign_limit,
                logging.WARNING,
                LogEvent.BUS_MESSAGES_REJECTED,
                "refused messages on the bus at %(bus)s, %(messages)d in all, that are not frames of this cluster: "
                "restrict who may publish there by an ACL of the Redis",
                messages=sum(self._refused.values()),
            )
        return frames

    def _on_probe_returned(self, number: bytes) -> None:
        """Handle a probe that has come back."""
        if number not in self._probed:
            return  # any client of the server may publish there
        for earlier in list(self._probed):
            del self._probed[earlier]
            if earlier == number:
                break
        if not self.connected:
            self.connected = True
            self._log_limited(
                self._connected_limit, logging.INFO, LogEvent.BUS_CONNECTED, "the bus at %(bus)s is heard"
            )

    async def _send_probes(self) -> None:
        while True:
            number = secrets.token_bytes(8)
            self._probed[number] = asyncio.get_running_loop().time()
            self.publish(self._probe, number)
            await asyncio.sleep(PROBE_INTERVAL_S)

    def _log_limited(self, limit: LogLimit, level: int, event: LogEvent, message: str, **fields: object) -> bool:
        """Log a line, if its limit admits one. Return whether it did."""
        left_out = limit.admit()
        if left_out is not None:
            log.log(level, event, message, bus=self.name, **fields, **left_out)
        return left_out is not None


def _shortened(error: Exception) -> str:
    """Without the address, which is in the line already, and without the page of settings that the library names when
    Sentinels do not answer."""
    text = re.sub(r"^Error -?[0-9]+ (?:while )?connecting to \S+\. ", "", str(error).partition(" : <")[0])
    return text.removesuffix(".") or type(error).__name__


def _client(url: str) -> Any:
    """Return a client that connects at its first use. With Sentinels, it asks them for the master at every connection.
    Raises CannotStart for an address with unknown options."""
    limits: dict[str, Any] = {
        "socket_connect_timeout": REQUEST_TIMEOUT_S,
        "socket_timeout": REQUEST_TIMEOUT_S,
        "retry": None,
        "protocol": 2,  # RESP2, which `resp` parses; it sends no HELLO, which an ACL would have to allow
    }
    if is_encrypted(url):
        limits["ssl_check_hostname"] = True  # older versions of the library look at the signature alone
    client = _by_sentinels(url, limits) if names_sentinels(url) else _direct(url, limits)
    client.connection_pool.connection_kwargs["db"] = 0
    try:
        client.connection_pool.make_connection()  # connects nowhere, and else each attempt to would fail
    except TypeError as error:
        raise CannotStart(f"the address of the Redis {shown(url)} has an unknown option: {error}") from None
    return client


def _direct(url: str, limits: dict[str, Any]) -> Any:
    return redis.asyncio.Redis.from_url(url, max_connections=8, **limits)


def _by_sentinels(url: str, limits: dict[str, Any]) -> Any:
    parsed = parse_sentinels(url)
    if parsed.encrypted:
        limits |= {"ssl": True, "ssl_ca_certs": parsed.trusted}
    login: dict[str, Any] = {"password": parsed.sentinel_password} if parsed.sentinel_password else {}
    sentinels = Sentinel(parsed.hosts, sentinel_kwargs={**limits, **login})  # type: ignore[no-untyped-call]
    master: dict[str, Any] = {"username": parsed.user, "password": parsed.password}
    return sentinels.master_for(parsed.master, max_connections=8, **master, **limits)
