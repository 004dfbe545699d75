"""Addresses that more than one instance advertises.

Requests to such an address reach one of the instances, so what only the others hold cannot be fetched. Either an
`--advertise` is wrong, or an instance was replaced at its place and the old id was not removed, for which garbage
collection waits. Each instance compares what it knows; the sum of what all instances know is in their metrics.
"""

from collections import defaultdict

from registry.cluster.membership.heartbeats import OwnHeartbeat
from registry.cluster.membership.members import Members
from registry.cluster.rpc.messages import Heartbeat
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.members")


class SharedAddresses:
    """The shared addresses that the last comparison found."""

    def __init__(self, members: Members, own_heartbeat: OwnHeartbeat) -> None:
        self._members = members
        self._own_heartbeat = own_heartbeat
        self._logged: dict[str, list[str]] = {}
        self.found: dict[str, list[str]] = {}
        """Addresses, each with the ids of the instances that advertise it."""

    def look(self) -> None:
        """Compare all addresses, and log those that are shared at two looks, one after the other: an address may pass
        from one instance to another whose next heartbeat has not come yet."""
        places = defaultdict[tuple[str, str], list[str]](list)
        own = self._own_heartbeat.make()
        places[self._place(own)].append(self._members.own_instance)
        for member in self._members.all():
            if member.beat.advertise:
                places[self._place(member.beat)].append(member.instance)
        before = self.found
        self.found = {address: sorted(ids) for (_, address), ids in sorted(places.items()) if len(ids) > 1}
        lasting = {address: ids for address, ids in self.found.items() if before.get(address) == ids}
        for address, ids in lasting.items():
            if self._logged.get(address) != ids:
                log.warning(
                    LogEvent.SHARED_ADDRESS_DETECTED,
                    "%(count)d instances advertise the address %(address)s: %(instances)s; "
                    "give each an address of its own (--advertise), "
                    "and remove those that are gone for good (concord forget)",
                    count=len(ids),
                    address=address,
                    instances=", ".join(map(self._shown, ids)),
                )
        self._logged = {address: ids for address, ids in self._logged.items() if address in self.found} | lasting

    def _place(self, beat: Heartbeat) -> tuple[str, str]:
        """Return an address as it is reached from here. Behind the address of another site are private ones, which may
        be the same at every site."""
        is_behind = beat.site != self._members.own_site and bool(beat.advertise_site)
        return (beat.site if is_behind else "", beat.advertise)

    def _shown(self, instance: str) -> str:
        member = self._members.get(instance)
        if member is None:
            return f"{instance} (this one)"
        return instance if member.live else f"{instance} (not live)"
