"""Options of simulated instances are options of the registry."""

import pytest

from registry.config import Config
from simulations.options import make_config
from simulations.plan import CONDITIONS, draw_plan
from simulations.run import run
from simulations.simulation import settings_of


def test_an_option_of_a_wrong_name_is_refused():
    with pytest.raises(TypeError, match="unknown options holder_wait: expected fields"):
        make_config(site="eu", holder_wait=5.0)


def test_an_option_of_a_wrong_name_that_an_operator_sets_everywhere_is_refused():
    async def scenario(simulation):
        simulation.cluster.settings = {"copy": "2"}
        await simulation.start()

    outcome = run(draw_plan(0, faults=(), conditions=()), scenario)
    assert any("unknown options copy" in violation for violation in outcome.violations)


def test_options_of_all_conditions_exist():
    for condition in CONDITIONS:
        assert settings_of(draw_plan(0, conditions=(condition,))).keys() <= Config.model_fields.keys()
