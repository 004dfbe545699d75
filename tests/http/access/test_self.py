"""What an account may ask about itself: which account it is, by which credential, and what it may do."""

import json

import pytest

from tests.cli.test_cli import concord, refused
from tests.support.access import ADMINISTRATOR, PASSWORD, basic, done, enforce
from tests.support.server import running_server

SELF = "/_concord/access/self"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An instance of three processes that enforces access control, with a robot."""
    with running_server(tmp_path_factory.mktemp("self") / "data", workers="3") as server:
        enforce(server)
        done(server, "robot/create", name="ci")
        done(server, "grant", subject="ci", repositories="team/*", rights=["pull", "push"])
        done(server, "grant", subject="anonymous", repositories="public/*", rights=["pull"])
        done(server, "group/add", group="builders", account="ci")
        done(server, "grant", subject="group:builders", repositories="cache", rights=["delete"], expires_ms=1 << 50)
        yield server


@pytest.fixture
def ci(server):
    return basic("ci", done(server, "key/create", account="ci")["key"])


def ask(server, headers=None, method="GET"):
    return server.client.request(method, SELF, headers=headers or {})


def granted(answer):
    return {(one["subject"], one["repositories"], *one["rights"]) for one in answer["grants"]}


def test_an_account_learns_its_own_rights_and_no_others(server, ci):
    for _ in range(6):  # at whichever processes
        answer = ask(server, ci).json()
        assert (answer["name"], answer["kind"], answer["groups"]) == ("ci", "robot", ["builders"])
        assert answer["credential"]["kind"] == "key" and answer["enforced"]
        assert granted(answer) == {
            ("anonymous", "public/*", "pull"),
            ("ci", "team/*", "pull", "push"),
            ("group:builders", "cache", "delete"),
        }
        assert ADMINISTRATOR not in json.dumps(answer)


def test_a_token_says_what_its_scope_narrows_it_to(server, ci):
    token = server.client.request("GET", "/v2/token?scope=repository:team/app:pull", headers=ci).json()["token"]
    answer = ask(server, {"Authorization": f"Bearer {token}"}).json()
    assert answer["scopes"] == {"repository:team/app": ["pull"]} and answer["until_ms"]
    token = server.client.request("GET", "/v2/token").json()["token"]
    answer = ask(server, {"Authorization": f"Bearer {token}"}).json()
    assert (answer["name"], answer["account"], answer["credential"]) == ("anonymous", "", None)
    assert granted(answer) == {("anonymous", "public/*", "pull")}


def test_a_credential_that_does_not_count_learns_nothing(server):
    for headers in ({}, basic("ci", "wrong"), basic("unknown", "wrong"), {"Authorization": "Bearer x"}):
        answer = ask(server, headers)
        assert answer.status == 401 and b"team" not in answer.body, headers


def test_it_gives_no_way_into_what_administrators_may_ask(server, ci):
    assert ask(server, ci).status == 200
    for path in ("/_concord/status", "/_concord/conflicts"):
        assert server.client.request("GET", path, headers=ci).status == 403
    assert ask(server, ci, "POST").status == 404


def test_before_enforcement_a_login_is_checked_all_the_same(tmp_path):
    with running_server(tmp_path / "data", workers="2") as server:
        words = ["account", "create", ADMINISTRATOR, "--admin", "--password-stdin", "--url", server.url]
        assert concord(*words, stdin=PASSWORD + "\n").returncode == 0
        for _ in range(4):
            assert ask(server, basic(ADMINISTRATOR, "wrong password")).status == 401
            answer = ask(server, basic(ADMINISTRATOR, PASSWORD)).json()
            assert (answer["name"], answer["enforced"]) == (ADMINISTRATOR, False)
            assert ask(server).json()["name"] == "anonymous"


@pytest.mark.slow
def test_the_command_checks_a_login(server, ci, tmp_path):
    login = tmp_path / "login"
    key = done(server, "key/create", account="ci")
    login.write_text(f"ci:{key['key']}\n")
    ran = concord("login", "check", server.url, "--login", login)
    assert ran.returncode == 0, ran
    assert "ci (robot " in ran.stdout and f"signed in by key {key['id']}, no expiry" in ran.stdout
    assert "  cache  delete, expires after the year 9999  (granted to group:builders)" in ran.stdout
    assert "  team/*  pull,push  (granted to ci)" in ran.stdout and key["key"] not in ran.stdout
    assert json.loads(concord("login", "check", server.url, "--json", "--login", login).stdout)["name"] == "ci"
    done(server, "key/revoke", id=key["id"])
    ran = concord("login", "check", server.url, CONCORD_LOGIN=str(login))
    assert ran.returncode == 1 and "the login does not count" in ran.stdout, ran
    refused(concord("login", "check", server.url), "--login FILE")
    login.write_text(f"{ADMINISTRATOR}:{PASSWORD}\n")
    ran = concord("login", "check", server.url, "--login", login)
    assert ran.returncode == 0 and "  *  admin  (granted to root)" in ran.stdout, ran
