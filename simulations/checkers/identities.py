"""Every instance has an id and writers of its own, and no instance waits for one that is gone for good.

One that was forgotten and comes back goes on under another id and another writer; so does one that was started from a
backup.
"""

from collections.abc import Iterable

from registry.catalog.membership import removed_members
from registry.instance import Instance
from simulations.checkers import Violation
from simulations.history import Identity
from simulations.node import Node


class Identities:
    """Remembers under which id each writer has written."""

    def __init__(self) -> None:
        self._instance_of: dict[int, str] = {}
        self.gone: dict[str, str] = {}
        """The ids that are gone for good, and what became of those who had them."""
        self._untold: set[str] = set()
        """Leavers whose last word was lost with the disk of the only one that had it."""

    def note(self, node: Node, instance: Instance, said: Iterable[Identity]) -> None:
        """An instance has committed an operation of its own."""
        own = instance.catalog.instance_id
        for writer in {writer for writer, _ in said}:
            if self._instance_of.setdefault(writer, own) != own:
                raise Violation(
                    f"{node.name} writes as {own} under the writer {writer:x} of {self._instance_of[writer]}"
                )

    def left(self, instance: str, what: str) -> None:
        """An instance has left for good. It goes once a member has its last message."""
        if instance not in self._untold:
            self.gone[instance] = what

    def excuse(self, known: set[str], lost: set[str]) -> None:
        """A disk is gone, and with it what no other instance had been told: `known` are those that the others know are
        gone, `lost` those that it knew of. The answer to who is told of it waits for no other instance's disk."""
        self._untold |= lost - known
        self.gone = {instance: what for instance, what in self.gone.items() if instance in known}

    def check_end(self, nodes: list[Node]) -> None:
        """Once all is calm."""
        names: dict[str, str] = {}
        for node in nodes:
            if node.instance is None:
                continue
            own = node.instance.catalog.instance_id
            forgotten = removed_members(node.instance.catalog.database)
            if own in names:
                raise Violation(f"{names[own]} and {node.name} have the same id {own}")
            names[own] = node.name
            known = {own, *(member.instance for member in node.instance.cluster.members.all())}
            for instance, what in self.gone.items():
                if instance not in forgotten:
                    raise Violation(f"{node.name} does not know in the end that {instance} {what}")
            for instance in sorted(known & forgotten):
                raise Violation(f"{node.name} counts on {instance} in the end, which is gone for good")
