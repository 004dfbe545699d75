"""Log lines for members that join and members that are removed, one for each at every instance.

Who asked for a removal is known at the instance that was asked (`http.admin.actions` logs it there); the others log
which instance stated it. A member that joins has proved that it has the cluster key: its first heartbeat is authentic.
"""

from collections.abc import Iterable

from registry.catalog.catalog import Catalog
from registry.catalog.membership import removals
from registry.cluster.membership.members import Member, Members
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.membership")


class MembershipLog:
    """Notes members that are heard for the first time."""

    def __init__(self, members: Members) -> None:
        """`members` holds those that the disk knows: they have joined before."""
        self._members = members
        self._names = {member.instance: member.beat.name for member in members.all()}
        """Names of members, also of those that are being removed."""

    def on_heard(self, member: Member) -> None:
        """Log a member that is heard for the first time."""
        beat = member.beat
        if member.instance not in self._names:
            fields = _who(member.instance, beat.name) | {"site": beat.site, "version": beat.version}
            log.info(
                LogEvent.MEMBER_JOINED, "joined the cluster: %(address)s", address=self._members.url(member), **fields
            )
        self._names[member.instance] = beat.name

    def joined(self) -> None:
        """Log that this instance has joined its cluster, or goes on without the others."""
        live = self._members.live()
        near = sum(member.beat.site == self._members.own_site for member in live)
        log.info(
            LogEvent.JOIN_COMPLETED,
            "this instance has joined: %(live)d other instances are live, %(live_at_site)d of them at this site",
            live=len(live),
            live_at_site=near,
        )

    def removed(self, instances: Iterable[str], catalog: Catalog) -> None:
        """Log that members are gone for good, and which instance stated it."""
        writers = removals(catalog.database)
        for instance in sorted(instances):
            name = self._names.pop(instance, "")
            stated_by = catalog.queries.instance_of(writers[instance]) if instance in writers else None
            fields = _who(instance, name) | {"by": f"instance {stated_by or 'unknown'}"}
            if by_name := self._members.name_of(stated_by):
                fields["by_name"] = by_name
            log.warning(LogEvent.MEMBER_REMOVED, "removed from the cluster for good", **fields)


def _who(instance: str, name: str) -> dict[str, str]:
    return {"instance": instance} | ({"name": name} if name else {})
