"""The checkers see what they are there to see: bugs put in from outside."""

import pytest

from simulations.planted import PLANTED
from simulations.run import run
from simulations.shrink import command, shrink


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug):
    caught = bug.hunt()
    assert caught is not None
    assert run(bug.plan(caught[0]), bug.scenario).violations == [], "without the bug it holds"


def test_there_are_enough_of_them():
    assert len({bug.name for bug in PLANTED}) >= 52


def test_a_failing_run_is_made_small_and_can_be_repeated():
    (bug,) = (bug for bug in PLANTED if bug.name == "content not synced")
    seed, _ = bug.hunt()
    plan = bug.plan(seed)
    with bug.plant():
        smallest = shrink(plan, run, tries=12)
        again = run(smallest.plan)
    assert smallest.violations == again.violations
    assert smallest.violations
    assert smallest.plan.operations <= plan.operations
    assert f"--seed {seed}" in command(smallest.plan)
    assert run(smallest.plan).violations == [], "without the bug it holds"
