"""The other instances: who is there, how they are reached, and how far they are.

An instance is live while its heartbeats come; it is presumed dead after three are missed. A heartbeat on the bus is
authentic but not fresh: anyone who can publish there can record it and publish it again. So a heartbeat on the bus only
prolongs a life. A life begins with an answered request, which is fresh (see `cluster.rpc.sessions`): at the first
heartbeat, after a silence, and with every incarnation. Sequence numbers are kept on disk for the same reason.

Whether requests reach it is a separate matter, since a network may swallow packets to an instance whose heartbeats
still arrive: after a request that failed it is not asked again for a moment, and longer each time.
"""

from collections.abc import Iterable

import msgspec

from registry.capabilities import in_order
from registry.catalog.members import MemberRow, SyncPoint
from registry.cluster.membership.events import MembershipListener
from registry.cluster.placement.rendezvous import Candidate
from registry.cluster.rpc.messages import Heartbeat
from registry.event_loop.now import now_s
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.members")

HEARTBEAT_S = 2.0
PRESUMED_DEAD_S = 3 * HEARTBEAT_S + 0.5
SILENT_S = 1.5 * HEARTBEAT_S
"""Seconds without a heartbeat on the bus after which a member is sent a request. The answer can arrive, an interval and
a request later, before the member would be presumed dead."""
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 4.0  # less than a round of catching up, so that a member that is back is found in the next one
PROMPT_S = 0.25
MAX_MEMBERS = 1000
AWAY_S = 600.0
MEMBER_RESTART_S = 10.0
"""Seconds that a restart may take. A member that does not answer for longer is taken for gone."""


