"""A page with plots: how long a push takes to be everywhere, what catching up costs, how fast clusters agree.

Each point is a scenario of its own, played under virtual time; the seconds are virtual ones.
"""

import asyncio
import base64
import io
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Protocol

import matplotlib
from matplotlib.figure import Figure

from simulations.plan import Outcome, draw_plan
from simulations.pool import play_all
from simulations.run import run
from simulations.simulation import Simulation
from simulations.workload.client import Client
from simulations.workload.images import ALL_IMAGES

matplotlib.use("Agg")

LOSSES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
PARTITIONS_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
DIVERGENCES = (1, 3, 10, 30, 100)
SIZES = (2, 3, 4, 6, 8)
SEEDS = range(5)


class Played(Protocol):
    """The results of many runs."""

    convergence_s: list[float]
    delays_s: list[float]


@dataclass(frozen=True)
class Point:
    """One scenario: what is varied, and how far."""

    kind: str
    amount: float
    seed: int


def write_report(path: Path, played: Played, processes: int = 0) -> None:
    """Play the scenarios and write the page."""
    points = [
        Point(kind, float(amount), seed)
        for kind, amounts in _SCENARIOS.items()
        for amount in amounts[1]
        for seed in SEEDS
    ]
    found: dict[str, dict[float, list[float]]] = {kind: {} for kind in _SCENARIOS}
    for point, value in play_all(_measure, points, processes):
        found[point.kind].setdefault(point.amount, []).append(value)
    sections = [_section(kind, found[kind]) for kind in _SCENARIOS]
    sections.append(_histogram("From commit to everywhere, in the runs with faults", "seconds", played.delays_s))
    sections.append(_histogram("From the end of all faults to agreement", "seconds", played.convergence_s))
    path.write_text(_PAGE.format(sections="\n".join(sections)))


# Scenarios


async def _begin(simulation: Simulation) -> Client:
    await simulation.start()
    return simulation.client("client-report")


async def _push(client: Client, simulation: Simulation, at: int, count: int) -> None:
    for number in range(count):
        node = simulation.cluster.nodes[at]
        await client.push(node, "app", f"t{number}", ALL_IMAGES[number % len(ALL_IMAGES)])


async def _loss(simulation: Simulation, amount: float) -> float:
    client = await _begin(simulation)
    simulation.cluster.packet_simulator.loss = amount
    simulation.commits.delays_s.clear()
    await _push(client, simulation, 0, 4)
    await asyncio.sleep(15)
    return statistics.median(simulation.commits.delays_s or [15.0])


async def _partition(simulation: Simulation, amount: float) -> float:
    client = await _begin(simulation)
    places = [node.name for node in simulation.cluster.nodes] + simulation.cluster.redis.names
    cut = {simulation.cluster.nodes[0].name, simulation.cluster.redis.names[0]}
    pairs = [(a, b) for a in places for b in places if (a in cut) != (b in cut)]
    for pair in pairs:
        simulation.cluster.packet_simulator.block(*pair)
    simulation.commits.delays_s.clear()
    await _push(client, simulation, 0, 1)
    await asyncio.sleep(amount)
    for pair in pairs:
        simulation.cluster.packet_simulator.unblock(*pair)
    await asyncio.sleep(20)
    return max(simulation.commits.delays_s or [20.0 + amount])


async def _divergence(simulation: Simulation, amount: float) -> float:
    client = await _begin(simulation)
    await _push(client, simulation, 0, 3)
    away = simulation.cluster.nodes[1]
    away.die(False)
    await _push(client, simulation, 0, int(amount))
    await asyncio.sleep(1)
    before = simulation.cluster.network.bytes
    await simulation.lifecycle.restart(away)
    await simulation.converge()
    return float(simulation.cluster.network.bytes - before)


async def _size(simulation: Simulation, amount: float) -> float:
    client = await _begin(simulation)
    simulation.cluster.packet_simulator.loss = 1.0
    for at in range(len(simulation.cluster.nodes)):
        await _push(client, simulation, at, 2)
    simulation.cluster.packet_simulator.loss = 0.0
    await simulation.converge()
    return simulation.convergence_s


def _measure(point: Point) -> tuple[Point, float]:
    scenario, _, _, _ = _SCENARIOS[point.kind]
    sites: tuple[str, ...] = ("eu", "us")
    if point.kind == "size":
        sites = tuple(f"site{number}" for number in range(int(point.amount)))
    measured: list[float] = []

    async def act(simulation: Simulation) -> None:
        measured.append(await scenario(simulation, point.amount))

    outcome: Outcome = run(draw_plan(point.seed, sites=sites, faults=(), conditions=(), between_sites_s=0.02), act)
    if outcome.violations:
        raise AssertionError(outcome.violations[0])
    return point, measured[0]


_SCENARIOS: dict[str, tuple[Callable[[Simulation, float], Any], tuple[float, ...], str, str]] = {
    "loss": (_loss, LOSSES, "From push to everywhere, by the part of frames that is lost", "seconds, median"),
    "partition": (
        _partition,
        PARTITIONS_S,
        "From push to everywhere, by the length of a partition in seconds",
        "seconds, longest",
    ),
    "divergence": (
        _divergence,
        DIVERGENCES,
        "Bytes to catch up after an absence, by the number of pushes missed",
        "bytes, HTTP between instances",
    ),
    "size": (
        _size,
        SIZES,
        "To agreement when every instance has pushed and no frame came through, by cluster size",
        "seconds",
    ),
}


# The page


def _section(kind: str, found: dict[float, list[float]]) -> str:
    _, _, title, unit = _SCENARIOS[kind]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    amounts = sorted(found)
    axes.plot(amounts, [statistics.median(found[amount]) for amount in amounts], marker="o")
    for amount in amounts:
        axes.scatter([amount] * len(found[amount]), found[amount], s=8, alpha=0.5, color="grey")
    if kind == "divergence":
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_ylabel(unit)
    return _shown(title, figure, [(f"{amount:g}", f"{statistics.median(found[amount]):.3g}") for amount in amounts])


def _histogram(title: str, unit: str, values: list[float]) -> str:
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(values or [0.0], bins=60, log=True)
    axes.set_xlabel(unit)
    ordered = sorted(values) or [0.0]
    marks = [("median", 0.5), ("90 %", 0.9), ("99 %", 0.99), ("longest", 1.0)]
    return _shown(title, figure, [(name, f"{ordered[int(at * (len(ordered) - 1))]:.3f}") for name, at in marks])


def _shown(title: str, figure: Figure, rows: list[tuple[str, str]]) -> str:
    image = io.BytesIO()
    figure.savefig(image, format="svg")
    source = base64.b64encode(image.getvalue()).decode()
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<h2>{escape(title)}</h2><img src="data:image/svg+xml;base64,{source}"><table>{cells}</table>'


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Concord under simulation</title>
<style>body {{ font: 16px sans-serif; max-width: 50em; margin: 2em auto; }} td {{ padding: 0 1em 0 0; }}</style>
<h1>Concord under simulation</h1>
<p>Virtual seconds. Grey points are single runs, the line their median.</p>
{sections}
</html>
"""
