"""ID tokens at an instance of three processes: the exchange, in place of a password, and what is refused."""

import os
import time
from base64 import urlsafe_b64decode
from urllib.parse import urlencode

import msgspec
import pytest

from registry.access.tokens import Claims
from registry.http.access.identity_checks import ACCESS_TOKEN_TYPE, ID_TOKEN_TYPE, JWT_TYPE, TOKEN_EXCHANGE
from registry.http.access.token_endpoint import IDENTITY_REFRESH_S
from registry.telemetry.events import LogEvent
from tests.http.access.conftest import Guarded
from tests.support.issuer import Issuer, key, signed
from tests.support.server import wait_until

PULL = "repository:team/app:pull"
PATH = "/v2/team/app/manifests/v1"


@pytest.fixture(scope="module")
def issuer():
    with Issuer() as serving:
        yield serving


@pytest.fixture
def bound(at: Guarded, issuer):
    """The name and the id of an account of this test, and the subject to which it is bound."""
    name = f"bound-{os.urandom(4).hex()}"
    account = at.facts.account(name)
    at.facts.grant(account, "team/*", "pull")
    at.facts.bind(account, issuer.url, sub=name)
    return name, account


def post(at, **fields):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return at.ask("POST", "/v2/token", form, urlencode(fields).encode())


def exchange(at, token, **fields):
    given = {"grant_type": TOKEN_EXCHANGE, "subject_token": token, "subject_token_type": ID_TOKEN_TYPE}
    return post(at, **given | fields)


def bearer(answer):
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def test_an_id_token_is_exchanged_for_a_token_of_the_registry(at, issuer, bound):
    for kind in (ID_TOKEN_TYPE, JWT_TYPE) * 2:
        answer = exchange(at, issuer.token(sub=bound[0]), scope=f"{PULL},push", subject_token_type=kind)
        body = answer.json()
        assert answer.status == 200 and answer.headers["Cache-Control"] == "no-store"
        assert body["issued_token_type"] == ACCESS_TOKEN_TYPE and body["token_type"] == "Bearer"
        assert body["scope"] == PULL and body["expires_in"] == 900 and "refresh_token" not in body
        assert at.ask("GET", PATH, bearer(answer)).status == 200
    assert exchange(at, issuer.token(sub=bound[0]), account=bound[0]).status == 200
    assert exchange(at, issuer.token(sub=bound[0]), account="another").status == 401


@pytest.mark.parametrize(
    "fields",
    [
        {"subject_token_type": "urn:ietf:params:oauth:token-type:access_token"},
        {"subject_token_type": ""},
        {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        {"actor_token": "x"},
    ],
)
def test_an_exchange_of_anything_else_is_malformed(at, issuer, bound, fields):
    assert exchange(at, issuer.token(sub=bound[0]), **fields).status == 400


def test_an_id_token_stands_in_place_of_a_password(at, issuer, bound):
    name, _ = bound
    password = at.basic(name, issuer.token(sub=name))
    for _ in range(4):
        answer = at.ask("GET", f"/v2/token?service=concord&account={name}&scope={PULL}", password)
        assert answer.status == 200 and answer.json()["scope"] == PULL and "refresh_token" not in answer.json()
        assert at.ask("GET", PATH, password).status == 200
        assert at.ask("GET", "/v2/", password).status == 200
        assert at.ask("GET", "/v2/other/app/tags/list", password).status == 403
    posted = post(at, grant_type="password", username=name, password=issuer.token(sub=name), scope=PULL)
    assert posted.status == 200 and posted.json()["scope"] == PULL
    assert at.ask("GET", PATH, at.basic("another", issuer.token(sub=name))).status == 401
    assert at.ask("GET", PATH, {"Authorization": f"Bearer {issuer.token(sub=name)}"}).status == 401


def test_docker_login_keeps_a_refresh_token_for_an_hour(at, issuer, bound):
    name, account = bound
    login = at.ask("GET", f"/v2/token?offline_token=true&account={name}", at.basic(name, issuer.token(sub=name)))
    encoded = login.json()["refresh_token"].split(".")[1]
    claims = msgspec.msgpack.decode(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)), type=Claims)
    assert claims.expires_s - claims.issued_s == IDENTITY_REFRESH_S
    refresh = {"grant_type": "refresh_token", "refresh_token": login.json()["refresh_token"], "scope": PULL}
    answer = post(at, **refresh)
    assert answer.status == 200 and at.ask("GET", PATH, bearer(answer)).status == 200
    at.facts.unbind(account)
    assert post(at, **refresh).status == at.ask("GET", PATH, bearer(answer)).status == 401


