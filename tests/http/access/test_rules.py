"""Every route has a rule, and every rule a route."""

import pytest

from registry.access.patterns import EVERYTHING
from registry.access.rights import Right
from registry.cluster.rpc.client import PREFIX as PEERS
from registry.http.access.rules import INTERNAL, RIGHTS, WITHOUT_REPOSITORY, Demand, internal_rule_of, rule_of
from registry.http.admin.paths import ACCESS, TAG_LOCATIONS
from registry.http.app import ADMIN_ACTIONS
from registry.http.app import INTERNAL as INTERNAL_ROUTES
from registry.http.oci.paths import TEMPLATES, Path, parse_api_path
from registry.http.oci.routes import HANDLERS

OCI = [(resource, method) for resource, handlers in HANDLERS.items() for method in handlers]


@pytest.mark.parametrize(("resource", "method"), OCI)
def test_every_route_of_the_api_has_a_rule(resource, method):
    rule = rule_of(method, Path(resource, "team/app", "x"))
    assert rule.demand is not Demand.NO_ROUTE
    if resource in RIGHTS:
        assert method in RIGHTS[resource], "stated, not by default"
        assert (rule.resource, rule.repository) == ("repository:team/app", "team/app")


def test_the_rules_of_the_api_are_those_of_its_resources():
    assert RIGHTS.keys() | WITHOUT_REPOSITORY.keys() == TEMPLATES.keys()
    assert RIGHTS.keys() | WITHOUT_REPOSITORY.keys() - {""} == HANDLERS.keys()


def test_every_other_route_has_a_rule():
    assert INTERNAL_ROUTES.keys() | ADMIN_ACTIONS.keys() == INTERNAL.keys()
    for method, path in ADMIN_ACTIONS:
        rule = internal_rule_of(method, path)
        is_delegated = path.removeprefix(ACCESS) in ("grant", "revoke", "list", "explain")
        demand = Demand.DELEGATED if is_delegated else Demand.SIGNED
        assert (rule.demand, rule.repository, rule.right) == (demand, EVERYTHING, Right.ADMIN)


def test_what_is_no_route_has_no_rule():
    for method, path in [("GET", "/"), ("GET", "/_concord"), ("PUT", "/_concord/status"), ("GET", "/_concord/new")]:
        assert internal_rule_of(method, path).demand is Demand.NO_ROUTE
    assert rule_of("GET", Path("new resource", "app", "")).demand is Demand.NO_ROUTE


def test_requests_between_instances_are_left_to_their_own_proof():
    assert internal_rule_of("POST", PEERS + "/diff").demand is Demand.PEER


def test_the_locations_of_a_tag_need_the_administration_of_its_repository():
    rule = internal_rule_of("GET", TAG_LOCATIONS + "team/app/v1")
    assert (rule.repository, rule.right) == ("team/app", Right.ADMIN)


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "BREW", "POST"])
@pytest.mark.parametrize("resource", RIGHTS)
def test_an_unknown_method_needs_a_right_too(resource, method):
    assert rule_of(method, Path(resource, "team/app", "x")).demand is Demand.RIGHT


@pytest.mark.parametrize(
    ("path", "resource"),
    [("/v2", "base"), ("/v2/", "base"), ("/v2/token", "token"), ("/v2/token/", ""), ("/v2/token/tags/list", "tags")],
)
def test_the_token_endpoint_is_no_repository(path, resource):
    found = parse_api_path(path)
    assert found is not None and found.resource == resource
