"""An acknowledged write was committed where it was acknowledged, and is there in the end unless a later operation that
saw it has replaced or deleted it."""

from simulations.checkers import Violation
from simulations.checkers.commits import Commits
from simulations.history import History, Identity, Key, Operation


class Acknowledged:
    """Remembers the facts by which each acknowledged write can be known again."""

    def __init__(self, history: History, commits: Commits) -> None:
        self._history = history
        self._commits = commits
        self._facts: dict[tuple[str, Identity], Operation] = {}

    def check_answer(self, operation: Operation, written: dict[Identity, Key]) -> None:
        """As an answer arrives: `written` is what instances of its site wrote in that repository since the request was
        sent."""
        key = promised(operation)
        if key is None or not operation.acknowledged:
            return
        identities = [identity for identity, found in written.items() if found == key]
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

    def excuse(self, node: str) -> None:
        """An instance's disk was put back to an earlier state, or destroyed: what only it had is lost."""
        kept = self._remaining(node)
        self._facts = {known: operation for known, operation in self._facts.items() if known in kept}

    def _remaining(self, without: str) -> set[tuple[str, Identity]]:
        """What any instance but one has, or has seen ended."""
        found = set(self._commits.gone)
        for node, seen in self._history.documents.items():
            if node != without:
                found |= {(document, identity) for document, at in seen.items() for identity in at.facts}
        return found


def promised(operation: Operation) -> Key | None:
    """What a fact is about that an acknowledged request has said."""
    match operation.kind:
        case "push":
            return ("t", operation.reference)
        case "upload" | "mount" if operation.status == 201:
            return ("b", operation.digest)
    return None
