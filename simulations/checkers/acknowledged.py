"""An acknowledged write was committed where it was acknowledged, and is there in the end unless a later operation that
saw it has replaced or deleted it."""

from simulations.checkers import Violation
from simulations.checkers.commits import Commits
from simulations.history import CommittedOperation, Fact, History, Identity, Operation
from simulations.workload.images import all_blobs


class Acknowledged:
    """Remembers the facts by which each acknowledged write can be known again."""

    def __init__(self, history: History, commits: Commits) -> None:
        self._history = history
        self._commits = commits
        self._facts: dict[tuple[str, Identity], Operation] = {}

    def check_answer(self, operation: Operation, written: dict[Identity, Fact]) -> None:
        """As an answer arrives: `written` is what instances of its site wrote in that repository since the request was
        sent."""
        if (
            operation.kind not in KEPT
            or not operation.acknowledged
            or (operation.kind, operation.status) == _NOT_MOUNTED
        ):
            return
        identities = [identity for identity, fact in written.items() if keeps(operation, fact)]
        if not identities:
            raise Violation(f"{operation} was acknowledged and never committed")
        document = f"repository/{operation.repository}"
        for identity in identities:
            if (document, identity) in self._remaining(""):
                self._facts[document, identity] = operation

    def check_end(self, document: str, live: set[Identity]) -> None:
        """In the end: what is live of a document everywhere."""
        for (name, identity), operation in self._facts.items():
            if name == document and identity not in live and (name, identity) not in self._commits.gone:
                raise Violation(f"{operation} was acknowledged, and is lost")

    def pushed(self) -> set[str]:
        """All manifests whose pushes were acknowledged, and their content, unless they were deleted or collected since:
        a push that waits for others to hold it is answered then, too."""
        live = {
            (document, fact.key)
            for seen in self._history.documents.values()
            for document, at in seen.items()
            for identity, fact in at.facts.items()
            if (document, identity) not in self._commits.gone
        }
        pushes = (o for o in self._history.operations if o.kind.startswith("push") and o.status == 201)
        kept = {o.digest for o in pushes if (f"repository/{o.repository}", ("m", o.digest)) in live}
        return {digest for manifest in kept for digest in (manifest, *all_blobs(manifest))}

    def excuse(self, node: str) -> None:
        """An instance's disk was put back to an earlier state, or destroyed: what only it had is lost."""
        kept = self._remaining(node)
        self._facts = {known: operation for known, operation in self._facts.items() if known in kept}

    def _remaining(self, without: str) -> set[tuple[str, Identity]]:
        """Return the facts that any instance but one has, or has seen deleted."""
        found = set(self._commits.gone)
        for node, seen in self._history.documents.items():
            if node != without:
                found |= {(document, identity) for document, at in seen.items() for identity in at.facts}
        return found


KEPT = ("push", "push by digest", "upload", "mount")
_NOT_MOUNTED = ("mount", 202)


def keeps(operation: Operation, fact: Fact) -> bool:
    """Return whether a fact is what an acknowledged request has promised."""
    match operation.kind:
        case "push":
            return fact.key == ("t", operation.reference) and fact.digest == operation.digest
        case "push by digest":
            return fact.key == ("m", operation.digest)
        case "upload" | "mount" if operation.status == 201:
            return fact.key == ("b", operation.digest)
    return False


def says(operation: Operation, one: CommittedOperation) -> bool:
    """Return whether an operation that an instance wrote may be what a request asked for."""
    return any(keeps(operation, fact) for fact in one.said.values())
