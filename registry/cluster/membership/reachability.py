"""Reachability: whether other instances reach this one at the address it advertises.

An instance whose `--advertise` leads nowhere, or to another instance, hears all members and looks well from inside: its
state agrees with theirs, and it takes pushes whose content no member can fetch. Only other members can detect that. So
it asks its peers to try: a peer sends a request to the advertised address as it would for content, and answers whether
this instance replied there.

The instance is not ready while peers answer and none of them reaches it. The silence of a peer proves nothing: an
instance that is cut off stays ready, as an instance that is alone does. An address that was reached before may fail for
`GRACE_S`; one that was never reached in this incarnation may not fail at all.

Other sites' instances come through `--advertise-site` where there is one. It stands for the whole site, and its
balancer may wait for this instance to be ready before it sends anything, so what they find is logged and shown and
takes no readiness away. The answer names the address that was tried: an address of `--peer`, or one learned from
another member, may belong to an instance of any site.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from registry.cluster.membership.heartbeats import OwnHeartbeat
from registry.cluster.membership.members import Member, Members
from registry.cluster.membership.shared_addresses import SharedAddresses
from registry.cluster.rpc.client import NO_CONTENT, REQUEST_TIMEOUT_S, PeerClient
from registry.cluster.rpc.messages import Heartbeat, LocateRequest, LocateResponse, ReachRequest, ReachResponse
from registry.event_loop.now import now_s
from registry.ports import PeerUnreachable
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.members")

ATTEMPT_TIMEOUT_S = 2.0
"""Seconds for which a peer tries: as long as a connection may take (`adapters.http`), below `REQUEST_TIMEOUT_S`."""
CHECK_INTERVAL_S = 10.0
"""Seconds between two checks while the address is reached. A check is two requests: an idle instance can afford it."""
RETRY_S = 2.0
"""Seconds between two checks while the address is not reached, so that a corrected one is found soon."""
GRACE_S = 10.0
"""Seconds for which an address that was reached may fail before the instance is not ready: longer than a peer or a name
server pauses."""
FORGET_S = 10.0
"""Seconds without any peer's answer after which the verdict lapses, and the instance is ready as if it were alone."""
FIRST_CHECK_S = 5.0
"""Seconds for which an instance that starts and finds peers waits for their first answer before it is ready."""
MAX_PEERS_PER_CHECK = 8
"""Number of peers asked in one check, when the first one does not reach this instance."""
LOG_INTERVAL_S = 60.0


