"""Distrust of holders that sent wrong bytes of a content: they are left out for a moment that doubles each time.

A bit that changed on the way does not change again, and there may be no other holder, so nothing is left out for good.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from registry.cluster.membership.members import Member
from registry.event_loop.now import now_s
from registry.oci.names import Digest
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.fetch")

FIRST_DISTRUST_S = 2.0
MAX_DISTRUST_S = 60.0
MAX_DISTRUSTED = 10_000


class _Pause(NamedTuple):
    """The loop time until which a holder is left out, and the length of that pause."""

    until: float
    pause_s: float


class Distrust:
    """The holders of one process that are left out for now, each for a content."""

    def __init__(self) -> None:
        self._pauses: OrderedDict[tuple[str, Digest], _Pause] = OrderedDict()

    def note_wrong_bytes(self, members: Iterable[Member], digest: Digest) -> None:
        """Leave out holders that sent wrong bytes."""
        for member in members:
            log.error(
                LogEvent.WRONG_BYTES_RECEIVED,
                "%(member)s sent wrong bytes for %(digest)s",
                member=member.shown,
                digest=digest,
            )
            last = self._pauses.pop((member.instance, digest), None)
            pause_s = min(2 * last.pause_s, MAX_DISTRUST_S) if last else FIRST_DISTRUST_S
            self._pauses[member.instance, digest] = _Pause(now_s() + pause_s, pause_s)
        while len(self._pauses) > MAX_DISTRUSTED:
            self._pauses.popitem(last=False)

    def includes(self, member: Member, digest: Digest) -> bool:
        """Return whether a holder is left out now."""
        last = self._pauses.get((member.instance, digest))
        return last is not None and now_s() < last.until

    def note_right_bytes(self, members: Iterable[Member], digest: Digest) -> None:
        """End the distrust of holders that sent the right bytes."""
        for member in members:
            self._pauses.pop((member.instance, digest), None)
