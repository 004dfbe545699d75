"""A later version beside this one: what is not understood is kept, passed on, and not served; after an upgrade all is.

Clients, faults and the checkers of every run go on beside that.
"""

import pytest

from simulations.faults import FAULTS, MEMBER_FAULTS
from simulations.mixed_versions import ANSWERED, REFUSED, mixed_versions
from simulations.plan import draw_plan
from simulations.run import run

SITES = (("eu", "eu", "us"), ("eu", "us"), ("eu", "us", "ap"))
LEFT_OUT = MEMBER_FAULTS | {"backup", "disk-destroyed", "clone", "new-key", "flipped-bit"}
"""Faults by which the later instance may be gone, or a disk be one of before an upgrade."""
DRAWN = sorted(FAULTS.keys() - LEFT_OUT)


@pytest.mark.parametrize("seed", range(5))
def test_instances_that_do_not_understand_serve_nothing_of_it_and_all_converge(seed):
    faults = tuple(DRAWN[(seed * 3 + number) * 5 % len(DRAWN)] for number in range(3))
    chosen = {"faults": faults, "sites": SITES[seed % len(SITES)], "conditions": (), "operations": 6, "fault_s": 8.0}
    outcome = run(draw_plan(seed, **chosen), mixed_versions)
    assert outcome.violations == []
    assert outcome.reached[REFUSED] > 20
    assert outcome.reached[ANSWERED] > 20
