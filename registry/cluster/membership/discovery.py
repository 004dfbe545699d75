"""Discovery: where other instances are, and handshakes with those that the bus does not bring.

Addresses come from the configuration, from the members on disk, and from handshakes: each side names the live members
that it knows. Every two seconds this instance sends a handshake to all addresses whose instances are not heard on the
bus.
"""

import asyncio
import contextlib
from collections.abc import Iterable

from registry.cluster.membership.heartbeats import OwnHeartbeat
from registry.cluster.membership.incarnation import CloneGuard, Incarnation
from registry.cluster.membership.introductions import Introductions
from registry.cluster.membership.members import HEARTBEAT_S, Member, Members
from registry.cluster.rpc.client import PeerClient
from registry.cluster.rpc.messages import Handshake
from registry.ports import PeerUnreachable
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.cluster")

MAX_ADDRESSES = 1000


class Discovery:
    """The addresses that this instance knows, and its handshakes."""

    def __init__(
        self,
        addresses: Iterable[str],
        own_url: str,
        members: Members,
        peers: PeerClient,
        own_heartbeat: OwnHeartbeat,
        incarnation: Incarnation,
        clones: CloneGuard,
    ) -> None:
        """`addresses` are those of the configuration."""
        self.addresses = list(addresses)
        """Addresses where other instances may be, beside those where members advertise themselves."""
        self._members = members
        self._peers = peers
        self._own_heartbeat = own_heartbeat
        self._incarnation = incarnation
        self._clones = clones
        self.introductions = Introductions(members, own_url, self.send_handshake)
        self._silent: set[str] = set()
        """Addresses that were logged as giving no answer."""

    async def run(self) -> None:
        """Send a handshake to addresses whose instances are not heard on the bus, for ever."""
        while True:
            heard = {self._members.url(member) for member in self._members.on_bus()}
            known = {self._members.url(member) for member in self._members.all()}
            self._peers.acceptance.retain([*self.addresses, *known])
            heard.difference_update(self._peers.acceptance.refusing())  # asked until they accept the key
            urls = [url for url in dict.fromkeys([*self.addresses, *sorted(known)]) if url and url not in heard]
            suspects = [member for member in self._members.reachable() if member.suspect]
            asking = [*(self.send_handshake(url) for url in urls), *(self.probe(member) for member in suspects)]
            await asyncio.gather(asyncio.sleep(HEARTBEAT_S), *asking)  # so that no handshake waits for another

    def close(self) -> None:
        self.introductions.close()

    # Handshakes

    def make_handshake(self, to: Member | None = None) -> Handshake:
        """Return what this instance tells of itself and of the members it knows."""
        addresses = [self._members.url(member) for member in self._members.live()]
        known_incarnation, sequence = to.beat.incarnation if to is not None else 0, self._incarnation.next_heartbeat()
        return Handshake(self._members.own_instance, sequence, self._own_heartbeat.make(), addresses, known_incarnation)

    def on_handshake(self, handshake: Handshake) -> None:
        """Take in a handshake that another instance has sent or answered."""
        incarnation = handshake.heartbeat.incarnation
        if handshake.instance == self._members.own_instance and incarnation != self._incarnation.number:
            self._clones.on_clone_detected(incarnation)
        self._clones.on_clone_detected(
            handshake.known_incarnation
        )  # a directory that was restored under an older clock, too
        self._members.receive_heartbeat(handshake.instance, handshake.heartbeat, handshake.sequence, on_bus=False)
        self.introductions.hear_of(handshake.members)
        for url in handshake.members:
            if url and url not in self.addresses and len(self.addresses) < MAX_ADDRESSES:
                self.addresses.append(url)

    async def send_handshake(self, url: str, to: Member | None = None) -> None:
        """Introduce this instance at an address, whichever instance answers there. Raises nothing."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                answer = await self._peers.ask_url(url, "/handshake", self.make_handshake(to), Handshake)
        except (PeerUnreachable, TimeoutError) as error:
            if url not in self._silent:
                self._silent.add(url)
                why = str(error).removeprefix(f"{url} ") or "no answer in time"
                log.warning(
                    LogEvent.HANDSHAKE_FAILED, "no handshake from %(address)s: %(error)s", address=url, error=why
                )
            return
        if url in self._silent:
            self._silent.discard(url)
            log.info(LogEvent.HANDSHAKE_COMPLETED, "%(address)s has answered a handshake", address=url)
        self.on_handshake(answer)
        if answer.instance == self._members.own_instance and url in self.addresses:
            self.addresses.remove(url)  # a list of peers may be the same everywhere, this instance included

    async def probe(self, member: Member) -> None:
        """Ask a member that gave no answer, or has to prove that it is alive, before a request depends on it."""
        with contextlib.suppress(PeerUnreachable):
            self.on_handshake(await self.exchange_handshake(member))

    async def exchange_handshake(self, member: Member) -> Handshake:
        """Ask a member for a handshake, and return it. Raises PeerUnreachable."""
        handshake = self.make_handshake(member)
        return await self._peers.ask(member, "/handshake", handshake, Handshake, timeout_s=HEARTBEAT_S)