@pytest.mark.parametrize("end", ["unbind", "block", "removal"])
def test_a_token_ends_with_the_binding_and_the_account(at, issuer, bound, end):
    name, account = bound
    password = at.basic(name, issuer.token(sub=name))
    token = bearer(exchange(at, issuer.token(sub=name), scope=PULL))
    for headers in (token, password) * 3:
        assert at.ask("GET", PATH, headers).status == 200
    if end == "unbind":
        at.facts.unbind(account)
    elif end == "block":
        at.facts.block(account)
    else:
        del at.facts.state["accounts"][account]
        at.facts.write()
    for headers in (token, password) * 3:
        assert at.ask("GET", PATH, headers).status == 401
    assert exchange(at, issuer.token(sub=name)).status == 401


def test_a_token_does_not_outlive_its_binding(at, issuer, bound):
    name, account = bound
    at.facts.unbind(account)
    at.facts.bind(account, issuer.url, expires_ms=int(time.time() * 1000) + 4000, sub=name)
    answer = exchange(at, issuer.token(sub=name), scope=PULL)
    assert answer.json()["expires_in"] <= 4
    password = at.basic(name, issuer.token(sub=name))
    assert at.ask("GET", PATH, bearer(answer)).status == at.ask("GET", PATH, password).status == 200
    wait_until(lambda: at.ask("GET", PATH, bearer(answer)).status == 401)
    wait_until(lambda: at.ask("GET", PATH, password).status == 401)
    assert exchange(at, issuer.token(sub=name)).status == 401


def test_a_decision_by_an_id_token_ends_with_the_id_token(at, issuer, bound):
    name, _ = bound
    now = int(time.time())
    password = at.basic(name, issuer.token(sub=name, iat=now - 100, exp=now - 56))  # 4 s left, of the skew
    wait_until(lambda: at.ask("GET", PATH, password).status == 401)


def test_forged_tokens_are_refused_by_every_process(at, issuer, bound):
    name, now = bound[0], int(time.time())
    claims = issuer.claims(sub=name)
    own = key("own", "RS256")
    head, _, signature = issuer.token(sub=name).split(".")
    _, other_body, _ = Issuer(issuer.url).token(sub=name, repository="x").split(".")
    forged = [
        f"{head}.{other_body}.{signature}",
        f"eyJhbGciOiJub25lIiwia2lkIjoib25lIn0.{other_body}.",
        signed({"alg": "RS256", "kid": "own", "jwk": own.as_dict(private=False)}, claims, own),
        signed({"alg": "RS256", "kid": "own", "jku": f"{issuer.url}/keys"}, claims, own),
        signed({"alg": "RS256", "kid": "../../../../dev/null"}, claims, own),
        issuer.token(sub=name, aud="another"),
        issuer.token(sub=name, iss="https://another.example"),
        issuer.token(sub=name, iat=now - 700, exp=now + 700),
        issuer.token(sub=name, exp=now - 61),
        issuer.token(sub="another"),
    ]
    for text in forged:
        for _ in range(3):
            answers = [exchange(at, text), at.ask("GET", PATH, at.basic(name, text))]
            for answer in answers:
                assert answer.status == 401, text
                assert answer.headers["WWW-Authenticate"].startswith("Bearer realm=")


def test_a_token_that_is_presented_again_counts_and_is_logged(at, issuer, bound):
    text = issuer.token(sub=bound[0])
    assert exchange(at, text).status == exchange(at, text).status == 200
    wait_until(lambda: at.server.logged(LogEvent.ID_TOKEN_REUSED, account=bound[0]))
    log = at.server.log.read_text()
    assert text not in log and text.rpartition(".")[2] not in log


def test_an_issuer_that_is_down_is_said_so(at, bound):
    with Issuer() as down:
        down.is_down = True
        at.facts.bind(bound[1], down.url, sub="x")
        for _ in range(3):
            for answer in (
                exchange(at, down.token(sub="x")),
                at.ask("GET", PATH, at.basic(bound[0], down.token(sub="x"))),
            ):
                assert answer.status == 503 and answer.headers["Retry-After"] == "60", answer
                assert answer.json()["errors"][0]["detail"]["reason"] == "issuer-unavailable"
        assert sum(down.requests.values()) == 1, "one attempt a minute"


def test_an_id_token_signs_in_to_administer(at, issuer, bound):
    name, account = bound
    password = at.basic(name, issuer.token(sub=name))
    assert at.ask("GET", "/_concord/status", password).status == 403
    at.facts.grant(account, "*", "admin")
    assert at.ask("GET", "/_concord/status", password).status == 200


def test_an_instance_of_one_process_does_the_same(alone_at, issuer):
    account = alone_at.facts.account("alone")
    alone_at.facts.grant(account, "team/*", "pull")
    alone_at.facts.bind(account, issuer.url, sub="alone")
    answer = exchange(alone_at, issuer.token(sub="alone"), scope=PULL)
    assert alone_at.ask("GET", PATH, bearer(answer)).status == 200
    assert alone_at.ask("GET", PATH, alone_at.basic("alone", issuer.token(sub="alone"))).status == 200
    assert exchange(alone_at, issuer.token(sub="another")).status == 401
