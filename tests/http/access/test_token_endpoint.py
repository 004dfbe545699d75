"""`/v2/token`: Docker's token protocol by GET, and OAuth 2.0 by POST."""

import json
import os
from base64 import urlsafe_b64decode
from urllib.parse import urlencode

import msgspec
import pytest

from registry.access.rights import CredentialKind
from tests.http.access.conftest import Guarded


@pytest.fixture
def member(at: Guarded):
    """An account of this test, which may pull from and push to `team/app`, and its password."""
    name = f"member-{os.urandom(4).hex()}"
    account = at.facts.account(name, "its password")
    at.facts.grant(account, "team/*", "pull", "push")
    return name, "its password", account


def ask(at, query="", headers=None):
    return at.ask("GET", f"/v2/token{query}", headers)


def post(at, headers=None, **fields):
    form = {"Content-Type": "application/x-www-form-urlencoded"} | (headers or {})
    return at.ask("POST", "/v2/token", form, urlencode(fields, doseq=True).encode())


def bearer(answer):
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def test_an_answer_has_the_fields_of_the_protocol(at, member):
    name, password, _ = member
    answer = ask(at, "?service=concord&scope=repository:team/app:pull,push", at.basic(name, password))
    body = answer.json()
    assert answer.status == 200 and answer.headers["Cache-Control"] == "no-store"
    assert body["token"] == body["access_token"] and body["expires_in"] == 900 and body["issued_at"].endswith("Z")
    assert body["scope"] == "repository:team/app:pull,push" and "refresh_token" not in body


@pytest.mark.parametrize(
    ("query", "granted"),
    [
        ("scope=repository:team/app:pull&scope=repository:team/b:push", {"team/app": "pull", "team/b": "push"}),
        ("scope=repository:team/app:pull+repository:team/b:push", {"team/app": "pull", "team/b": "push"}),
        ("scope=repository:team/app:pull&scope=repository:team/app:push", {"team/app": "pull,push"}),
        ("scope=repository:team/app:*", {"team/app": "pull,push"}),
        ("scope=repository:team/app:pull,delete", {"team/app": "pull"}),
        ("scope=repository:team/app:delete&scope=repository:other:pull", {}),
        ("", {}),
        ("scope=", {}),
    ],
)
def test_what_is_granted_is_what_was_asked_for_and_is_held(at, member, query, granted):
    name, password, _ = member
    answer = ask(at, f"?service=concord&{query}", at.basic(name, password))
    scopes = answer.json()["scope"].split()
    assert dict(scope.removeprefix("repository:").rsplit(":", 1) for scope in scopes) == granted


def test_an_anonymous_caller_gets_what_anonymous_may(at):
    at.facts.grant("anonymous", "public/*", "pull")
    answer = ask(at, "?scope=repository:public/app:pull,push&scope=repository:team/app:pull")
    assert answer.status == 200 and answer.json()["scope"] == "repository:public/app:pull"
    assert at.ask("GET", "/v2/public/app/tags/list", bearer(answer)).status in (200, 404)
    assert at.ask("GET", "/v2/", bearer(answer)).status == 200
    refused = at.ask("GET", "/v2/team/app/tags/list", bearer(answer))
    assert refused.status == 401 and 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]
    assert "refresh_token" not in ask(at, "?offline_token=true").json()


def test_a_right_that_is_granted_later_needs_another_token_and_no_other_login(at, member):
    name, password, account = member
    before = ask(at, "?scope=repository:later/app:pull&offline_token=true", at.basic(name, password))
    refused = at.ask("GET", "/v2/later/app/tags/list", bearer(before))
    assert refused.status == 403
    at.facts.grant(account, "later/*", "pull")
    refused = at.ask("GET", "/v2/later/app/tags/list", bearer(before))
    assert refused.status == 401 and 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]
    after = post(
        at,
        grant_type="refresh_token",
        refresh_token=before.json()["refresh_token"],
        service="concord",
        scope="repository:later/app:pull",
    )
    assert at.ask("GET", "/v2/later/app/tags/list", bearer(after)).status == 404


def test_a_revocation_counts_at_once(at, member):
    name, password, account = member
    token = bearer(ask(at, "?scope=repository:team/app:pull", at.basic(name, password)))
    basic = at.basic(name, password)
    for headers in (token, basic) * 3:  # also from the fast path of each process
        assert at.ask("GET", "/v2/team/app/manifests/v1", headers).status == 200
    at.facts.revoke(account)
    for headers in (token, basic) * 3:
        assert at.ask("GET", "/v2/team/app/manifests/v1", headers).status == 403


@pytest.mark.parametrize("end", ["block", "password", "removal"])
def test_tokens_end_with_their_credential(at, member, end):
    name, password, account = member
    answer = ask(at, "?offline_token=true&scope=repository:team/app:pull", at.basic(name, password))
    refresh = {"grant_type": "refresh_token", "refresh_token": answer.json()["refresh_token"]}
    assert post(at, **refresh).status == 200
    assert at.ask("GET", "/v2/", bearer(answer)).status == 200
    if end == "block":
        at.facts.block(account)
    elif end == "password":
        at.facts.password(account, "another password")
    else:
        del at.facts.state["accounts"][account]
        at.facts.write()
    refused = at.ask("GET", "/v2/", bearer(answer))
    assert refused.status == 401 and 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
    assert post(at, **refresh).status == 401
    assert ask(at, "", at.basic(name, password)).status == 401


