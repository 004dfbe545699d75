"""Bindings of accounts to identity providers: which can be made, by which account, and what ends them."""

import json

import pytest

from registry.access import changes
from registry.access.bindings import Binding, read_claims
from registry.access.facts import Bound, Origin, Statement
from registry.access.policy import Policy
from tests.access.test_changes import Registry, refused

GITHUB = "https://token.actions.githubusercontent.com"
GITLAB = "https://gitlab.com"
KUBERNETES = "https://kubernetes.default.svc.cluster.local"
SUB = "system:serviceaccount:ci:builder"


@pytest.fixture
def registry():
    made = Registry()
    made.do(changes.create_account, "root", password_hash="$argon2id$", admin=True)
    made.do(changes.create_account, "ci", "robot")
    return made


def bind(registry, issuer=GITHUB, claims=None, **options):
    return registry.do(changes.bind, "ci", issuer, claims or {"repository_id": "42"}, **options)


def bindings(registry, issuer=GITHUB):
    return registry.policy.bindings_to(issuer)


def test_a_binding_is_in_force_until_it_is_revoked(registry):
    id = bind(registry, claims={"repository_id": "42", "ref": "refs/heads/main"})
    (found,) = bindings(registry)
    assert (found.id, found.name, dict(found.claims)) == (id, "ci", {"repository_id": "42", "ref": "refs/heads/main"})
    assert registry.policy.is_in_force(found.account, id)
    assert registry.policy.bindings_of(found.account) == [found]
    registry.do(changes.unbind, id)
    assert bindings(registry) == [] and not registry.policy.is_in_force(found.account, id)
    assert refused(registry, "binding-unknown", changes.unbind, id) == 404
    again = bind(registry)
    assert [one.id for one in bindings(registry)] == [again]


@pytest.mark.parametrize("end", [changes.block, changes.remove_account])
def test_a_binding_ends_with_its_account(registry, end):
    id = bind(registry)
    account = registry.policy.account_of("ci")
    registry.do(end, "ci")
    assert bindings(registry) == [] and not registry.policy.is_in_force(account, id)


def test_only_administrators_of_everything_bind(registry):
    registry.do(changes.create_account, "alice")
    registry.do(changes.grant, "alice", "team/*", ["admin"])
    alice, ci = (registry.policy.account_of(name) for name in ("alice", "ci"))
    id = bind(registry)
    for by in (alice, ci):
        assert (
            refused(registry, "administrator-required", changes.bind, "ci", GITHUB, {"repository_id": "1"}, by=by)
            == 403
        )
        assert refused(registry, "administrator-required", changes.unbind, id, by=by) == 403
    said = Bound(ci, GITHUB, '{"repository_id":"1"}')
    for by in (alice, ci):  # past the commands
        origin = Origin("f" * 16, by, registry.policy.heads, 5000 << 16, 1)
        policy = Policy([*registry.facts, Statement(origin, said)])
        assert [one.id for one in policy.bindings_to(GITHUB)] == [id] and "f" * 16 in policy.void


def test_what_a_removed_administrator_has_bound_is_void(registry):
    registry.do(changes.create_account, "alice", admin=True)
    alice = registry.policy.account_of("alice")
    bind(registry, by=alice)
    registry.do(changes.remove_account, "alice", distrust=True)
    assert bindings(registry) == []


