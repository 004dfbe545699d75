"""The report of a run, as text and as one line of JSON that can be added up."""

import json
import subprocess
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from simulations.write_order import WRITES
from tests.scenarios.histories.checkers import (
    acknowledged,
    content,
    deletes,
    digests,
    monotonic,
    read_your_writes,
    refusals,
)
from tests.scenarios.histories.history import READS, Anomaly
from tests.scenarios.histories.run import Outcome

SHOWN = 20
"""Of each checker's anomalies, so many are told in words."""


@dataclass
class Report:
    """The figures of one run, or of many added up."""

    seeds: list[int]
    seconds: float
    code: str = ""
    """Which code was run, as git describes it."""
    fired: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    operations: int = 0
    writes_acknowledged: int = 0
    reads_answered: int = 0
    checked: Counter[str] = field(default_factory=Counter)
    """The number of checks that each checker made."""
    excused: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    probes: int = 0
    probes_refused: int = 0
    """Of the probes of /readyz."""
    stalled_s: float = 0.0
    """The time for which the machine was too busy to run the harness."""
    agreed_after_s: float | None = None
    anomalies: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


CHECKERS = (read_your_writes, monotonic, acknowledged, deletes, digests, content, refusals)


def judge(outcome: Outcome) -> Report:
    history, plan = outcome.history, outcome.plan
    report = Report([plan.seed], plan.seconds, code(), outcome.fired, outcome.missed, len(history.operations))
    report.writes_acknowledged = sum(o.action in WRITES and o.is_acknowledged for o in history.operations)
    report.reads_answered = sum(o.action in READS and o.is_answered for o in history.operations)
    report.refused = refusals.kinds(history)
    report.probes, report.probes_refused = outcome.probes, outcome.not_ready
    report.stalled_s = round(sum(window.end - window.begin for window in history.stalls), 1)
    report.agreed_after_s = history.agreed_after_s
    for checker in CHECKERS:
        found = checker.check(history)
        name = checker.__name__.rpartition(".")[2]
        report.checked[name], report.excused[name] = found.checked, found.excused
        _note(report, found.anomalies, outcome)
    return report


def code() -> str:
    """The commit that runs, with a mark where files differ from it."""
    command = ["git", "describe", "--always", "--dirty"]
    said = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return said.stdout.strip()


def _note(report: Report, anomalies: list[Anomaly], outcome: Outcome) -> None:
    report.anomalies.update(anomaly.checker for anomaly in anomalies)
    for anomaly in anomalies[:SHOWN]:
        under_way = [
            f"{w.kind} ({w.what}) {w.begin - anomaly.at:+.1f}..{w.end - anomaly.at:+.1f} s"
            for w in outcome.history.windows
            if w.begin <= anomaly.at and w.end >= anomaly.at - 15
        ]
        report.examples.append(f"{anomaly.checker}: {anomaly.text}; faults: {', '.join(under_way) or 'none'}")


def dump(outcome: Outcome, path: Path) -> None:
    """Write the whole history: windows first, and then operations in the order of their begins."""
    with path.open("w") as file:
        for entry in (*outcome.history.windows, *sorted(outcome.history.operations, key=lambda o: o.begin)):
            file.write(json.dumps(asdict(entry)) + "\n")


def append(report: Report, path: Path) -> None:
    with path.open("a") as file:
        file.write(json.dumps(vars(report)) + "\n")


def describe(report: Report) -> list[str]:
    lines = [f"  {kind}: {count} fired" for kind, count in sorted(report.fired.items())]
    lines += [f"  {kind}: {count} found nothing to strike" for kind, count in sorted(report.missed.items())]
    lines.append(
        f"{report.operations} requests, {report.writes_acknowledged} writes acknowledged, "
        f"{report.reads_answered} reads answered"
    )
    for name, count in report.checked.items():
        lines.append(f"  {name}: {count} checked, {report.excused[name]} excused")
    lines.append(f"refused: {dict(report.refused)}; {report.probes_refused} of {report.probes} probes not ready")
    agreed = "never" if report.agreed_after_s is None else f"after {report.agreed_after_s:.1f} s"
    lines.append(f"agreed {agreed}; the machine stood still for {report.stalled_s} s")
    lines += report.examples
    lines.append(f"anomalies: {dict(report.anomalies)}" if report.anomalies else "no anomalies")
    return lines