def test_a_refresh_token_gets_tokens_and_does_nothing_else(at, member):
    name, password, _ = member
    refresh = ask(at, "?offline_token=true", at.basic(name, password)).json()["refresh_token"]
    assert at.ask("GET", "/v2/", {"Authorization": f"Bearer {refresh}"}).status == 401
    assert at.ask("GET", "/v2/", at.basic(name, refresh)).status == 401
    answer = post(at, grant_type="refresh_token", refresh_token=refresh, scope="repository:team/app:pull")
    assert answer.status == 200 and answer.json()["scope"] == "repository:team/app:pull"
    assert at.ask("GET", "/v2/team/app/manifests/v1", bearer(answer)).status == 200
    access = answer.json()["token"]
    assert post(at, grant_type="refresh_token", refresh_token=access).status == 401


def test_a_password_is_taken_by_post(at, member):
    name, password, _ = member
    answer = post(
        at,
        grant_type="password",
        username=name,
        password=password,
        service="concord",
        client_id="containerd",
        scope="repository:team/app:pull repository:team/b:push",
        access_type="offline",
    )
    assert answer.status == 200 and answer.json()["refresh_token"]
    assert answer.json()["scope"] == "repository:team/app:pull repository:team/b:push"
    assert post(at, grant_type="password", username=name, password="wrong").status == 401


def test_a_robot_logs_in_with_its_key(at):
    robot = f"robot-{os.urandom(4).hex()}"
    key = at.facts.robot(robot)
    answer = ask(at, "?offline_token=true", at.basic(robot, key))
    assert answer.status == 200
    changed = key[:-1] + ("a" if key[-1] != "a" else "b")
    assert ask(at, "", at.basic(robot, changed)).status == 401
    assert ask(at, "", at.basic("somebody-else", key)).status == 401


def test_a_token_lives_no_longer_than_the_key_it_was_got_with(at):
    import time

    robot = f"robot-{os.urandom(4).hex()}"
    key = at.facts.robot(robot, expires_ms=int(time.time() * 1000) + 300_000)
    answer = ask(at, "?offline_token=true", at.basic(robot, key))
    assert 290 <= answer.json()["expires_in"] <= 300
    for token in (answer.json()["token"], answer.json()["refresh_token"]):
        encoded = token.split(".")[1]
        claims = msgspec.msgpack.decode(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        assert claims[-1] * 1000 <= int(time.time() * 1000) + 300_000


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?service=registry.example", 400),
        ("?service=concord&service=concord", 400),
        ("?" + "&".join(f"scope=repository:a{n}:pull" for n in range(101)), 400),
        ("?account=somebody-else", 401),
        ("?scope=%00&account=", 200),
        ("?scope=repository:" + "a" * 2000 + ":pull", 200),
    ],
)
def test_requests_that_contradict_themselves_are_refused(at, member, query, status):
    name, password, _ = member
    assert ask(at, query, at.basic(name, password)).status == status


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({}, 400),
        ({"grant_type": "client_credentials"}, 400),
        ({"grant_type": ["password", "refresh_token"]}, 400),
        ({"grant_type": "refresh_token"}, 401),
        ({"grant_type": "refresh_token", "refresh_token": "nonsense"}, 401),
        ({"grant_type": "password"}, 401),
        ({"grant_type": "password", "username": "x" * 60_000}, 401),
        ({"grant_type": "password", "username": "x" * 70_000}, 413),
        ({str(n): "x" for n in range(300)}, 400),
    ],
)
def test_forms_that_make_no_sense_are_refused(at, form, status):
    assert post(at, **form).status == status


def test_a_body_that_is_no_form_is_refused(at):
    assert at.ask("POST", "/v2/token", {}, "grant_type=é".encode()).status == 400
    assert at.ask("POST", "/v2/token", {}, json.dumps({"grant_type": "password"}).encode()).status == 400


def test_a_token_gets_no_other_token(at, member):
    name, password, _ = member
    token = bearer(ask(at, "", at.basic(name, password)))
    assert ask(at, "?scope=repository:team/app:pull", token).status == 401


def test_a_page_of_another_site_gets_no_token_by_post(at, member):
    name, password, _ = member
    answer = post(at, {"Origin": "https://evil.example"}, grant_type="password", username=name, password=password)
    assert answer.status == 403


def test_the_endpoint_is_absent_where_nothing_is_enforced(at, member):
    at.facts.enforce(False)
    try:
        assert ask(at).status == 404
        assert at.ask("GET", "/v2/").status == 200
        assert at.ask("GET", "/v2/team/app/manifests/v1", {"Authorization": "Bearer nonsense"}).status == 200
    finally:
        at.facts.enforce()


def test_other_kinds_of_credentials_are_no_passwords(at, member):
    name, _, account = member
    at.facts.credential(account, CredentialKind.CERTIFICATE, "CN=member")
    assert ask(at, "", at.basic(name, "CN=member")).status == 401
