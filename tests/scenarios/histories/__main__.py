"""The command line. Ends with status 1 when a run has anomalies."""

import argparse
import signal
import sys
from pathlib import Path

from tests.scenarios.histories.plan import LASTS_S, draw_plan
from tests.scenarios.histories.report import append, describe, dump, judge
from tests.scenarios.histories.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.histories", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, from --seed on")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each run makes faults")
    parser.add_argument("--faults", default="", help=f"kinds of faults, by commas: {', '.join(LASTS_S)}")
    parser.add_argument(
        "--results",
        type=Path,
        help="each run appends a line of JSON to this file; histories with anomalies go beside it",
    )
    parser.add_argument("--keep", type=Path, help="a directory for data, logs and the history")
    parser.add_argument("--planted", default="", help="a bug of simulations.planted that all instances have")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end instances and namespaces, too
    kinds = tuple(kind for kind in given.faults.split(",") if kind)
    failed = 0
    for seed in range(given.seed, given.seed + given.runs):
        plan = draw_plan(seed, given.seconds, kinds)
        print(*plan.describe(), sep="\n", flush=True)
        kept = given.keep / str(seed) if given.keep else None
        outcome = run(plan, kept, given.planted)
        report = judge(outcome)
        if kept is not None:
            dump(outcome, kept / "history.jsonl")
        if given.results:
            append(report, given.results)
            if report.anomalies:
                dump(outcome, given.results.with_suffix(f".{seed}.history.jsonl"))
        chosen = f" --faults {given.faults}" if given.faults else ""
        print(*describe(report), sep="\n")
        print(f"repeat: python -m {__package__} --seed {seed} --seconds {given.seconds:g}{chosen}", flush=True)
        failed += bool(report.anomalies)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