class Member:
    """One other instance.

    A record with an attribute for each thing that is known of it: what it has announced, when it was heard, how it
    answers.
    """

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.beat = Heartbeat("", "", "", "", 0, 0, 0, b"", {})
        self.site_name = ""
        """Its site by its own name, which its bus listens to. `beat.site` is this instance's name for it."""
        self.sequence = 0
        self.heard_at: float | None = None
        """Loop time of its last heartbeat that counts; None until it has answered a request."""
        self.on_bus_at: float | None = None
        """Loop time of its last heartbeat on the bus that counts."""
        self.is_new = False
        """True when its last heartbeat was the first one of an incarnation, or the first one after a silence."""
        self.applied = Progress()
        self.sync_point: SyncPoint | None = None
        """Its commit number up to which we have everything, for one of its starts."""
        self.pending_since: list[float] = []
        """Loop times of the requests that it has not answered yet."""
        self.claimed_at: float | None = None
        """Loop time of its last heartbeat that was no proof of life."""
        self.proven_incarnation = 0
        """The incarnation that has answered a request: heartbeats on the bus keep that one live, and no other."""
        self.answers_in_s = 0.0
        """Seconds that it takes to answer a short request, smoothed."""
        self._backoff_s = 0.0
        self._avoid_until = 0.0
        self.failing_since: float | None = None
        """Loop time since which requests have got no answer; None while they get answers."""
        self.last_failure = ""
        """The reason why the last request without an answer got none."""
        self.seen_ms: int | None = None
        """Latest wall clock, in ms, at which an earlier incarnation is known to have heard it; None without one."""

    @property
    def shown(self) -> str:
        """Its name and its id, as people read them."""
        return f"{self.beat.name} ({self.instance})" if self.beat.name else f"instance {self.instance}"

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The capabilities that its last heartbeat names, in order, those that are unknown here included."""
        return in_order(self.beat.capabilities)

    @property
    def silent_s(self) -> float | None:
        """Seconds since its last heartbeat; None while it is known from the disk only."""
        return now_s() - self.heard_at if self.heard_at is not None else None

    @property
    def live(self) -> bool:
        return self.heard_at is not None and now_s() - self.heard_at < PRESUMED_DEAD_S

    @property
    def reachable(self) -> bool:
        """Return whether a request to the member is worth waiting for."""
        return self.live and now_s() >= self._avoid_until

    @property
    def prompt(self) -> bool:
        """True while it can be expected to answer at once: it answered the last request, and none waits for long."""
        return self.live and not self.suspect and all(now_s() - sent_at < PROMPT_S for sent_at in self.pending_since)

    @property
    def suspect(self) -> bool:
        """True after a request without an answer. Callers that cannot wait do not ask it until it answers again."""
        return self._backoff_s > 0

    def touch(self) -> None:
        """Note an authentic request of the member, which proves that it is alive."""
        self.heard_at = now_s()

    def answered(self) -> None:
        """Note that a request got an answer."""
        self.give_chance()

    def give_chance(self) -> None:
        """Forget that requests got no answer."""
        self._backoff_s = self._avoid_until = 0.0
        self.failing_since = None

    def failed(self, why: str = "") -> None:
        """Note that a request got no answer."""
        self.last_failure = why
        if self.failing_since is None:
            self.failing_since = now_s()
        self._backoff_s = min(self._backoff_s * 2 or FIRST_BACKOFF_S, MAX_BACKOFF_S)
        self._avoid_until = now_s() + self._backoff_s

    @property
    def may_be_restarting(self) -> bool:
        """Return whether requests to the member have failed for a moment only."""
        return self.failing_since is not None and now_s() - self.failing_since < MEMBER_RESTART_S

    def advance_sync_point(self, sync_point: SyncPoint) -> None:
        """We have everything up to a commit of one of its starts."""
        self.sync_point = max(self.sync_point or sync_point, sync_point)

    @property
    def applied_of_incarnation(self) -> tuple[int, int]:
        """Its incarnation, and the number up to which every change of it is applied here."""
        return self.beat.incarnation, self.applied.contiguous_seq(self.beat.incarnation)

    @property
    def missing_changes(self) -> int:
        """Return how many changes the member has published that have not been applied here."""
        return max(self.beat.published_seq - self.applied.contiguous_seq(self.beat.incarnation), 0)

    @property
    def ahead(self) -> bool:
        """Return whether the member has published changes that have not been applied here."""
        return self.missing_changes > 0


class Progress:
    """The changes of another instance's current incarnation that are applied here."""

    def __init__(self) -> None:
        self.incarnation = 0
        self._contiguous_seq = 0
        self._out_of_order: set[int] = set()

    def contiguous_seq(self, incarnation: int) -> int:
        """Return the number up to which all changes of an incarnation are applied."""
        return self._contiguous_seq if incarnation == self.incarnation else 0

    def seen(self, incarnation: int, sequence: int) -> bool:
        """Return whether this change is applied already."""
        return incarnation == self.incarnation and (sequence <= self._contiguous_seq or sequence in self._out_of_order)

    def note(self, incarnation: int, sequence: int) -> None:
        """One change is applied."""
        if self._enter(incarnation):
            self._out_of_order.add(sequence)
            self._advance()

    def note_up_to(self, incarnation: int, contiguous_seq: int) -> None:
        """Everything up to a change is here, by catching up."""
        if self._enter(incarnation):
            self._contiguous_seq = max(self._contiguous_seq, contiguous_seq)
            self._out_of_order = {sequence for sequence in self._out_of_order if sequence > self._contiguous_seq}
            self._advance()

    def _enter(self, incarnation: int) -> bool:
        if incarnation > self.incarnation:
            self.incarnation, self._contiguous_seq, self._out_of_order = incarnation, 0, set()
        return incarnation == self.incarnation

    def _advance(self) -> None:
        while self._contiguous_seq + 1 in self._out_of_order:
            self._contiguous_seq += 1
            self._out_of_order.remove(self._contiguous_seq)


