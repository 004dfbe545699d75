"""Counting refused pushes by reason, and logging those that were refused with 503, because of the policy or the disk:
only clients see the answers, and the operator has to learn of them too.

One line each, with the repository and, as every line has, the request's id. When many are refused at once, some of them
stand for the others: a client that tries again and again must not fill the log.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from registry.errors import DiskBudgetUsed, OciError, StorageFailed, WriteConcernTimeout
from registry.ports import Clock
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import LogLimit

log = EventLog("concord.refusals")

PUSHING = frozenset({"POST", "PATCH", "PUT"})
REASONS = (
    "disk-full", "disk-budget", "storage-failed", "write-concern", "too-many-uploads", "too-many-manifests", "leaving",
    "needs-upgrade",
)  # fmt: skip
"""Refusals that an operator has to look into. Mistakes of clients are counted by the codes of their answers."""


ShownToOperators = WriteConcernTimeout | StorageFailed | DiskBudgetUsed
"""Refusals that the operator has to learn of: clients alone see the answers."""


class Refusals:
    """The refusals of one instance: so many lines in each ten seconds, and what was left out is counted in the next."""

    def __init__(self, clock: Clock) -> None:
        self._limit = LogLimit(clock)
        self.counts: Counter[str] = Counter()
        """Pushes that were refused since the start, by reason."""

    @contextmanager
    def noting(self, repository: str, method: str) -> Iterator[None]:
        """Note what is raised by a write to a repository."""
        try:
            yield
        except OciError as error:
            if method in PUSHING:
                self.counts[error.counted_as] += 1
            if isinstance(error, ShownToOperators):
                self.note(repository, error)
            raise

    def note(self, repository: str, error: ShownToOperators) -> None:
        """Log that a push to a repository was answered with `error`."""
        left_out = self._limit.admit()
        if left_out is None:
            return
        fields: dict[str, object] = {"repository": repository, "status": error.status, "reason": error.counted_as}
        if isinstance(error.detail, dict):
            fields |= {name: value for name, value in error.detail.items() if isinstance(value, (str, int, float))}
        fields |= left_out
        log.warning(LogEvent.PUSH_REJECTED, "a push was refused: %(error)s", error=error, **fields)
