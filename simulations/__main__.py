"""`python -m simulations`: runs of whole clusters, from a seed on."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from simulations.coverage_marks import PATHS
from simulations.documents import run_documents
from simulations.faults import FAULTS
from simulations.plan import CONDITIONS, Outcome, draw_plan
from simulations.planted import PLANTED
from simulations.pool import play_all, prepare
from simulations.run import run
from simulations.shrink import command, shrink

console = Console(stderr=True)

ENOUGH_RUNS = 250
"""So many runs that every kind of fault has to have fired."""


@dataclass
class Summary:
    """The results of many runs."""

    runs: int = 0
    failed: list[Outcome] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    convergence_s: list[float] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    virtual_s: float = 0.0
    reached: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.fired += outcome.fired
        self.reached += outcome.reached
        self.operations += outcome.operations
        self.convergence_s.append(outcome.convergence_s)
        self.delays_s += outcome.delays_s
        self.virtual_s += outcome.virtual_s
        if outcome.violations:
            self.failed.append(outcome)

    def never_fired(self) -> list[str]:
        """Faults, and paths that were never reached."""
        kinds = {kind for _, kinds in FAULTS.values() for kind in kinds}
        return sorted((kinds | {*PATHS}) - self.fired.keys() - self.reached.keys())


def play_seed(seed: int, chosen: dict[str, Any]) -> Outcome:
    return run(draw_plan(seed, **chosen))


def play(seeds: range, chosen: dict[str, Any], processes: int = 0, show: bool = True) -> Summary:
    """Play the plans of some seeds."""
    summary = Summary()
    with Progress(console=console, disable=not show) as progress:
        task = progress.add_task("runs", total=len(seeds))
        for outcome in play_all(partial(play_seed, chosen=chosen), seeds, processes):
            summary.add(outcome)
            progress.advance(task)
    summary.failed.sort(key=lambda outcome: outcome.plan.seed)
    return summary


def play_documents(seeds: range, operations: int = 300, processes: int = 0, show: bool = True) -> list[str]:
    """Play documents alone. Return what was broken."""
    broken = []
    with Progress(console=console, disable=not show) as progress:
        task = progress.add_task("documents", total=len(seeds))
        for found in play_all(partial(run_documents, operations=operations), seeds, processes):
            progress.advance(task)
            if found is not None:
                broken.append(found)
    return sorted(broken)


def main(
    seed: Annotated[int, typer.Option(help="the first seed")] = 0,
    runs: Annotated[int, typer.Option(min=1, help="how many seeds, one after the other")] = 100,
    sites: Annotated[str, typer.Option(help="sites of the instances, such as eu,eu,us [default: drawn]")] = "",
    faults: Annotated[str, typer.Option(help=f"kinds of faults, or none [default: drawn]: {', '.join(FAULTS)}")] = "",
    conditions: Annotated[str, typer.Option(help=f"or none [default: drawn]: {', '.join(CONDITIONS)}")] = "",
    duration: Annotated[float, typer.Option(help="virtual seconds of faults")] = 12.0,
    clients: Annotated[int, typer.Option(help="clients at once")] = 2,
    operations: Annotated[int, typer.Option(help="what each client does while there are faults")] = 7,
    calm_operations: Annotated[int, typer.Option(help="what each client does after healing")] = 4,
    between_sites: Annotated[float, typer.Option(help="seconds from site to site [default: drawn]")] = -1.0,
    documents: Annotated[int, typer.Option(help="runs of documents alone, beside")] = 0,
    planted: Annotated[bool, typer.Option("--planted", help="hunt the planted bugs instead")] = False,
    plant: Annotated[str, typer.Option(help="put in a planted bug, by its name, such as 'push split'")] = "",
    trace: Annotated[bool, typer.Option("--trace", help="print every event of the one run")] = False,
    report: Annotated[Path | None, typer.Option(help="write a page with plots here; takes a few minutes")] = None,
    processes: Annotated[int, typer.Option(help="processes at once [default: one for each core]")] = 0,
) -> None:
    """Run the registry's own code as whole clusters under virtual time, with faults drawn from each seed.

    The exit status is 0 only when every run held.
    """
    if planted:
        raise typer.Exit(hunt())
    chosen: dict[str, Any] = {
        "fault_s": duration, "clients": clients, "operations": operations, "calm_operations": calm_operations
    }  # fmt: skip
    if sites:
        chosen["sites"] = tuple(sites.split(","))
    if faults:
        chosen["faults"] = () if faults == "none" else tuple(faults.split(","))
        unknown = set(chosen["faults"]) - FAULTS.keys()
        if unknown:
            raise typer.BadParameter(f"there is no fault {', '.join(sorted(unknown))}")
    if conditions:
        chosen["conditions"] = () if conditions == "none" else tuple(conditions.split(","))
        unknown = set(chosen["conditions"]) - CONDITIONS.keys()
        if unknown:
            raise typer.BadParameter(f"there is no condition {', '.join(sorted(unknown))}", param_hint="--conditions")
    if between_sites >= 0:
        chosen["between_sites_s"] = between_sites
    if trace and runs != 1:
        raise typer.BadParameter("the events of one run can be printed: add --runs 1", param_hint="--trace")
    if report is not None and find_spec("matplotlib") is None:
        raise typer.BadParameter("plots need matplotlib: pip install matplotlib", param_hint="--report")
    with planted_bug(plant):
        raise typer.Exit(play_and_show(range(seed, seed + runs), chosen, documents, processes, report, plant, trace))


def planted_bug(name: str) -> AbstractContextManager[Any]:
    """Put in a planted bug, if a name is given."""
    if not name:
        return nullcontext()
    for bug in PLANTED:
        if bug.name == name:
            return bug.plant()
    raise typer.BadParameter(f"there is no planted bug {name}: --planted lists them", param_hint="--plant")


def play_and_show(
    seeds: range, chosen: dict[str, Any], documents: int, processes: int, report: Path | None, plant: str, trace: bool
) -> int:
    """Play seeds and show what came of them. Return the exit status."""
    begun = time.monotonic()
    prepare()
    if trace:
        run(draw_plan(seeds[0], **chosen), on_event=print)
    summary = play(seeds, chosen, processes)
    broken = play_documents(range(seeds.start, seeds.start + documents), processes=processes) if documents else []
    if report is not None:
        from simulations.report import write_report  # plots need a library that runs do not

        write_report(report, summary, processes)
        console.print(f"the report is {report}")
    show(summary, broken, plant)
    is_drawn = "faults" not in chosen and len(seeds) >= ENOUGH_RUNS
    if is_drawn and summary.never_fired():
        console.print(f"[bold]never fired:[/bold] {', '.join(summary.never_fired())}")
    held = not summary.failed and not broken and not (is_drawn and summary.never_fired())
    took = time.monotonic() - begun
    print(
        f"{summary.runs} runs, {documents} of documents alone, {sum(summary.operations.values())} requests, "
        f"{sum(summary.fired.values())} faults, {summary.virtual_s:.0f} virtual s in {took:.0f} s: "
        + ("all held" if held else f"FAILED ({len(summary.failed) + len(broken)} runs)")
    )
    return 0 if held else 1


def show(summary: Summary, broken: list[str], plant: str = "") -> None:
    """Print the table of faults, and the smallest plan found for the first failure."""
    table = Table("fault or path", "times")
    for kind, count in [*sorted(summary.fired.items()), *sorted(summary.reached.items())]:
        table.add_row(kind, str(count))
    console.print(table)
    for name, values in (("to agreement", summary.convergence_s), ("from commit to everywhere", summary.delays_s)):
        if values:
            ordered = sorted(values)
            console.print(f"{name}: median {ordered[len(ordered) // 2]:.3f} s, longest {ordered[-1]:.3f} s")
    for line in broken:
        console.print(f"[bold]documents:[/bold] {line}")
    for outcome in summary.failed[:5]:
        console.print(f"[bold]seed {outcome.plan.seed}[/bold] {outcome.plan.sites} {outcome.plan.faults}")
        console.print(f"  {outcome.violations[0]}", markup=False, soft_wrap=True)
    if summary.failed:
        smallest = shrink(summary.failed[0].plan, run)
        console.print("[bold]the smallest found:[/bold]")
        console.print(f"  {smallest.violations[0]}", markup=False, soft_wrap=True)
        planted = f" --plant '{plant}'" if plant else ""
        console.print(f"  {command(smallest.plan)}{planted}", markup=False, soft_wrap=True)


def hunt() -> int:
    """Hunt every planted bug. Return how many were not caught."""
    missed = 0
    table = Table("planted bug", "caught by seed", "within", "as")
    for bug in PLANTED:
        caught = bug.hunt()
        missed += caught is None
        seed, said = (str(caught[0]), caught[1].violations[0][:90]) if caught else ("NOT CAUGHT", "")
        table.add_row(bug.name, seed, str(bug.within), said)
    console.print(table)
    print(f"{len(PLANTED) - missed} of {len(PLANTED)} planted bugs caught")
    return missed


if __name__ == "__main__":
    typer.run(main)