class Members:
    """All other instances of the cluster that were ever heard of."""

    def __init__(
        self, own_instance: str, own_site: str, listener: MembershipListener, shared_address: str = ""
    ) -> None:
        """`shared_address` is where other sites reach any instance of the own one; empty where there is none."""
        self.own_instance = own_instance
        self.own_site = own_site
        self.own_name = ""
        self._shared_address = shared_address
        self._members: dict[str, Member] = {}
        self.removed: set[str] = set()
        """Removed instances, by id."""
        self._began = now_s()
        self._listener = listener

    def load(self, rows: Iterable[MemberRow], sync_point: dict[str, SyncPoint]) -> None:
        """Add the members that the disk has."""
        for row in rows:
            member = self._members.setdefault(row.instance, Member(row.instance))
            place = (row.site, row.advertise, row.advertise_site, row.version)
            self._place(
                member,
                Heartbeat(*place, row.incarnation, 0, 0, b"", {}, name=row.name, capabilities=row.capabilities.split()),
            )
            member.sequence = row.sequence
            member.sync_point = sync_point.get(row.instance)
            member.seen_ms = row.seen_ms

    def receive_heartbeat(self, instance: str, beat: Heartbeat, sequence: int, on_bus: bool) -> Member | None:
        """Take in a heartbeat: one from the bus, or one that a request carried, which proves that the member is alive.
        Return None for a heartbeat that is older than what is known, or our own."""
        if instance in self.removed:
            self._listener.removed_member_returned(instance, beat)
            return None
        if instance == self.own_instance or (instance not in self._members and len(self._members) >= MAX_MEMBERS):
            return None
        member = self._members.setdefault(instance, Member(instance))
        if beat.incarnation < member.beat.incarnation:
            self._listener.stale_incarnation(member, beat)
            return None
        if beat.incarnation == member.beat.incarnation and sequence <= member.sequence:
            return None
        begins = not member.live or beat.incarnation != member.proven_incarnation
        self._place(member, beat)
        member.sequence = sequence
        if on_bus and begins:
            member.claimed_at = now_s()
            self._listener.unproven(member)
            return member
        if on_bus:
            member.on_bus_at = now_s()
        if begins:
            member.give_chance()
        member.is_new, member.proven_incarnation, member.heard_at = begins, beat.incarnation, now_s()
        self._listener.heard(member)
        return member

    def _place(self, member: Member, beat: Heartbeat) -> None:
        """Take a member's heartbeat for the present one. Instances behind one shared address are one site, whatever
        each of them calls it: while a site is renamed by one restart after the other, clients reach both names."""
        is_renamed = self._shared_address and beat.advertise_site == self._shared_address and beat.site != self.own_site
        if is_renamed and member.site_name != beat.site:
            log.warning(
                LogEvent.SITE_NAME_MISMATCHED,
                "%(instance)s calls its site %(site)r, and this one is called %(own_site)r: "
                "with the same --advertise-site they are one site",
                instance=member.instance,
                site=beat.site,
                own_site=self.own_site,
            )
        member.site_name = beat.site
        member.beat = msgspec.structs.replace(beat, site=self.own_site) if is_renamed else beat

    def remove(self, instances: Iterable[str]) -> None:
        """Remove instances, for good."""
        self.removed |= set(instances)
        for instance in instances:
            self._members.pop(instance, None)

    @property
    def own(self) -> Candidate:
        return Candidate(self.own_instance, self.own_site)

    def get(self, instance: str) -> Member | None:
        return self._members.get(instance)

    def name_of(self, instance: str | None) -> str:
        """Return the name of an instance; empty where it has none or is unknown."""
        if instance == self.own_instance:
            return self.own_name
        member = self._members.get(instance or "")
        return member.beat.name if member is not None else ""

    def all(self) -> list[Member]:
        return [self._members[instance] for instance in sorted(self._members)]

    def live(self) -> list[Member]:
        return [member for member in self.all() if member.live]

    def reachable(self) -> list[Member]:
        """Members worth asking, those of the own site first."""
        return sorted((m for m in self.all() if m.reachable), key=lambda m: m.beat.site != self.own_site)

    def may_recover(self) -> bool:
        """Return whether a member that does not answer now may answer soon: it may be restarting, or this instance has
        just started and has not heard yet from every member on its disk."""
        starting = now_s() - self._began < MEMBER_RESTART_S
        return any(m.may_be_restarting or (starting and m.heard_at is None) for m in self._members.values())

    def on_bus(self) -> list[Member]:
        """Live members whose heartbeats come on the bus."""
        return [m for m in self.live() if m.on_bus_at is not None and now_s() - m.on_bus_at < SILENT_S]

    def has_unproven_at_own_site(self) -> bool:
        """Return whether heartbeats on the bus name a member of the own site that has not proved that it is alive."""
        return any(
            member.beat.site == self.own_site
            and member.claimed_at is not None
            and now_s() - member.claimed_at < PRESUMED_DEAD_S
            for member in self._members.values()
        )

    def of_own_site(self) -> list[Member]:
        return [member for member in self.live() if member.beat.site == self.own_site]

    def replica_candidates(self) -> list[Candidate]:
        """Return the other members that content is assigned to: all but proxy instances and members long away."""
        return [
            Candidate(member.instance, member.beat.site)
            for member in self.all()
            if not member.beat.proxy and now_s() - (member.heard_at or self._began) < AWAY_S
        ]

    def url(self, member: Member) -> str:
        """Return the URL of a member: its own inside the site, that of its site from elsewhere if there is one."""
        return self.url_of(member.beat)

    def url_of(self, beat: Heartbeat) -> str:
        if beat.site != self.own_site and beat.advertise_site:
            return beat.advertise_site
        return beat.advertise
