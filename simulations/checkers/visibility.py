"""An answered write is visible at every instance of its site that may answer reads.

Checked as the answer leaves: whatever has been disturbed before, an instance that holds a valid read lease shows the
write. Only a network that separates members of one site is outside the promise.
"""

from simulations.checkers import Violation
from simulations.checkers.acknowledged import keeps
from simulations.history import Fact, History, Identity, Operation
from simulations.node import Node


def check_site(operation: Operation, nodes: list[Node], history: History, written: dict[Identity, Fact]) -> None:
    """`written` is what the instance wrote since the request came: for it, and for others that came with it."""
    own = [identity for identity, fact in written.items() if keeps(operation, fact)]
    document = f"repository/{operation.repository}"
    (origin,) = (node for node in nodes if node.name == operation.node)
    reference = history.of(origin.name).get(document)
    for node in nodes:
        if node is origin or node.site != origin.site or not node.up or node.instance is None:
            continue
        seen = history.of(node.name).get(document)
        vector = seen.vector if seen is not None else {}
        if _is_behind(vector, reference.vector if reference else {}, written):
            continue  # by operations that left nothing behind, so that no digest told: it asks for them now
        if node.instance.lease.is_valid and own and all(clock >= vector.get(writer, 0) for writer, clock in own):
            raise Violation(f"{operation} was answered while {node.name} of the same site does not show it")


def _is_behind(vector: dict[int, int], reference: dict[int, int], written: dict[Identity, Fact]) -> bool:
    """Return whether a vector lacks more of another than what was written just now."""
    first = {writer: min(clock for by, clock in written if by == writer) for writer, _ in written}
    return any(vector.get(writer, 0) < min(clock, first.get(writer, clock)) for writer, clock in reference.items())
