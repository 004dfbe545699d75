"""The facts of access control as they are committed at an instance, read directly from its catalog.

Gates decide by what is committed at the moment of a request, in whichever process. So the facts are read at that
moment, over a connection that no process of the instance has.
"""

from collections import defaultdict
from functools import lru_cache
from typing import NamedTuple

from registry.access.facts import DOCUMENT, Enforced, Statement, read_statement
from registry.catalog.access import RESTORED
from registry.catalog.catalog import PATH
from registry.catalog.database import Reads
from simulations.access_oracle import InForce, evaluate
from simulations.node import Node
from simulations.process import outside_processes
from simulations.storage import SimulatedDisk

REPOSITORIES = ("app", "base/os", "scratch", "pipeline", "*")
"""The repositories of the workload, and the place of rights on all of them."""
NOW_MS = 0
"""No grant that is drawn expires."""
_COUNT = f"""
SELECT (SELECT COUNT(*) FROM documents d JOIN facts f ON f.document = d.id WHERE d.name = '{DOCUMENT}'),
 EXISTS (SELECT 1 FROM meta WHERE key = '{RESTORED}')
"""
_TEXTS = f"SELECT f.key FROM documents d JOIN facts f ON f.document = d.id WHERE d.name = '{DOCUMENT}'"


class AccessState(NamedTuple):
    """The facts of access control at one instance at one moment."""

    texts: frozenset[str]
    is_restored: bool = False
    """True while no credential counts, since the catalog comes from a backup."""

    @property
    def is_enforced(self) -> bool:
        return any(isinstance(one.body, Enforced) for one in statements_of(self.texts).values())


class AccessStates:
    """Reads the states of all instances of a run, and notes which ones each had."""

    def __init__(self) -> None:
        self._connections: dict[SimulatedDisk, Reads] = {}
        self._last: dict[SimulatedDisk, tuple[tuple[int, int], AccessState]] = {}
        self.trails: dict[str, list[AccessState]] = defaultdict(list)
        """The states that each instance was seen to have, one after the other."""
        self._in_force: dict[frozenset[str], InForce] = {}

    def of(self, node: Node) -> AccessState:
        """Return the state of an instance that lives, as of now."""
        disk = node.disk
        assert disk is not None, "a living instance has a disk"
        if disk not in self._connections:
            self._connections[disk] = outside_processes(lambda: Reads(disk, PATH))
        connection = self._connections[disk]
        counted = connection.row(_COUNT)
        last = self._last.get(disk)
        if last is None or last[0] != counted:
            texts = frozenset(text for (text,) in connection.rows(_TEXTS))
            last = self._last[disk] = counted, AccessState(texts, bool(counted[1]))
        trail = self.trails[node.name]
        if not trail or trail[-1] is not last[1]:
            trail.append(last[1])
        return last[1]

    def in_force(self, texts: frozenset[str]) -> InForce:
        """Return what the oracle says is in force by some facts."""
        found = self._in_force.get(texts)
        if found is None:
            found = self._in_force[texts] = evaluate(statements_of(texts).values(), REPOSITORIES, NOW_MS)
        return found


_read = lru_cache(65_536)(read_statement)


@lru_cache(512)
def statements_of(texts: frozenset[str]) -> dict[str, Statement]:
    """Return the statements of some facts by id. Of several texts with one id, which differ by their writer, the first
    in order counts."""
    found = (_read(text) for text in sorted(texts, reverse=True))
    return {one.origin.id: one for one in found if one is not None}
