"""Adds up the runs of result files: python -m tests.scenarios.histories.total FILE…"""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_COUNTED = ("fired", "missed", "checked", "excused", "refused", "anomalies")
_SUMMED = ("seconds", "operations", "writes_acknowledged", "reads_answered", "probes", "probes_refused", "stalled_s")


def total(lines: Iterable[str]) -> dict[str, Any]:
    """The sums of reports, one line of JSON each."""
    counted = {name: Counter[str]() for name in _COUNTED}
    summed: Counter[str] = Counter()
    seeds: list[int] = []
    codes: Counter[str] = Counter()
    for line in lines:
        report = json.loads(line)
        seeds += report["seeds"]
        codes[report.get("code", "")] += 1
        for name in _COUNTED:
            counted[name].update(report[name])
        for name in _SUMMED:
            summed[name] += report[name]
    return {
        "runs": len(seeds),
        "seeds": seeds,
        "code": dict(codes),
        **summed,
        **{n: dict(c) for n, c in counted.items()},
    }


def main() -> None:
    lines = [line for path in sys.argv[1:] for line in Path(path).read_text().splitlines() if line]
    print(json.dumps(total(lines), indent=1))


if __name__ == "__main__":
    main()
