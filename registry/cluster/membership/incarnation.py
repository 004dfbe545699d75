"""The incarnation of this instance, and clones that use another one (the incarnation number of SWIM; Das, Gupta,
Motivala, 2002).

An incarnation numbers what it sends: changes and heartbeats. Other instances believe the latest incarnation alone.

A clone is another process that runs as this instance, from a copied data directory. Each of the two begins a later
incarnation than it hears of the other, so both are heard in turn, and both raise the alarm. An instance that was
restored from an old directory does the same once: the others notify it of the later incarnation that they know. What
the other process sends comes in as own frames of another incarnation (`gossip`), and in handshakes (`discovery`).
"""

import asyncio

from registry.catalog.catalog import Catalog
from registry.cluster.membership.introductions import SendHandshake
from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.recent_frames import RecentFrames
from registry.cluster.rpc.messages import Heartbeat
from registry.errors import StorageFailed
from registry.event_loop.now import now_s
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.cluster")

BUMP_INTERVAL_S = 5.0
"""Seconds between two incarnations of one process, so that each lasts for long enough to be heard; and between two
notices to the same instance."""


class Incarnation:
    """The present incarnation of this instance, and the numbers that it has given so far."""

    def __init__(self, number: int, acknowledgements: Acknowledgements, recent_frames: RecentFrames) -> None:
        """`acknowledgements` and `recent_frames` are those of changes by their number, so they begin anew with it."""
        self._acknowledgements = acknowledgements
        self._recent_frames = recent_frames
        self.number = number
        self.published_seq = 0
        """Number of changes that it has published."""
        self._heartbeat_seq = 0

    def next_change(self) -> int:
        """Return the sequence number of one more change."""
        self.published_seq += 1
        return self.published_seq

    def next_heartbeat(self) -> int:
        """Return the sequence number of one more heartbeat."""
        self._heartbeat_seq += 1
        return self._heartbeat_seq

    def begin(self, number: int) -> None:
        """Continue under another incarnation, as a process does that has just started."""
        self.number, self.published_seq, self._heartbeat_seq = number, 0, 0
        self._recent_frames.clear()
        self._acknowledgements.begin_incarnation()


class CloneGuard:
    """Begins a later incarnation when another process is found that runs as this instance."""

    def __init__(self, catalog: Catalog, incarnation: Incarnation) -> None:
        self._catalog = catalog
        self._incarnation = incarnation
        self._bumping: asyncio.Task[None] | None = None
        self._bumped_at = -BUMP_INTERVAL_S
        self._latest_clone = 0

    def on_clone_detected(self, number: int) -> None:
        """Begin a later incarnation than a clone's. The other members believe the later one, and would not ask the
        earlier one for its changes."""
        self._latest_clone = max(self._latest_clone, number)
        if number > self._incarnation.number and (self._bumping is None or self._bumping.done()):
            self._bumping = asyncio.create_task(self._bump_incarnation())

    def close(self) -> None:
        if self._bumping is not None:
            self._bumping.cancel()

    async def _bump_incarnation(self) -> None:
        loop = asyncio.get_running_loop()
        while self._incarnation.number <= self._latest_clone:
            await asyncio.sleep(max(self._bumped_at + BUMP_INTERVAL_S - loop.time(), 0.0))
            self._bumped_at = loop.time()
            try:
                self._incarnation.begin(await self._catalog.begin_incarnation(self._latest_clone))
            except StorageFailed as error:
                log.error(LogEvent.INCARNATION_WRITE_FAILED, "no new start could be counted: %(error)s", error=error)


class StaleNotices:
    """Handshakes with instances that use an id or an incarnation which is over: the answer tells them."""

    def __init__(self, members: Members, send_handshake: SendHandshake) -> None:
        self._members = members
        self._send_handshake = send_handshake
        self._notified_at: dict[str, float] = {}
        self._notifying: set[asyncio.Task[None]] = set()

    def on_stale_incarnation(self, member: Member, beat: Heartbeat) -> None:
        """Notify an instance that uses an earlier incarnation than one heard before: a clone of it ran for a while."""
        self._notify(member.instance, beat, member)

    def on_removed_member_returned(self, instance: str, beat: Heartbeat) -> None:
        """Notify a removed instance that has returned: it may know no member that can tell it of its removal."""
        if instance != self._members.own_instance:
            self._notify(instance, beat, None)

    def close(self) -> None:
        for task in self._notifying:
            task.cancel()

    def _notify(self, instance: str, beat: Heartbeat, member: Member | None) -> None:
        now = now_s()
        if now > self._notified_at.get(instance, -BUMP_INTERVAL_S) + BUMP_INTERVAL_S:
            self._notified_at[instance] = now
            task = asyncio.create_task(self._send_handshake(self._members.url_of(beat), member))
            self._notifying.add(task)
            task.add_done_callback(self._notifying.discard)
