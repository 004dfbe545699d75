"""The memory that the processes of one instance share: each part is written by one process."""

from dataclasses import dataclass

from registry.cluster.replication.read_lease import ReadLease
from registry.http.access.verified import SharedTable
from registry.http.drain_state import DrainState
from registry.ports import Clock
from registry.storage.shared_usage import SharedUsage
from registry.storage.upload_homes import ProcessSlot


@dataclass(frozen=True)
class SharedState:
    """The shared memory, made before the processes are forked."""

    processes: int
    lease: ReadLease
    usage: SharedUsage
    drain: DrainState
    verified: SharedTable

    @classmethod
    def of(cls, processes: int, clock: Clock) -> "SharedState":
        """Return new memory for so many processes."""
        return cls(processes, ReadLease(clock.steady_s), SharedUsage(processes), DrainState(), SharedTable())

    def slot(self, number: int) -> ProcessSlot:
        """Return the place of a process."""
        return ProcessSlot(number, self.processes)
