"""The write concern of a push: waiting until enough holders have it before the push is acknowledged.

The instance that was pushed to asks others to replicate the manifest and everything it refers to. It asks the replica
candidates first, and others in place of those that do not answer or are slow (a sloppy quorum; DeCandia et al.,
"Dynamo", 2007). A holder counts once it has committed the facts and has all content, verified and durable. Where the
manifest was deleted meanwhile, a holder counts once it has applied both the push and the delete: nothing is left to
hold. Replication begins when each upload ends, so there is mostly nothing left to copy. A push that does not reach its
write concern in time stays visible, and the answer is an error that says how many holders it has.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import NamedTuple

from crdt.change import Change
from crdt.delta import own_span
from crdt.fact import BLOB, MANIFEST
from registry.catalog.manifest_walk import ManifestWalk
from registry.catalog.queries import Queries, document_name
from registry.cluster.membership.members import Member, Members
from registry.cluster.placement.rendezvous import Candidate, ranked
from registry.cluster.placement.replicator import Replicator
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.replication.manifest_bodies import ManifestBodies
from registry.cluster.rpc.client import PeerClient
from registry.cluster.rpc.messages import ReplicateBlobResponse, ReplicateManifestRequest, ReplicateManifestResponse
from registry.cluster.transfer.transfer import TransferFailed, Transfers
from registry.errors import ContentUnreachable, StorageFailed, WriteConcernTimeout
from registry.event_loop.now import now_s
from registry.oci.manifest import MAX_PARTS
from registry.oci.names import Digest, Repository, parse_digest, parse_repository
from registry.ports import PeerUnreachable
from registry.settings.policy import LOCAL, Policy, Rule
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.write_concern")

MAX_REASON = 500
LONG_POLL_S = 4.0
"""A request for a replica is answered within this time, and then repeated. It is shorter than proxies wait for a
response."""
REQUEST_TIMEOUT_S = LONG_POLL_S + 2.0
HEDGE_AFTER_S = 5.0
"""Time without a replica after which other candidates are asked, too."""
RETRY_INTERVAL_S = 0.2
AT_ONCE = 4


class Group(NamedTuple):
    """A number of holders that is needed, and the candidates. These are computed anew each time, since a member that
    joins while a push waits may be the one that is needed."""

    needed: int
    candidates: Callable[[], list[Candidate]]


Place = tuple[str, str]
"""A site and an address in it. It identifies an instance even where that takes another id meanwhile."""


class WriteConcern:
    """The write concerns of pushes at this instance, and this instance as a holder for others."""

    def __init__(
        self,
        policy: Policy,
        keeps: bool,
        queries: Queries,
        members: Members,
        peers: PeerClient,
        anti_entropy: AntiEntropy,
        bodies: ManifestBodies,
        transfers: Transfers,
        replicator: Replicator,
        timeout_s: float,
    ) -> None:
        self._policy = policy
        self._keeps = keeps
        self._queries = queries
        self._members = members
        self._peers = peers
        self._anti_entropy = anti_entropy
        self._bodies = bodies
        self._transfers = transfers
        self._replicator = replicator
        self._timeout_s = timeout_s

    def stop(self) -> None:
        """Stop being a holder: this instance is being decommissioned."""
        self._keeps = False

    # Asking

    async def wait(self, repository: Repository, digest: Digest, push: Change) -> None:
        """Return once enough instances hold a push: its manifest and everything the manifest refers to.

        Raises WriteConcernTimeout when time is up."""
        rule = self._policy.of(repository)
        if str(rule.acknowledge) == LOCAL:
            return
        sites = self._sites(rule, self._others(digest))
        groups = self._groups(rule, sites, repository, digest)
        if not groups:
            return
        reached: list[Candidate] = [self._own] if self._keeps else []
        first, length = own_span(push.delta)
        request = ReplicateManifestRequest(repository, digest, push.writer, first + length)
        tasks = [asyncio.create_task(self._reach(group, request, reached)) for group in groups]
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*tasks)
        except TimeoutError:
            raise self._timed_out(rule, sites, reached) from None
        finally:
            for task in tasks:
                task.cancel()
        log.debug(
            LogEvent.WRITE_CONCERN_REACHED,
            "%(holders)d instances hold %(digest)s of %(repository)s",
            holders=len(reached),
            digest=digest,
            repository=repository,
        )

    def _sites(self, rule: Rule, others: list[Candidate]) -> list[str]:
        """Return the sites that `each-site` means: those that the policy names, else all there are."""
        known = [one.site for one in ([self._own] if self._keeps else []) + others]
        return list(dict.fromkeys([site for site, _ in rule.copies.sites] or known))

    def _groups(self, rule: Rule, sites: list[str], repository: Repository, digest: Digest) -> list[Group]:
        own = 1 if self._keeps else 0
        if rule.acknowledge.each_site:
            return [
                Group(1, partial(self._others, digest, site)) for site in sites if not (own and site == self._own.site)
            ]
        needed = rule.acknowledge.number - own
        return [Group(needed, partial(self._in_order, repository, digest))] if needed > 0 else []

    def _others(self, digest: Digest, site: str | None = None) -> list[Candidate]:
        """Return all other candidates, or those of a site, the highest rank first."""
        order = ranked(digest, self._replicator.candidates())
        return [one for one in order if one != self._own and site in (None, one.site)]

    def _in_order(self, repository: Repository, digest: Digest) -> list[Candidate]:
        """Return all other candidates, those first that the policy assigns the content to."""
        first = [one for one in self._replicator.designated(repository, digest) if one != self._own]
        return first + [one for one in self._others(digest) if one not in first]

    async def _reach(self, group: Group, request: ReplicateManifestRequest, reached: list[Candidate]) -> None:
        """Ask as many candidates as needed, and one more whenever they take long, until enough hold the push."""
        asking: dict[asyncio.Task[Place | None], Candidate] = {}
        failed_at: dict[Candidate, float] = {}
        held_at: set[Place] = set()
        extra = 0
        try:
            while missing := group.needed - len(held_at):
                for one in self._next(group, set(asking.values()), failed_at, held_at)[: missing + extra - len(asking)]:
                    asking[asyncio.create_task(self._ask(one, request))] = one
                done, _ = await asyncio.wait(asking, timeout=HEDGE_AFTER_S) if asking else (await _a_moment(), None)
                extra += not done
                for task in done:
                    one, place = asking.pop(task), task.result()
                    if place is None:
                        failed_at[one] = now_s()
                    elif place not in held_at and len(held_at) < group.needed:
                        held_at.add(place)
                        reached.append(one)
        finally:
            for task in asking:
                task.cancel()

    def _next(
        self, group: Group, asking: set[Candidate], failed_at: dict[Candidate, float], held_at: set[Place]
    ) -> list[Candidate]:
        """Return the candidates to ask: reachable ones in order; those that failed come last, after a pause."""
        free = []
        for one in group.candidates():
            member = self._members.get(one.instance)
            if member is None or one in asking or _place(member) in held_at:
                continue
            if member.reachable and now_s() - failed_at.get(one, -HEDGE_AFTER_S) >= RETRY_INTERVAL_S:
                free.append(one)
        return sorted(free, key=lambda one: failed_at.get(one, 0.0))

    async def _ask(self, one: Candidate, request: ReplicateManifestRequest) -> Place | None:
        """Ask a candidate until it holds everything. Return its place; None when it does not answer, or cannot."""
        member = self._members.get(one.instance)
        if member is None:
            return None  # it was forgotten a moment ago
        place = _place(member)
        lacking: int | None = None
        while True:
            try:
                answer = await self._peers.ask(
                    member, "/replicate-manifest", request, ReplicateManifestResponse, REQUEST_TIMEOUT_S
                )
            except PeerUnreachable:
                return None
            if answer.held or not answer.missing or answer.missing == lacking:
                return place if answer.held else None
            lacking = answer.missing

    def _timed_out(self, rule: Rule, sites: list[str], reached: list[Candidate]) -> WriteConcernTimeout:
        detail: dict[str, object] = {"acknowledge": str(rule.acknowledge)}
        if rule.acknowledge.each_site:
            at = {one.site for one in reached}
            without = [site for site in sites if site not in at]
            count, wanted, what = len(sites) - len(without), len(sites), "sites have"
            detail["sites_without"] = ", ".join(without)
        else:
            count, wanted, what = len(reached), rule.acknowledge.number, "instances hold"
        detail |= {"acknowledged": count, "required": wanted}
        name_of = self._members.name_of
        detail["holders"] = [
            {"instance": one.instance, "name": name_of(one.instance), "site": one.site} for one in reached
        ]
        return WriteConcernTimeout(
            f"the push is here and visible, but only {count} of the {wanted} {what} it that its policy asks for "
            f"({rule.acknowledge}); the same push waits again",
            detail,
        )

    @property
    def _own(self) -> Candidate:
        return self._members.own

    # Answering

    async def replicate_blob(self, digest: Digest, size: int, asker: str) -> ReplicateBlobResponse:
        """Replicate one content here. Return within LONG_POLL_S; a transfer that has begun goes on."""
        if not self._keeps:
            return ReplicateBlobResponse(False, reason="it keeps no copies: it is a proxy instance, or leaves too")
        try:
            async with asyncio.timeout(LONG_POLL_S):
                if not self._queries.is_held(digest):
                    await self._transfers.ensure_held(digest, size, asker)
            return ReplicateBlobResponse(True)
        except TimeoutError:
            return ReplicateBlobResponse(False, True)
        except (ContentUnreachable, TransferFailed, StorageFailed) as error:
            return ReplicateBlobResponse(False, reason=str(error)[:MAX_REASON])

    async def replicate_manifest(
        self, request: ReplicateManifestRequest, asker: Member | None
    ) -> ReplicateManifestResponse:
        """Replicate all that a manifest refers to. Return what is missing within LONG_POLL_S; transfers go on."""
        if not self._keeps:
            return ReplicateManifestResponse(False)
        repository, digest = parse_repository(request.repository), parse_digest(request.digest)
        if not self._queries.refers_to(repository, digest) and asker is not None:
            await self._anti_entropy.pull_document(document_name(repository), [asker])
        has_seen = request.clock > 0 and self._queries.has_seen(repository, request.writer, request.clock)
        if not self._queries.refers_to(repository, digest):
            return ReplicateManifestResponse(has_seen)  # seen first, and not there after that: it was deleted
        try:
            async with asyncio.timeout(LONG_POLL_S):
                lacking = [part async for part in self._lacking(repository, digest)]
                for at in range(0, len(lacking), AT_ONCE):
                    await asyncio.gather(*(self._take(repository, part) for part in lacking[at : at + AT_ONCE]))
        except TimeoutError:
            pass
        except (ContentUnreachable, TransferFailed, StorageFailed):
            return ReplicateManifestResponse(False)
        left = [part async for part in self._lacking(repository, digest)]
        return ReplicateManifestResponse(not left, len(left))

    async def _lacking(self, repository: Repository, digest: Digest) -> AsyncIterator[Digest]:
        """Yield what a manifest refers to, over all levels, and is missing here: linked blobs without content, and
        manifests whose bodies cannot be fetched."""
        seen, walk = {digest}, ManifestWalk([digest], self._queries.parts_of)
        for current in walk:
            if len(seen) > MAX_PARTS:
                return
            if not self._queries.refers_to(repository, current):
                continue  # a part that was never pushed, which a sparse registry allows
            if not self._queries.has_body(current):
                await self._bodies.fetch(current)
            if not self._queries.has_body(current):
                yield current
                continue
            for kind, part, _ in walk.parts(current):
                if walk.may_pause:
                    await asyncio.sleep(0)
                if part in seen:
                    continue
                seen.add(part)
                blob = self._queries.blob(repository, part) if kind == BLOB else None
                if blob is not None and not blob.held:
                    yield part
                elif kind == MANIFEST:
                    walk.descend(part)

    async def _take(self, repository: Repository, digest: Digest) -> None:
        row = self._queries.blob(repository, digest)
        if row is not None and not row.held:
            await self._transfers.ensure_held(digest, row.size, self._queries.instance_of(row.writer))


def _place(member: Member) -> Place:
    return member.beat.site, member.beat.advertise


async def _a_moment() -> set[asyncio.Task[Place | None]]:
    await asyncio.sleep(RETRY_INTERVAL_S)
    return set()
