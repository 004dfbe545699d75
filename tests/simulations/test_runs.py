"""Whole clusters and documents alone, from fixed seeds, and every kind of fault."""

import pytest

from simulations.__main__ import play, play_documents
from simulations.coverage_marks import OUT_OF_SERVICE, PATHS
from simulations.faults import FAULTS
from simulations.plan import draw_plan
from simulations.run import run

CHUNKS = 8
SEEDS = 96
DOCUMENT_SEEDS = 1600


def chunk(number, total):
    size = total // CHUNKS
    return range(number * size, (number + 1) * size)


@pytest.mark.parametrize("number", range(CHUNKS))
def test_clusters(number):
    summary = play(chunk(number, SEEDS), {}, processes=1, show=False)
    assert [(outcome.plan, outcome.violations[0]) for outcome in summary.failed] == []


@pytest.mark.parametrize("number", range(CHUNKS))
def test_documents_alone(number):
    assert play_documents(chunk(number, DOCUMENT_SEEDS), processes=1, show=False) == []


def test_a_simulation_that_breaks_is_a_run_that_has_not_held():
    async def broken(simulation):
        raise ValueError("not in the list")

    outcome = run(draw_plan(0), broken)
    assert ["the simulation itself broke" in violation for violation in outcome.violations] == [True]


FOR_PATHS = (
    (("partition", "reset-in-body", "commit-link-cut"), range(30)),
    (("partition", "site-bus-cut", "hang-primary"), range(30, 90)),
)
"""Kinds of faults and seeds by which the paths are reached; the last ones take an instance out of service."""


def test_every_path_is_reached():
    missing = set(PATHS)
    conditions = ("small", "collect", "two-copies", "evict")
    for faults, seeds in FOR_PATHS:
        for seed in seeds:
            outcome = run(draw_plan(seed, faults=faults, conditions=conditions, clients=3))
            assert outcome.violations == []
            missing -= outcome.reached.keys()
            if not missing:
                return
            if missing == {OUT_OF_SERVICE} and seeds.start == 0:
                break
    pytest.fail(f"{missing} were never reached")


@pytest.mark.parametrize("name", FAULTS)
def test_every_kind_of_fault_fires(name):
    _, kinds = FAULTS[name]
    missing = set(kinds)
    for seed in range(30):
        outcome = run(draw_plan(seed, faults=(name,)))
        assert outcome.violations == []
        missing -= outcome.fired.keys()
        if not missing:
            return
    pytest.fail(f"{missing} never fired")
