"""The request observer: records what clients ask and are answered, and has the checkers judge each answer.

An answer is looked at twice: as it leaves its instance, when the site must already show an acknowledged write, and as
it arrives at the client.
"""

from collections import Counter
from collections.abc import Callable

from starlette.types import Scope

from simulations.checkers import answers, pushes, stamps, visibility
from simulations.checkers.deletes import DELETES
from simulations.checkers.suite import Checkers
from simulations.cluster import SimulatedCluster
from simulations.commit_observer import CommitObserver
from simulations.disturbances import Disturbances
from simulations.evictions import REFUSED
from simulations.faults import BODY_BROKEN, BUS_KINDS
from simulations.history import Operation
from simulations.node import Node
from simulations.plan import Plan
from simulations.process import ProcessDied, outside_processes
from simulations.process_group import OnStatus
from simulations.reachability import Reachability
from simulations.violations import Violations
from simulations.workload.client import Answer
from simulations.workload.long_upload import may_be_lost

WRITES = ("push", "push by digest", "upload", "mount", *DELETES)
ANSWERED_AT_ANY_TIME = ("access", "collect", "begin upload", "chunk")
"""Requests whose answers tell nothing of documents: of operators, and for bytes of uploads, which a worker takes also
while a new primary catches up."""


class RequestObserver:
    """Observes the requests of all clients of a run."""

    def __init__(
        self,
        plan: Plan,
        cluster: SimulatedCluster,
        checkers: Checkers,
        commits: CommitObserver,
        disturbances: Disturbances,
        reachability: Reachability,
        violations: Violations,
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._checkers = checkers
        self._commits = commits
        self._disturbances = disturbances
        self._reachability = reachability
        self._violations = violations
        self.count: Counter[str] = Counter()
        """Requests by kind and status."""
        self.on_write_answer: list[Callable[[Node, Operation], None]] = []
        """Called with the node as its answer to a client's write leaves."""
        self._latest: dict[str, Operation] = {}
        cluster.network.on_answer = self._answer_leaves
        if "access" in plan.conditions:
            cluster.on_request = self._reaches_process
            cluster.on_commit.append(checkers.admissions.note)

    def latest(self, client: str) -> Operation:
        """Return the last request of a client."""
        return self._latest[client]

    def begin(
        self, client: str, kind: str, node: Node, repository: str, reference: str = "", digest: str = ""
    ) -> Operation:
        """Record a request as its client sends it."""
        checkers = self._checkers
        operation = checkers.history.begin(kind, node.name, repository, self._cluster.loop.now, reference, digest)
        self._latest[client] = operation
        self._commits.observe(node)
        if kind == "pull manifest":
            checkers.misses.begin(operation, self._reachability.informants(node))
        elif kind in DELETES:
            checkers.deletes.begin(operation, [node.name, *self._reachability.asked_at_once(node)])
        is_ready = node.instance is not None and node.started and node.instance.ready
        checkers.read_your_writes.begin(operation, node.site, is_ready)
        self._cluster.trace("ask", kind, node.name, repository, reference)
        return operation

    def end(self, operation: Operation, answer: Answer | None) -> None:
        """Check an answer as it arrives at the client, or that none is to come."""
        checkers, check = self._checkers, self._violations.check
        operation.ended_s = self._cluster.loop.now
        self._cluster.trace("answer", operation.kind, operation.status)
        self.count[f"{operation.kind} {operation.status or 'none'}"] += 1
        if (operation.status or 0) >= 400 and answer is not None:
            operation.said = answer.body.decode(errors="replace")
        (node,) = (node for node in [*self._cluster.nodes, *self._cluster.gone] if node.name == operation.node)
        self._commits.observe(node)
        if answer is not None:
            shown = answer.headers.get("docker-content-digest", "") if operation.status == 200 else ""
            check(checkers.read_your_writes.end, operation, shown)
        if operation.status is None:
            if self._disturbances.calm:
                self._violations.report(f"{operation} in calm weather")
            return
        self._check_status(operation, answer)
        if operation.kind == "pull manifest":
            check(checkers.misses.check, operation, self._reachability.informants(node))
        if operation.kind in DELETES:
            check(checkers.deletes.check, operation)
        if operation.status == 200 and answer is not None:
            self._check_content(operation, answer)
        if operation.kind in WRITES and operation.acknowledged:
            self._check_write(operation)
        if operation.kind == "access":
            committed = [one for one in self._commits.committed_for(operation) if one.node.name == operation.node]
            check(checkers.access.check_answer, operation, [fact for one in committed for fact in one.said.values()])
        is_refused = operation.kind in ("push", "push by digest") and operation.status == 404
        if is_refused and self._disturbances.requests_get_through:
            check(pushes.check_refusal, operation, checkers.history.operations, checkers.lost)

    def _check_status(self, operation: Operation, answer: Answer | None) -> None:
        lost, calm = self._checkers.lost, self._disturbances.calm
        # A transfer that breaks off in its middle goes on: that is no ground for giving up, or for cutting off.
        steady = self._disturbances.is_calm_but_for(BUS_KINDS | {BODY_BROKEN}) if _is_blob_pull(operation) else calm
        has_room = "evict" not in self._plan.conditions or REFUSED not in operation.said
        self._violations.check(answers.check_status, operation, steady and has_room, lost)
        may_be_gone = operation.kind.startswith("slow") and may_be_lost(self._plan)
        if has_room and self._disturbances.requests_get_through and not may_be_gone:
            self._violations.check(answers.check_upload, operation, lost)
        # No manifest names a blob of which ranges are pulled: it may be collected in the middle of an answer.
        may_be_collected = operation.kind == "pull range" and "collect" in self._plan.conditions
        if answer is None and steady and not lost.concerns(operation) and not may_be_collected:
            self._violations.report(f"{operation} was cut off")

    def _check_content(self, operation: Operation, answer: Answer) -> None:
        if _is_blob_pull(operation):
            self._violations.check(answers.check_body, operation.digest, answer.body)
        if operation.kind == "pull manifest":
            digest = answer.headers.get("docker-content-digest", "")
            self._violations.check(answers.check_body, digest, answer.body)
            self._violations.check(self._checkers.winners.check, operation, digest)

    def _check_write(self, operation: Operation) -> None:
        facts = self._commits.facts_for(operation)
        self._violations.check(self._checkers.acknowledged.check_answer, operation, facts)
        if operation.kind in ("push", "push by digest"):
            committed = self._commits.committed_for(operation)
            self._violations.check(pushes.check_push, operation, committed)
            self._violations.check(stamps.check_stamp, operation, committed)

    def _reaches_process(self, node: Node, scope: Scope) -> OnStatus | None:
        """Have it judged whether a request is let in, as its answer begins."""
        judge = self._checkers.admissions.begin(node, scope)
        if judge is None:
            return None
        return lambda status: outside_processes(lambda: self._violations.check(judge, status))

    # As an answer leaves

    def _answer_leaves(self, source: str, place: str, status: int) -> None:
        operation, nodes = self._latest.get(source), self._cluster.nodes
        says_nothing = status in answers.REFUSALS or status >= 500  # of a worker, as its primary dies
        if operation is not None and operation.kind not in ANSWERED_AT_ANY_TIME and not says_nothing:
            for node in nodes:
                if node.name == place:
                    self._violations.check(self._checkers.readiness.answered, node)
        if operation is None or status not in (201, 202) or operation.kind not in WRITES:
            return
        if self._disturbances.calm:
            operation.status = status
            self._check_site(operation, place)
        for node in nodes:
            if node.name == place:
                for call in list(self.on_write_answer):
                    call(node, operation)
                if not node.alive:
                    raise ProcessDied(place)

    def _check_site(self, operation: Operation, place: str) -> None:
        """Check that the other instances of a site show a write whose answer leaves, in calm weather."""
        nodes, committed = self._cluster.nodes, self._commits.committed_for(operation)
        # Another instance of the site may own an upload.
        own = [one for one in committed if operation.kind == "upload" or one.node.name == place]
        given_up = {name for one in own for name in self._commits.given_up(one)}
        if operation.kind in DELETES:
            behind = self._commits.behind(operation, place) | given_up
            self._violations.check(self._checkers.deletes.check_site, operation, nodes, behind)
        else:
            facts = {identity: fact for one in own for identity, fact in one.said.items()}
            judged = [node for node in nodes if node.name not in given_up - {operation.node}]
            self._violations.check(visibility.check_site, operation, judged, self._checkers.history, facts)


def _is_blob_pull(operation: Operation) -> bool:
    return operation.kind in ("pull blob", "pull range")
