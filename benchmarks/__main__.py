"""Starts Concord (with a Redis and a peer at another site) and Debian's docker-registry, measures both and any registry
given as NAME=HOST:PORT in turns, prints the medians and writes them to benchmarks/results/.

Needs wrk, curl, redis-server and docker-registry (Debian packages). Asserts nothing: these are figures, not tests.
"""

import argparse
import contextlib
import datetime
import json
import platform
import shutil
import statistics
import tempfile
from pathlib import Path

from benchmarks.figures import FIGURES, Target, replication_delay_ms
from benchmarks.servers import concord_pair, docker_registry

Taken = dict[str, dict[str, list[float]]]
"""Values by figure and registry."""

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("others", nargs="*", metavar="NAME=HOST:PORT", help="registries that run already")
    options.add_argument("--rounds", type=int, default=3, help="how often each figure is taken (the median counts)")
    options.add_argument("--seconds", type=int, default=4, help="how long a load lasts")
    options.add_argument("--only", action="append", choices=sorted(FIGURES), help="take these figures alone")
    given = options.parse_args()
    for tool in ("wrk", "curl", "redis-server", "docker-registry"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is missing: apt install wrk curl redis-server docker-registry")
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="concord-bench-")))
        first, second = stack.enter_context(concord_pair(root))
        targets = [Target("concord", first), Target("docker-registry", stack.enter_context(docker_registry(root)))]
        targets += [Target(*other.split("=", 1)) for other in given.others]
        taken = take(targets, root, given.rounds, given.seconds, given.only or list(FIGURES))
        delays = replication_delay_ms(first, second) if not given.only else []
    report(targets, taken, delays)


def take(targets: list[Target], root: Path, rounds: int, seconds: int, figures: list[str]) -> Taken:
    """Every figure of every target, in turns, so that what the machine does meanwhile strikes all alike."""
    taken: Taken = {figure: {target.name: [] for target in targets} for figure in figures}
    for target in targets:
        target.prepare(root)
    for number in range(rounds):
        for figure in figures:
            for target in targets if number % 2 == 0 else reversed(targets):
                value = FIGURES[figure].measure(target, root, seconds)
                taken[figure][target.name].append(value)
                print(f"  round {number + 1}  {figure:12} {target.name:16} {value:12,.2f} {FIGURES[figure].unit}")
    return taken


def report(targets: list[Target], taken: Taken, delays: list[float]) -> None:
    medians = {figure: {name: statistics.median(v) for name, v in of.items()} for figure, of in taken.items()}
    names = [target.name for target in targets]
    print(f"\n{'':14}" + "".join(f"{name:>18}" for name in names) + "".join(f"{'/ ' + n:>18}" for n in names[1:]))
    for figure, of in medians.items():
        ratios = "".join(f"{of['concord'] / of[name]:>17.2f}×" for name in names[1:])
        values = "".join(f"{of[name]:>18,.2f}" for name in names)
        print(f"{figure:14}{values}{ratios}  {FIGURES[figure].unit}")
    summary = {}
    if delays:
        ordered = sorted(delays)
        summary = {
            "median_ms": round(statistics.median(ordered), 2),
            "p99_ms": round(ordered[int(len(ordered) * 0.99)], 2),
            "pushes": len(ordered),
        }
        print(f"replication delay, 201 at one site to served at the other: {summary}")
    now = datetime.datetime.now(datetime.UTC)
    machine = {"cpu": _cpu(), "cores": _cores(), "system": platform.platform(), "python": platform.python_version()}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%d-%H%M}.json"
    content = {"taken_at": now.isoformat(timespec="seconds"), "machine": machine, "medians": medians, "all": taken}
    path.write_text(json.dumps(content | {"replication_delay": summary}, indent=2) + "\n")
    print(f"written to {path}")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
