"""Administrators of a pattern: they grant, revoke and look within it, and learn nothing of anything else."""

import json

import pytest

from tests.cli.test_cli import concord, refused
from tests.support.access import ADMINISTRATOR, PASSWORD, basic, done, enforce
from tests.support.server import KEY, running_server

HIDDEN = ("secret", "hidden", "root", "bob", "wider-group")
"""Parts of names that an administrator of `team/*` is not to learn."""
OUTSIDE = ["*", "team*", "t*", "*/app", "team", "secret/*", "secret/app", "*team/*"]
"""Patterns that are broader than `team/*`, overlap it, or have nothing to do with it."""
WITHIN = ["team/*", "team/app", "team/a*", "team/*/x", "team/**"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An instance of three processes that enforces access control; `lead` administers team/*."""
    with running_server(tmp_path_factory.mktemp("delegation") / "data", workers="3", cluster_key=KEY) as server:
        enforce(server)
        for name in ("lead", "dev", "guest", "bob", "outsider"):
            done(server, "robot/create", name=name)
        done(server, "grant", subject="lead", repositories="team/*", rights=["admin"])
        done(server, "grant", subject="bob", repositories="secret/*", rights=["pull"])
        for name in ("dev", "guest"):
            done(server, "group/add", group="wider-group", account=name)
        done(server, "grant", subject="group:wider-group", repositories="*", rights=["push"])
        done(server, "grant", subject="dev", repositories="team/app", rights=["pull"])
        done(server, "grant", subject="anonymous", repositories="hidden/*", rights=["pull"])
        yield server


def key_of(server, name):
    return basic(name, done(server, "key/create", account=name)["key"])


@pytest.fixture(scope="module")
def lead(server):
    return key_of(server, "lead")


def send(server, headers, path, **fields):
    headers = {"Content-Type": "application/json"} | headers
    return server.client.request("POST", f"/_concord/access/{path}", json.dumps(fields).encode(), headers)


def learns_nothing(answer):
    return not any(name.encode() in answer.body for name in HIDDEN)


@pytest.mark.parametrize("pattern", WITHIN)
def test_it_grants_and_revokes_within_its_pattern(server, lead, pattern):
    for rights in (["pull", "push"], ["admin"]):
        assert send(server, lead, "grant", subject="guest", repositories=pattern, rights=rights).status == 200
    answer = send(server, lead, "revoke", subject="guest", repositories=pattern)
    assert answer.status == 200 and learns_nothing(answer)
    assert answer.json() == {"remaining": [], "wider": 1, "void": 0}, "the grant of its group is counted, not shown"
    assert done(server, "revoke", subject="guest", repositories=pattern)["wider"] == 0


@pytest.mark.parametrize("pattern", OUTSIDE)
def test_it_changes_nothing_outside_its_pattern(server, lead, pattern):
    before = done(server, "list")
    requests = [
        ("grant", {"subject": "outsider", "rights": ["pull"]}),
        ("grant", {"subject": "unknown", "rights": ["nonsense"]}),
        ("revoke", {"subject": "bob"}),
        ("revoke", {"subject": "unknown", "distrust": True}),
    ]
    for path, fields in requests:
        answer = send(server, lead, path, repositories=pattern, **fields)
        assert (answer.status, answer.code) == (403, "DENIED"), "the same, whatever exists"
        assert answer.json()["errors"][0]["detail"] == {
            "reason": "administrator-required", "right": "admin", "repository": pattern,
        }  # fmt: skip
    assert done(server, "list") == before


def test_it_is_shown_the_grants_within_its_pattern_alone(server, lead):
    answer = send(server, lead, "list")
    assert answer.status == 200 and learns_nothing(answer)
    found = answer.json()
    assert found.keys() == {"enforced", "restored", "grants"}
    assert {(one["subject"], one["repositories"]) for one in found["grants"]} == {
        ("lead", "team/*"), ("dev", "team/app"),
    }  # fmt: skip


def test_it_is_told_who_may_what_in_its_repositories_and_not_why_from_outside(server, lead):
    answer = send(server, lead, "explain", account="dev", repository="team/app")
    assert answer.status == 200 and learns_nothing(answer)
    found = answer.json()
    assert found["rights"].keys() == {"pull", "push"}, "also what a wider grant gives"
    assert [one["repositories"] for one in found["ways"]] == ["team/app"]
    assert (found["wider"], found["groups"]) == (1, [])
    whole = done(server, "explain", account="dev", repository="team/app")
    assert (whole["wider"], whole["groups"], len(whole["ways"])) == (0, ["wider-group"], 2)
    for account in ("dev", "unknown", "anonymous"):
        answer = send(server, lead, "explain", account=account, repository="secret/app")
        assert answer.status == 403 and b"there is no account" not in answer.body, "alike for all accounts"


def test_everything_else_stays_with_administrators_of_all_repositories(server, lead):
    requests = {
        "account/list": {},
        "account/create": {"name": "eve"},
        "robot/create": {"name": "eve"},
        "key/create": {"account": "dev"},
        "key/list": {"name": "dev"},
        "account/block": {"name": "dev"},
        "group/add": {"group": "wider-group", "account": "lead"},
        "group/list": {},
        "conflicts": {},
        "confirmations": {},
        "approve": {"id": "0" * 16},
        "enforce": {},
    }
    for _ in range(12):  # at all processes: what lets it in here lets it in nowhere else
        assert send(server, lead, "list").status == 200
    for path, fields in requests.items():
        answer = send(server, lead, path, **fields)
        assert answer.status == 403 and learns_nothing(answer), path
    for path in ("/_concord/status", "/_concord/conflicts", "/metrics"):
        assert server.client.request("GET", path, headers=lead).status == 403


def test_an_account_that_administers_nothing_is_refused(server):
    outsider = key_of(server, "outsider")
    for path, fields in {
        "list": {},
        "explain": {"account": "dev", "repository": "team/app"},
        "grant": {"subject": "outsider", "repositories": "team/app", "rights": ["pull"]},
        "revoke": {"subject": "dev", "repositories": "team/app"},
    }.items():
        assert send(server, outsider, path, **fields).status == 403, path
        assert send(server, {}, path, **fields).status == 401, path
        assert send(server, basic("lead", "wrong"), path, **fields).status == 401, path


@pytest.mark.parametrize("scope", ["", "repository:team/app:*", "repository:team/*:*", "registry:admin:*"])
def test_a_token_of_such_an_administrator_administers_nothing(server, lead, scope):
    token = server.client.request("GET", f"/v2/token?scope={scope}", headers=lead).json()["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    answer = send(server, bearer, "grant", subject="outsider", repositories="team/app", rights=["pull"])
    assert answer.status == 403, answer


def test_a_token_of_an_administrator_of_all_needs_the_scope_of_administration(server):
    root = basic(ADMINISTRATOR, PASSWORD)
    for scope, status in (("registry:admin:*", 200), ("repository:team/app:*", 401), ("", 401)):
        token = server.client.request("GET", f"/v2/token?scope={scope}", headers=root).json()["token"]
        assert send(server, {"Authorization": f"Bearer {token}"}, "list").status == status, scope
    anonymous = server.client.request("GET", "/v2/token?scope=registry:admin:*").json()["token"]
    assert send(server, {"Authorization": f"Bearer {anonymous}"}, "list").status == 401


@pytest.mark.slow
def test_the_commands_work_for_such_an_administrator(server, tmp_path):
    login = tmp_path / "login"
    login.write_text(f"lead:{done(server, 'key/create', account='lead')['key']}\n")
    options = ["--url", server.url, "--login", login]
    ran = concord("grant", "guest", "team/x", "pull", *options)
    assert ran.returncode == 0, ran
    ran = concord("access", "list", *options)
    assert ran.returncode == 0 and "guest  team/x  pull" in ran.stdout and "administrators" not in ran.stdout, ran
    ran = concord("revoke", "guest", "team/*", *options)
    assert ran.returncode == 1 and "1 grants of wider or other patterns" in ran.stdout, ran
    ran = concord("access", "explain", "dev", "team/app", *options)
    assert ran.returncode == 0 and "dev may pull, push" in ran.stdout and "1 grants of wider" in ran.stdout, ran
    refused(concord("grant", "outsider", "*", "pull", *options), "this needs the right admin on all that '*' matches")


def test_the_holder_of_the_cluster_key_needs_no_account(server):
    from registry.cli.client import NoAnswer, act

    assert act(server.url, "/_concord/access/list", {}, [KEY])["administrators"] == [ADMINISTRATOR]
    with pytest.raises(NoAnswer, match="answered 401"):
        act(server.url, "/_concord/access/list", {}, ["another key of the cluster"])


def test_an_administrator_that_is_no_longer_one_is_refused_at_once(server):
    done(server, "robot/create", name="former")
    done(server, "grant", subject="former", repositories="team/*", rights=["admin"])
    former = key_of(server, "former")
    for _ in range(3):
        assert send(server, former, "list").status == 200
    done(server, "revoke", subject="former", repositories="team/*")
    for _ in range(3):
        assert send(server, former, "list").status == 403
