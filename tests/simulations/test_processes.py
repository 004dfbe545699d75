"""Processes of one instance that die alone, and messages that outlive them."""

import pytest

from simulations.plan import draw_plan
from simulations.planted.scenarios import cancel_before_the_commit_arrives, go_on_before_the_commit_arrives
from simulations.run import run


@pytest.mark.parametrize("scenario", [cancel_before_the_commit_arrives, go_on_before_the_commit_arrives])
def test_a_late_commit_of_a_dead_worker_meets_no_upload_that_has_gone_on(scenario):
    """It moved the file that the successor was writing: content of which a part was missing counted as here."""
    for seed in range(4):
        plan = draw_plan(seed, sites=("eu", "us"), faults=(), conditions=(), between_sites_s=0.0)
        assert run(plan, scenario).violations == []
