"""Anti-entropy: comparing documents with other members and exchanging what differs.

A round runs every five seconds, with every member that is known to have published more than this instance has, and in
turn with up to four of the others whose state digest differs. It exchanges what changed at the member since the sync
point, or walks both tries where there is none, as with a member that is new or has started anew. What gossip could not
deliver is requested at once (`diff_requests`). And before a miss is answered, or a delete is made, members are asked
what they know more of one document, all at once and within a short bound.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Generator, Iterable
from typing import Any

from crdt.catchup import (
    Apply,
    AskChanges,
    AskDiffs,
    AskFingerprints,
    AskNames,
    AskSummaries,
    Diff,
    Pause,
    Report,
    Send,
    Step,
    catch_up,
)
from crdt.errors import CrdtError, Malformed
from crdt.revisions import Revision, decode_revisions, encode_revisions
from crdt.vector import Vector, decode_vector, encode_vector
from registry.access import facts as access
from registry.catalog.access import RightsBehind, drop_marks
from registry.catalog.catalog import Catalog
from registry.catalog.documents import MissingDependencies
from registry.catalog.incoming import Incoming, decode_aside, note_writers
from registry.catalog.members import SyncPoint, save_sync_point
from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.document_advances import DocumentAdvances
from registry.cluster.replication.read_repair import ReadRepair
from registry.cluster.rpc import messages as m
from registry.cluster.rpc.client import PeerClient
from registry.cluster.transfer.locator import MISS_BOUND_S
from registry.errors import StorageFailed
from registry.event_loop.now import now_s
from registry.ports import PeerUnreachable
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.units import KIB

log = EventLog("concord.sync")

ROUND_INTERVAL_S = 5.0
MEMBERS_A_ROUND = 4
AUDIT_INTERVAL_S = 60.0
FRAME_DELIVERY_S = 0.3
SLOW_ANSWER_S = 2.0
APPLIED_AT_ONCE_BYTES = 32 * KIB
"""Diffs that share a commit; while they are applied, everything else waits."""


class AntiEntropy:
    """The anti-entropy of one instance: its rounds, and the diffs it requests at once."""

    def __init__(self, catalog: Catalog, peers: PeerClient, members: Members, advances: DocumentAdvances) -> None:
        self._catalog = catalog
        self._peers = peers
        self._members = members
        self._advances = advances
        self._running: dict[str, asyncio.Task[bool]] = {}
        self._bootstrap: asyncio.Task[bool] | None = None
        """The first round of an empty instance, which takes in everything from one member."""
        self._round = 0
        self._asking: dict[tuple[str, str], asyncio.Task[bool]] = {}
        self.read_repair = ReadRepair(self._learn)
        self._audited: dict[str, float] = {}
        self.rounds: Counter[str] = Counter()
        """Number of rounds, by their result."""

    async def run(self) -> None:
        """Catch up with members whose state differs, for ever.

        Each round is with all members that are known to have published more, and with a few of the others in turn:
        under load the state of every member differs, and in a large cluster no instance can ask all of them.
        """
        while True:
            for member in self._of_this_round():
                self.catch_up_soon(member)
            await self._end_waiting_for_rights()
            await asyncio.sleep(ROUND_INTERVAL_S)

    def _of_this_round(self) -> list[Member]:
        ahead, differing = [], []
        for member in self._members.reachable():
            if member.ahead:
                ahead.append(member)
            elif self.differs(member):
                differing.append(member)
            elif member.beat.root == self._catalog.replica.root():
                self._note_sync_point(member, member.beat.commit, member.beat.published_seq, member.beat.incarnation)
        self._round += MEMBERS_A_ROUND
        first = self._round % len(differing) if differing else 0
        return ahead + (differing[first:] + differing[:first])[:MEMBERS_A_ROUND]

    async def _end_waiting_for_rights(self) -> None:
        """Go by the facts of access control that are here, once a member has the same ones and all else alike."""
        root, committed = self._catalog.replica.root(), self._catalog.access
        if (committed.is_awaited or committed.is_restored) and any(
            member.beat.root == root for member in self._members.reachable()
        ):
            await self._catalog.database.write(drop_marks)

    def differs(self, member: Member) -> bool:
        """Return whether to start a round with a member that has published nothing that is missing here."""
        return not member.beat.joining and member.beat.root != self._catalog.replica.root()

    @property
    def is_bootstrapping(self) -> bool:
        return self._bootstrap is not None and not self._bootstrap.done()

    def close(self) -> None:
        for task in [*self._running.values(), *self._asking.values()]:
            task.cancel()
        self.read_repair.close()

    # With one member

    def catch_up_soon(self, member: Member) -> "asyncio.Task[bool]":
        """Catch up with a member, unless that is under way. The result of the task is True if it succeeded."""
        if self._bootstrap is not None and self.is_bootstrapping:
            return self._bootstrap  # fetching the same from a second member would be wasted
        running = self._running.get(member.instance)
        if running is None or running.done():
            running = self._running[member.instance] = asyncio.create_task(self._catch_up(member))
            if not self._catalog.replica.commit_number() and not member.beat.joining:
                self._bootstrap = running
        return running

    async def catch_up_to_now(self, member: Member) -> bool:
        """Take in everything that a member has committed by now. Return whether that succeeded."""
        running = self._running.get(member.instance)
        if running is not None and not running.done():
            await asyncio.wait([running])  # it may have read before now
        return await self.catch_up_soon(member)

    async def merkle_diff(self, member: Member) -> bool:
        """Compare everything with a member, regardless of its sync point, and exchange what differs, in both
        directions. Return whether that succeeded."""
        try:
            await self.drive(member, catch_up(self._catalog.replica, None))
        except (PeerUnreachable, CrdtError, StorageFailed) as error:
            log.warning(
                LogEvent.MERKLE_DIFF_FAILED,
                "comparing everything with %(member)s failed: %(error)s",
                member=member.shown,
                error=error,
            )
            return False
        return True

    async def _catch_up(self, member: Member) -> bool:
        # Success covers what the member had committed and published before it began, whatever it adds meanwhile.
        incarnation, commit, changes = member.beat.incarnation, member.beat.commit, member.beat.published_seq
        remembered = (
            member.sync_point.commit_number
            if member.sync_point and member.sync_point.incarnation == incarnation
            else None
        )
        if remembered is None and not self._catalog.replica.commit_number():
            remembered = 0  # an empty replica lacks everything: listing it is cheaper than searching for differences
        try:
            report = await self.drive(member, catch_up(self._catalog.replica, remembered))
            if remembered is not None and not report.exchanged and self._audit_is_due(member):
                log.debug(LogEvent.AUDIT_STARTED, "comparing everything with %(member)s", member=member.shown)
                report = await self.drive(member, catch_up(self._catalog.replica, None))
            await self.merge_fork(member, report.forked)
            if member.beat.incarnation != incarnation:
                # A clone may have answered, which lacks changes that this member has published.
                raise PeerUnreachable("it has begun anew meanwhile")
            self._note_sync_point(member, report.commit or commit, changes, incarnation)
            await self._save_sync_point(member)
        except (PeerUnreachable, CrdtError, StorageFailed) as error:
            self.rounds["failed"] += 1
            # `watch` logs that a member does not answer, and once.
            level = logging.INFO if isinstance(error, PeerUnreachable) else logging.WARNING
            log.log(
                level,
                LogEvent.ANTI_ENTROPY_FAILED,
                "catching up with %(member)s failed: %(error)s",
                member=member.shown,
                error=error,
            )
            return False
        self.rounds["done"] += 1
        return True

    def _audit_is_due(self, member: Member) -> bool:
        """Return whether a Merkle diff with a member is due, whose root differs although no change since the last sync
        point explains that. Under load the roots of heartbeats always differ, so one is due once in
        `AUDIT_INTERVAL_S` only."""
        now = now_s()
        due = (
            member.beat.root != self._catalog.replica.root()
            and now > self._audited.get(member.instance, 0) + AUDIT_INTERVAL_S
        )
        if due:
            self._audited[member.instance] = now
        return due

    async def merge_fork(self, member: Member, forked: list[str]) -> None:
        """Merge documents that a writer used twice has split."""
        for document in forked:
            self.rounds["forked"] += 1
            log.error(
                LogEvent.DOCUMENT_DIVERGENCE_DETECTED,
                "%(document)s differs from %(member)s's at equal vectors: a writer was used twice",
                document=document,
                member=member.shown,
            )
            theirs = await self._peers.ask(member, "/facts", m.FactsRequest(document), m.FactsResponse, timeout_s=30.0)
            await self._catalog.heal(document, decode_vector(theirs.vector), theirs.facts)

    def _note_sync_point(self, member: Member, commit: int, changes: int, incarnation: int) -> None:
        member.advance_sync_point(SyncPoint(incarnation, commit))
        member.applied.note_up_to(incarnation, changes)

    async def _save_sync_point(self, member: Member) -> None:
        reached = member.sync_point
        assert reached is not None, "it was just noted"
        await self._catalog.database.write(lambda tx: save_sync_point(tx, member.instance, reached))

    async def drive(self, member: Member, steps: Generator[Step, Any, Report]) -> Report:
        """Carry out the steps of a protocol with a member."""
        try:
            answer = None
            while True:
                answer = await self._carry_out(member, steps.send(answer))
        except StopIteration as done:
            report: Report = done.value
            log.debug(
                LogEvent.DOCUMENTS_EXCHANGED,
                "exchanged %(documents)d documents with %(member)s, %(pages)d pages of names, %(left_out)d left out",
                documents=len(report.exchanged),
                member=member.shown,
                pages=report.pages,
                left_out=report.left_out,
            )
            return report
        finally:
            steps.close()

    async def _carry_out(self, member: Member, step: Step) -> Any:
        ask = self._peers.ask
        match step:
            case AskChanges(since):
                return (await ask(member, "/changes", m.ChangesRequest(since), m.ChangesResponse)).read()
            case AskSummaries(places):
                return (await ask(member, "/summaries", m.SummariesRequest.of(places), m.SummariesResponse)).read()
            case AskNames(keys):
                return (await ask(member, "/names", m.NamesRequest(keys), m.NamesResponse)).names
            case AskFingerprints(names):
                request = m.FingerprintsRequest(names)
                return (await ask(member, "/fingerprints", request, m.FingerprintsResponse)).fingerprints
            case AskDiffs(vectors):
                return await self._diffs(member, vectors, timeout_s=30.0)
            case Apply(updates):
                await self._apply_all(member, updates)
            case Send(updates):
                writers = self._catalog.queries.writers_of(name for name, _ in updates)
                reached = encode_revisions(self._catalog.access.reached)
                sent = m.UpdatesRequest(updates, writers, [], reached)
                await ask(member, "/updates", sent, m.UpdatesResponse, timeout_s=30.0)
            case Pause():
                await asyncio.sleep(FRAME_DELIVERY_S)
        return None

    async def _diffs(self, member: Member, vectors: list[tuple[str, Vector]], timeout_s: float) -> list[Diff]:
        request = m.DiffsRequest([(name, encode_vector(vector)) for name, vector in vectors])
        answer = await self._peers.ask(member, "/diffs", request, m.DiffsResponse, timeout_s)
        if answer.writers:
            await self._catalog.database.write(lambda tx: note_writers(tx, answer.writers))
        if any(name != access.DOCUMENT for name, _ in vectors):
            await self._reach(member, decode_revisions(answer.revisions), timeout_s)
        return [diff.read() for diff in answer.diffs]

    async def _reach(self, member: Member, revisions: list[Revision], timeout_s: float) -> None:
        """Take in the facts of access control that a member has, before its diffs of other documents. Raises
        PeerUnreachable where these facts do not come."""
        committed = self._catalog.access
        try:
            committed.require_reached(revisions)
        except RightsBehind:
            ours = self._catalog.replica.state(access.DOCUMENT).vector
            (diff,) = await self._diffs(member, [(access.DOCUMENT, ours)], timeout_s)
            if diff.update:
                await self._apply(member, access.DOCUMENT, diff.update)
            try:
                committed.require_reached(revisions)
            except RightsBehind as error:
                raise PeerUnreachable(str(error)) from None

    async def _apply_all(self, member: Member, updates: list[tuple[str, bytes]]) -> None:
        """Apply a member's diffs, some with each commit. Raises the first failure; diffs after the commit that failed
        are not applied."""
        while updates:
            size, several = 0, 0
            while several < len(updates) and size < APPLIED_AT_ONCE_BYTES:
                size += len(updates[several][1])
                several += 1
            at_once, updates = updates[:several], updates[several:]
            applying = (self._apply(member, document, update) for document, update in at_once)
            for failure in await asyncio.gather(*applying, return_exceptions=True):
                if failure is not None:
                    raise failure

    async def _apply(self, member: Member, document: str, update: bytes) -> None:
        """Apply a member's diff. Raises CrdtError for one that does not fit."""
        try:
            applied = await self._catalog.take_in(Incoming(document, update, await decode_aside(update), {}))
        except MissingDependencies:
            raise Malformed(f"{member.shown} has sent a diff of {document} that does not continue ours") from None
        if applied.fresh:
            self._advances.announce(document, applied.vector)

    # One document

    async def pull_document(self, document: str, members: Iterable[Member]) -> None:
        """Ask members, all at once, what they know more of one document, and take in what comes within a bound.

        A member that is known to be unreachable, or has not answered an earlier request yet, is not waited for.
        """
        pending = [self._asking_once(member, document) for member in members if member.prompt]
        if pending:
            await asyncio.wait(pending, timeout=MISS_BOUND_S)

    def _asking_once(self, member: Member, document: str) -> "asyncio.Task[bool]":
        key = (member.instance, document)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._learn(member, [document]))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return task

    async def _learn(self, member: Member, documents: list[str]) -> bool:
        """Take in what a member knows more of some documents. Return whether the member has answered."""
        try:
            vectors = [(document, self._catalog.replica.state(document).vector) for document in documents]
            for (document, ours), diff in zip(
                vectors, await self._diffs(member, vectors, timeout_s=SLOW_ANSWER_S), strict=True
            ):
                await self._learn_from(member, document, ours, diff, is_alone=len(documents) == 1)
            return True
        except (PeerUnreachable, CrdtError, StorageFailed, ValueError) as error:
            log.debug(
                LogEvent.READ_REPAIR_FAILED,
                "%(member)s could not be asked about %(documents)s: %(error)s",
                member=member.shown,
                documents=", ".join(documents),
                error=error,
            )
            return False

    async def _learn_from(self, member: Member, document: str, ours: Vector, diff: Diff, is_alone: bool) -> None:
        """Take in one diff of several; one that was left out, since all were too long for one answer, alone."""
        if diff.update:
            try:
                await self._apply(member, document, diff.update)
            except CrdtError as error:
                log.debug(
                    LogEvent.DIFF_REJECTED,
                    "the diff of %(document)s from %(member)s does not fit: %(error)s",
                    document=document,
                    member=member.shown,
                    error=error,
                )
        elif not is_alone and any(ours.get(writer, 0) < clock for writer, clock in diff.state.vector.items()):
            await self._learn(member, [document])
