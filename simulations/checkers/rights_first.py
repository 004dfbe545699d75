"""Content is never committed under rights older than those its pusher had seen ("new enemy": Pang et al., "Zanzibar",
2019): an instance that takes in a change has every fact of access control that the instance which made it had."""

from collections.abc import Iterable

from registry.access.facts import DOCUMENT
from simulations.access_states import AccessStates
from simulations.checkers import Violation
from simulations.history import Commit, Identity
from simulations.node import Node


class RightsFirst:
    """Remembers which facts of access control each instance had when it said something else."""

    def __init__(self, states: AccessStates) -> None:
        self._states = states
        self._seen: dict[tuple[str, Identity], frozenset[str]] = {}

    def note(self, node: Node, document: str, said: Iterable[Identity]) -> None:
        """An instance has said facts of a document. Where it does not enforce access control, others need not wait."""
        state = self._states.of(node)
        if document != DOCUMENT and state.is_enforced:
            self._seen |= {(document, identity): state.texts for identity in said}

    def check(self, node: Node, commit: Commit) -> None:
        """An instance has committed facts."""
        for identity in commit.after.facts.keys() - commit.before.facts.keys():
            seen = self._seen.get((commit.document, identity))
            if seen is not None and (missing := seen - self._states.of(node).texts):
                raise Violation(
                    f"{node.name} has committed {identity} of {commit.document} without {len(missing)} facts of access "
                    f"control that its pusher had seen, such as {min(missing)!r}"
                )