class Reachability:
    """This instance's address as its peers find it. `run` checks it for ever.

    Has more than a dozen attributes: a verdict consists of what was found, by which peer, and since when.
    """

    def __init__(
        self, members: Members, peers: PeerClient, own_heartbeat: OwnHeartbeat, addresses: Sequence[str]
    ) -> None:
        """`addresses` lists where other instances may be, beside those where members advertise themselves."""
        self._members = members
        self._peers = peers
        self._own_heartbeat = own_heartbeat
        self._addresses = addresses
        self.shared = SharedAddresses(members, own_heartbeat)
        self._began = now_s()
        self._rounds = 0
        self._is_checked = False
        """True once peers have been asked, with or without an answer."""
        self._was_reached = False
        self._unreached_since: float | None = None
        self._answered_at = 0.0
        self._logged_at = -LOG_INTERVAL_S
        self._wake = asyncio.Event()
        self.reached_from: str | None = None
        """The peer that reached this instance last; None while none does or none has been asked."""
        self.problem = ""
        """The error that a peer found; empty while the address is reached or nothing is known."""
        self.site_problem = ""
        """The error that a peer found at `--advertise-site`, empty likewise."""

    @property
    def is_unreached(self) -> bool:
        """Return whether peers answer and none of them reaches this instance."""
        return self._unreached_since is not None

    @property
    def is_in_doubt(self) -> bool:
        """Return whether this instance must not be ready: unreached for longer than it may be, or not asked yet."""
        if self._unreached_since is not None:
            return not self._was_reached or now_s() - self._unreached_since >= GRACE_S
        return not self._is_checked and now_s() < self._began + FIRST_CHECK_S and self._has_near_members()

    async def run(self) -> None:
        """Check the address, for ever."""
        while True:
            self.shared.look()
            await self.check()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL_S if self.reached_from is not None else RETRY_S):
                    await self._wake.wait()

    async def check(self) -> None:
        """Have one peer try the address; where it does not reach this instance, others too. One of another site that
        comes through `--advertise-site` is asked beside them."""
        beat = self._own_heartbeat.make()
        request = ReachRequest(beat.site, beat.advertise, beat.advertise_site)
        members = self._rotated(self._members.reachable())
        near = [member for member in members if not self._comes_through_site(member, beat)]
        far = [member for member in members if self._comes_through_site(member, beat)]
        places = [(self._members.url(member), member.instance) for member in near]
        known = {self._members.url(member) for member in self._members.all()}
        places += [(url, "") for url in self._addresses if url not in known]
        verdicts, site_verdicts = await asyncio.gather(
            self._ask(places[:1], request), self._ask([(self._members.url(m), m.instance) for m in far[:1]], request)
        )
        if not any(verdict.reached and not verdict.via_site for verdict in verdicts):
            verdicts += await self._ask(places[1:MAX_PEERS_PER_CHECK], request)
        self._is_checked = self._is_checked or bool(places)
        verdicts += site_verdicts
        self._note(beat.advertise, [verdict for verdict in verdicts if not verdict.via_site])
        self._note_site(beat.advertise_site, [verdict for verdict in verdicts if verdict.via_site])

    async def attempt(self, instance: str, request: ReachRequest) -> ReachResponse:
        """Try another instance's address for it, as this one would for content. Members alone can ask for that."""
        own = self._members.own_instance
        via_site = request.site != self._members.own_site and bool(request.advertise_site)
        url = request.advertise_site if via_site else request.advertise
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                await self._peers.ask_url(url, "/locate", LocateRequest(NO_CONTENT), LocateResponse, instance)
        except TimeoutError:
            return ReachResponse(own, False, f"{url} gives no answer within {ATTEMPT_TIMEOUT_S:g} s", via_site)
        except PeerUnreachable as error:
            return ReachResponse(own, False, str(error), via_site)
        return ReachResponse(own, True, "", via_site)

    def on_heard(self, member: Member) -> None:
        """Check the address now, where a new member may be the first that reaches it."""
        if member.is_new and self.reached_from is None:
            self._wake.set()

    def _rotated(self, members: list[Member]) -> list[Member]:
        """Begin with another peer each time, so that a fault of one peer is not taken for a fault of this instance."""
        self._rounds += 1
        first = self._rounds % len(members) if members else 0
        return members[first:] + members[:first]

    def _has_near_members(self) -> bool:
        """Return whether reachable members would try `--advertise`: only these decide on readiness."""
        beat = self._own_heartbeat.make()
        return any(not self._comes_through_site(member, beat) for member in self._members.reachable())

    def _comes_through_site(self, member: Member, beat: Heartbeat) -> bool:
        return bool(beat.advertise_site) and member.beat.site != beat.site

    async def _ask(self, places: list[tuple[str, str]], request: ReachRequest) -> list[ReachResponse]:
        """Return the answers of other instances. This instance may be in a list of peers too, and is left out."""
        answers = await asyncio.gather(*(self._ask_one(url, instance, request) for url, instance in places))
        return [answer for answer in answers if answer is not None and answer.instance != self._members.own_instance]

    async def _ask_one(self, url: str, instance: str, request: ReachRequest) -> ReachResponse | None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return await self._peers.ask_url(url, "/reach", request, ReachResponse, instance)
        except (PeerUnreachable, TimeoutError):
            return None

    def _note(self, address: str, verdicts: list[ReachResponse]) -> None:
        now = now_s()
        by = next((verdict.instance for verdict in verdicts if verdict.reached), None)
        if by is not None:
            if self.problem:
                log.warning(
                    LogEvent.ADDRESS_REACHED,
                    "instance %(reached_from)s reaches this instance at %(address)s now",
                    reached_from=by,
                    address=address,
                )
            self.reached_from, self.problem, self._unreached_since = by, "", None
            self._was_reached, self._logged_at = True, -LOG_INTERVAL_S
        elif verdicts:
            self.reached_from, self.problem, self._answered_at = None, verdicts[0].problem, now
            self._unreached_since = now if self._unreached_since is None else self._unreached_since
            if now >= self._logged_at + LOG_INTERVAL_S:
                self._logged_at = now
                log.error(
                    LogEvent.ADDRESS_UNREACHABLE,
                    "no instance reaches this one at %(address)s: %(problem)s; while that lasts it is not ready; "
                    "set --advertise to an address at which the other instances reach it, ready or not",
                    address=address,
                    problem=self.problem,
                )
        elif now > self._answered_at + FORGET_S:
            self.reached_from, self.problem, self._unreached_since = None, "", None

    def _note_site(self, address: str, verdicts: list[ReachResponse]) -> None:
        if not verdicts:
            return
        problem = next((verdict.problem for verdict in verdicts if not verdict.reached), "")
        if problem and not self.site_problem:
            log.warning(
                LogEvent.SITE_ADDRESS_UNREACHABLE,
                "another site does not reach this one at %(address)s: %(problem)s",
                address=address,
                problem=problem,
            )
        elif self.site_problem and not problem:
            log.warning(
                LogEvent.SITE_ADDRESS_REACHED, "another site reaches this one at %(address)s now", address=address
            )
        self.site_problem = problem
