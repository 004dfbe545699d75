"""The audit witness: remembers the heads of other instances' audit logs, which their heartbeats carry.

The chain of a log shows lines that were altered, but not an end that was cut off (`registry.audit`). A head that is
lower than one that was heard before shows that.
"""

from registry.audit.chain import Head
from registry.cluster.membership.members import Member
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.members")


class AuditWitness:
    """The highest heads that were heard since the start, by instance and process."""

    def __init__(self) -> None:
        self._heads: dict[str, dict[str, Head]] = {}
        self._reported: dict[tuple[str, str], Head] = {}
        """The lower heads that were logged, by instance and process."""

    def on_heard(self, member: Member) -> None:
        """Compare the heads of a heartbeat with those that were heard before. The highest is kept, so that it is known
        what is missing."""
        if not member.beat.audit:
            return
        known = self._heads.setdefault(member.instance, {})
        for process, (number, hash) in member.beat.audit.items():
            head, before = Head(number, hash), known.get(process)
            if before is None or before.number < head.number:
                known[process] = head
            elif head != before and self._reported.get((member.instance, process)) != head:
                self._reported[member.instance, process] = head
                log.error(
                    LogEvent.AUDIT_LOG_CUT,
                    "the audit log of process %(process)s of %(member)s ends at line %(line)d, and had line %(known)d: "
                    "its end was cut off, or it was written anew",
                    process=process,
                    member=member.shown,
                    line=head.number,
                    known=before.number,
                )

    def heads_of(self, instance: str) -> dict[str, Head]:
        """Return the highest heads that were heard of an instance."""
        return self._heads.get(instance, {})
