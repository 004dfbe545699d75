"""Variables that look like settings and are none."""

import pytest

from registry.config import Config
from registry.settings.environment import UnknownVariable, unknown_variables


def found(*names):
    return unknown_variables(names, Config.model_fields)


def test_unknown_variables_of_a_misspelt_setting_name_the_one_that_was_meant():
    assert found("CONCORD_LISTEN_INTERNL") == [UnknownVariable("CONCORD_LISTEN_INTERNL", "CONCORD_LISTEN_INTERNAL")]
    assert found("CONCORD_COPYS") == [UnknownVariable("CONCORD_COPYS", "CONCORD_COPIES")]


def test_unknown_variables_of_something_else_name_nothing():
    assert found("CONCORD_ZZZZ") == [UnknownVariable("CONCORD_ZZZZ", "")]


def test_unknown_variables_are_none_of_the_settings_in_either_case():
    assert found(*(f"CONCORD_{name.upper()}" for name in Config.model_fields)) == []
    assert found("concord_listen", "CONCORD_URL", "CONCORD_CA", "PATH", "NOT_CONCORD_X") == []


@pytest.mark.parametrize(
    "name",
    [
        "CONCORD_SERVICE_HOST",
        "CONCORD_SERVICE_PORT",
        "CONCORD_SERVICE_PORT_REGISTRY",
        "CONCORD_PORT",
        "CONCORD_PORT_5000_TCP",
        "CONCORD_PORT_5000_TCP_ADDR",
        "CONCORD_REDIS_SERVICE_HOST",
        "CONCORD_REDIS_PORT_6379_TCP_PROTO",
    ],
)
def test_unknown_variables_leave_out_what_kubernetes_sets_for_services(name):
    assert found(name) == []
