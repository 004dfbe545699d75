"""Changes pushed to the members of the own site by requests, where the bus does not deliver them in time.

The bus is the fast path, and not the only one: without it the same frames are sent to each member of the site directly.
One request to a member is under way at a time, and what is published meanwhile goes together with the next one.
`acknowledgements` determines what is due.
"""

import asyncio
from functools import partial

from registry.cluster.membership.incarnation import Incarnation
from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.gossip import Gossip
from registry.cluster.replication.recent_frames import RecentFrames
from registry.cluster.rpc.client import PeerClient
from registry.cluster.rpc.messages import CommitAcknowledgement, FramesRequest
from registry.ports import PeerUnreachable
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.units import MIB

log = EventLog("concord.gossip")

PUSH_TIMEOUT_S = 1.0
"""Seconds for which a push may go unanswered: about as long as writes wait for a member that hangs."""
COMMIT_TIMEOUT_S = 0.7
"""Seconds for which a receiver may commit pushed changes before it answers with those it has."""
COMMIT_POLL_S = 0.002
RETRY_S = 0.05
MAX_BATCH_BYTES = MIB


class DirectPush:
    """The sending side of direct push, for one instance."""

    def __init__(
        self,
        peers: PeerClient,
        members: Members,
        acknowledgements: Acknowledgements,
        incarnation: Incarnation,
        recent_frames: RecentFrames,
    ) -> None:
        self._peers = peers
        self._members = members
        self._acknowledgements = acknowledgements
        self._incarnation = incarnation
        self._recent_frames = recent_frames
        self._pushing: dict[str, asyncio.Task[None]] = {}
        self.pushed = 0
        """Number of changes that were pushed and acknowledged."""

    async def run(self) -> None:
        """Push what is due, for ever."""
        while True:
            await self._acknowledgements.push_is_due.wait()
            self._acknowledgements.push_is_due.clear()
            for instance in self._acknowledgements.unacknowledged():
                if instance not in self._pushing:
                    task = self._pushing[instance] = asyncio.create_task(self._push_all(instance))
                    task.add_done_callback(partial(self._pushed_all, instance))

    def close(self) -> None:
        for task in self._pushing.values():
            task.cancel()

    def _pushed_all(self, instance: str, task: "asyncio.Task[None]") -> None:
        del self._pushing[instance]
        if not task.cancelled() and instance in self._acknowledgements.unacknowledged():
            self._acknowledgements.push_is_due.set()  # it came due as the last request ended

    async def _push_all(self, instance: str) -> None:
        """Push to a member until nothing is due there. Changes that it does not take stop being due when it is
        excluded."""
        while sequences := self._acknowledgements.unacknowledged().get(instance):
            member = self._members.get(instance)
            if member is None:  # removed; its exclusion ends the wait
                await asyncio.sleep(RETRY_S)
                continue
            try:
                await self._push(member, sequences)
            except PeerUnreachable as error:
                log.debug(
                    LogEvent.SITE_PUSH_FAILED,
                    "changes could not be pushed to %(instance)s: %(error)s",
                    instance=instance,
                    error=error,
                )
                await asyncio.sleep(RETRY_S)

    async def _push(self, member: Member, sequences: list[int]) -> None:
        frames, size = list[bytes](), 0
        for sequence in sequences:
            frame = self._recent_frames.get(sequence)
            size += len(frame)
            if frame and (not frames or size <= MAX_BATCH_BYTES):
                frames.append(frame)
        answer = await self._peers.ask(member, "/frames", FramesRequest(frames), CommitAcknowledgement, PUSH_TIMEOUT_S)
        if answer.incarnation == self._incarnation.number:
            self._acknowledgements.acknowledged(member, answer.sequences, answer.applied)
            self.pushed += len(answer.sequences)
        if not answer.sequences:
            await asyncio.sleep(RETRY_S)  # it cannot commit them now


async def take_pushed(gossip: Gossip, members: Members, sender: str, frames: list[bytes]) -> CommitAcknowledgement:
    """Take in frames that a member has pushed, and answer which of its changes are committed here."""
    member, loop = members.get(sender), asyncio.get_running_loop()
    if member is None:
        return CommitAcknowledgement(members.own_instance, 0, [], 0)
    taken = [frame for data in frames if (frame := await gossip.receive_pushed(data, sender)) is not None]
    incarnation = max((frame.incarnation for frame in taken), default=member.beat.incarnation)
    sequences = [frame.sequence for frame in taken if frame.incarnation == incarnation]
    until = loop.time() + COMMIT_TIMEOUT_S
    while loop.time() < until and not all(member.applied.seen(incarnation, sequence) for sequence in sequences):
        await asyncio.sleep(COMMIT_POLL_S)
    committed = [sequence for sequence in sequences if member.applied.seen(incarnation, sequence)]
    return CommitAcknowledgement(
        members.own_instance, incarnation, committed, member.applied.contiguous_seq(incarnation)
    )
