"""The heads of all processes' chains, as they are on the disk: other instances are told of them.

What others know of a log cannot be taken back from them. So a log whose end was cut off, or that was written anew, is
found by them, and by `concord audit verify --witness`.
"""

from registry.audit.chain import BrokenChain, Head, heads
from registry.audit.log import DIRECTORY, SUFFIX
from registry.ports import Disk
from registry.storage.jobs import in_executor
from registry.units import KIB

TAIL_BYTES = 64 * KIB
"""Bytes at the end of a file in which its last whole line is looked for."""
MAX_PROCESSES = 256


class AuditHeads:
    """The heads of the chains of one instance, by process."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.known: dict[str, Head] = {}
        """The heads at the last `refresh`."""

    async def refresh(self) -> None:
        """Read the heads again. Raises StorageFailed."""
        self.known = await in_executor(self._read)

    def _read(self) -> dict[str, Head]:
        try:
            names = sorted(name for name in self._disk.names(DIRECTORY) if name.endswith(SUFFIX))
        except FileNotFoundError:
            return {}
        newest = {name.partition("-")[0]: name for name in names}
        found = {process: self._last_of(name) for process, name in newest.items()}
        return {process: head for process, head in list(found.items())[:MAX_PROCESSES] if head is not None}

    def _last_of(self, name: str) -> Head | None:
        """Return the head after the last whole line of a file; None without one."""
        file = self._disk.open(f"{DIRECTORY}/{name}")
        try:
            size = file.size()
            lines = file.pread(max(0, size - TAIL_BYTES), min(size, TAIL_BYTES)).split(b"\n")
        finally:
            file.close()
        try:
            (head,) = heads(lines[-2:-1])
        except (BrokenChain, ValueError):
            return None
        return head
