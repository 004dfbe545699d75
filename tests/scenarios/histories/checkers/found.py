"""The findings of a checker."""

from dataclasses import dataclass, field

from tests.scenarios.histories.history import Anomaly, Operation


@dataclass
class Found:
    """Anomalies, and how much was looked at."""

    anomalies: list[Anomaly] = field(default_factory=list)
    checked: int = 0
    excused: int = 0
    """Anomalies that an exception of the promise excuses."""

    def add(self, checker: str, at: float, text: str) -> None:
        self.anomalies.append(Anomaly(checker, at, text))


def describe(write: Operation, read: Operation) -> str:
    shown = read.value[:19] or f"nothing ({read.status})"
    return (
        f"{read.key[:60]}: {write.action} {write.value[:19]} at member {write.member} ({write.site}) was answered "
        f"{write.status} at {write.end:.3f}; a {read.action} at member {read.member} ({read.site}), begun "
        f"{read.begin - write.end:.3f} s later and answered after {read.end - read.begin:.3f} s, showed {shown}"
    )