@pytest.mark.parametrize(
    ("issuer", "claims"),
    [
        (GITHUB, {"repository": "octo/app"}),
        (GITHUB, {"sub": "repo:octo/app:ref:refs/heads/main"}),
        (GITHUB + "/octo", {"repository_owner": "octo", "ref": "refs/heads/main"}),
        ("https://github.example.com/_services/token", {"repository": "octo/app"}),
        (GITLAB, {"project_path": "group/app"}),
        (GITLAB, {"sub": "project_path:group/app:ref_type:branch:ref:main"}),
        (KUBERNETES, {"kubernetes.io": "x"}),
        ("https://kubernetes.default.svc", {"namespace": "ci"}),
        ("https://gitlab.example.com", {"project_path": "group/app"}),
        ("https://gitlab.example.com", {"project_path": "group/app", "ref": "main"}),
        ("https://sso.example.com", {"email": "alice@example.com"}),
        ("https://sso.example.com", {}),
        ("https://sso.example.com", {"sub": ""}),
        ("https://sso.example.com", {"": "x"}),
        ("https://sso.example.com", {"iss": "https://sso.example.com"}),
        ("https://sso.example.com", {"sub": "x", "aud": "concord"}),
        ("https://sso.example.com", {"sub": "x" * 400}),
        ("https://sso.example.com" + "/x" * 200, {"sub": "x"}),
        ("http://sso.example.com", {"sub": "x"}),
        ("http://127.0.0.1.example.com", {"sub": "x"}),
        ("ftp://sso.example.com", {"sub": "x"}),
        ("sso.example.com", {"sub": "x"}),
        ("https://", {"sub": "x"}),
        ("https://user@sso.example.com", {"sub": "x"}),
        ("https://sso.example.com?x", {"sub": "x"}),
        ("https://sso.example.com#x", {"sub": "x"}),
        ("https://sso.example.com:99999", {"sub": "x"}),
        ("https://sso.example.com\n", {"sub": "x"}),
        ("", {"sub": "x"}),
    ],
)
def test_a_binding_that_identifies_nothing_for_good_is_refused(registry, issuer, claims):
    assert refused(registry, "invalid", changes.bind, "ci", issuer, claims) == 400


@pytest.mark.parametrize(
    ("issuer", "claims"),
    [
        (GITHUB, {"repository_owner_id": "7", "environment": "production"}),
        (GITLAB, {"project_id": "22"}),
        (GITLAB, {"namespace_id": "3", "ref_protected": "true"}),
        (KUBERNETES, {"sub": SUB}),
        ("https://gitlab.example.com", {"project_id": "22", "project_path": "group/app"}),
        ("https://sso.example.com/realms/x/", {"sub": "Jürgen"}),
        ("http://127.0.0.1:8080", {"sub": "x"}),
        ("http://[::1]:8080", {"sub": "x"}),
        ("http://localhost:8080", {"sub": "x"}),
    ],
)
def test_a_stable_id_binds(registry, issuer, claims):
    bind(registry, issuer, claims)
    (found,) = bindings(registry, issuer)
    assert dict(found.claims) == claims


def test_an_expiry_that_has_passed_is_refused(registry):
    assert refused(registry, "invalid", changes.bind, "ci", GITHUB, {"repository_id": "1"}, expires_ms=1) == 400
    assert refused(registry, "account-unknown", changes.bind, "none", GITHUB, {"repository_id": "1"}) == 404


@pytest.mark.parametrize("text", ["{}", "{", '{"sub":1}', '{"sub":null}', '{"sub":["x"]}', '[["sub","x"]]', '"sub"'])
def test_a_fact_without_claims_matches_no_token(registry, text):
    assert read_claims(text) is None
    said = Bound(registry.policy.account_of("ci"), GITHUB, text)
    origin = Origin("f" * 16, "operator", registry.policy.heads, 5000 << 16, 1)
    assert Policy([*registry.facts, Statement(origin, said)]).bindings_to(GITHUB) == []


@pytest.mark.parametrize(
    ("claims", "matches"),
    [
        ({"sub": "x", "id": "42", "more": 1}, True),
        ({"sub": "x", "id": 42}, True),
        ({"sub": "x"}, False),
        ({"sub": "xy", "id": "42"}, False),
        ({"sub": "X", "id": "42"}, False),
        ({"sub": "x ", "id": "42"}, False),
        ({"sub": ["x"], "id": "42"}, False),
        ({"sub": None, "id": "42"}, False),
        ({"sub": "x", "id": 42.0}, False),
        ({"sub": "x", "id": {"42": 1}}, False),
        ({}, False),
    ],
)
def test_all_claims_have_to_be_equal(claims, matches):
    binding = Binding("id", "account", "ci", GITHUB, {"sub": "x", "id": "42"}, None)
    assert binding.matches(json.loads(json.dumps(claims))) is matches


def test_there_are_no_patterns():
    binding = Binding("id", "account", "ci", GITHUB, {"sub": "repo:*"}, None)
    assert binding.matches({"sub": "repo:*"}) and not binding.matches({"sub": "repo:octo/app"})
    flag = Binding("id", "account", "ci", GITHUB, {"protected": "true"}, None)
    assert flag.matches({"protected": True}) and not flag.matches({"protected": 1})
