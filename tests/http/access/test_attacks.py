"""Attacks on the gate, each as a request that must be refused, or must tell nothing."""

import http.client
import os
import socket
import time

import pytest

from registry.audit.log import STRANGERS_A_MINUTE
from tests.http.access.conftest import Guarded
from tests.http.access.test_matrix import forged
from tests.support.client import sha256, with_digest
from tests.support.images import image

ABSENT = f"sha256:{'7' * 64}"


@pytest.fixture
def account(at: Guarded):
    """Make accounts with rights on a pattern; return the header of each."""

    def make(pattern="", *rights):
        name = f"account-{os.urandom(4).hex()}"
        made = at.facts.account(name, "its password")
        if pattern:
            at.facts.grant(made, pattern, *rights)
        return at.basic(name, "its password"), name, made

    return make


def raw(at: Guarded, *lines: str) -> tuple[int, bytes]:
    """Send a head as it is, and return the status and the whole answer."""
    with socket.create_connection((at.server.host, at.server.port), 10) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\nConnection: close\r\n\r\n").encode("latin-1"))
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return int(answer.split(b" ", 2)[1]), answer


# Authorization


def test_two_authorization_headers_are_refused_whatever_they_say(at, account):
    headers, *_ = account("team/*", "pull")
    good = headers["Authorization"]
    assert at.ask("GET", "/v2/team/app/manifests/v1", headers).status == 200  # and cached
    for first, second in ((good, good), (good, "Bearer nonsense"), ("Bearer nonsense", good), ("", good), (good, "")):
        status, _ = raw(
            at,
            "GET /v2/team/app/manifests/v1 HTTP/1.1",
            "Host: localhost",
            f"Authorization: {first}",
            f"Authorization: {second}",
        )
        assert status == (401 if first and second else status)
        assert status in (200, 401)


@pytest.mark.parametrize(
    "value",
    [
        "Basic", "Basic ", "Basic !!!", "Basic YWJj", "Basic OnBhc3N3b3Jk", "Bearer", "Bearer ", "basic", "Digest x",
        "Basic " + "A" * 30_000, "Bearer " + "A" * 30_000, "Basic w6k6w6k=",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_and_is_not_taken_for_nothing(at, value):
    at.facts.grant("anonymous", "public/*", "pull")
    for path in ("/v2/public/app/tags/list", "/v2/"):
        assert at.ask("GET", path, {"Authorization": value}).status == 401


def test_the_scheme_is_read_in_any_case(at, account):
    headers, *_ = account("team/*", "pull")
    value = headers["Authorization"].replace("Basic", "bAsIc")
    assert at.ask("GET", "/v2/team/app/manifests/v1", {"Authorization": value}).status == 200


def test_the_name_of_another_account_is_not_taken_from_the_query(at, account):
    headers, name, _ = account("team/*", "pull")
    _, other, _ = account("secret/*", "pull")
    answer = at.ask("GET", f"/v2/token?account={other}&scope=repository:secret/app:pull", headers)
    assert answer.status == 401
    answer = at.ask("GET", f"/v2/token?account={name}&scope=repository:secret/app:pull", headers)
    assert answer.status == 200 and answer.json()["scope"] == ""


# Realm


def realm(answer) -> str:
    return answer.headers["WWW-Authenticate"].partition('realm="')[2].partition('"')[0]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("registry.example", "http://registry.example/v2/token"),
        ("registry.example:5000", "http://registry.example:5000/v2/token"),
        ("[::1]:5000", "http://[::1]:5000/v2/token"),
        ('evil.example",service="x', None),
        ("evil.example/path?", None),
        ("user@evil.example", None),
        ("evil.example:port", None),
        ("", None),
    ],
)
def test_the_realm_repeats_a_host_that_is_one_and_nothing_else(at, host, expected):
    answer = at.ask("GET", "/v2/", {"Host": host})
    if expected is None:
        assert answer.status == 400 and b"evil" not in answer.body and "WWW-Authenticate" not in answer.headers
    else:
        assert answer.status == 401 and realm(answer) == expected


def test_a_client_without_a_host_is_given_the_instances_own_address(at):
    status, answer = raw(at, "GET /v2/ HTTP/1.0")
    assert status == 401 and f'realm="http://{at.server.address}/v2/token"'.encode() in answer


def test_two_hosts_are_not_repeated(at):
    status, answer = raw(at, "GET /v2/ HTTP/1.1", "Host: evil.example", "Host: other.example")
    assert status == 400 or b"evil.example" not in answer


def test_a_client_that_is_no_proxy_does_not_choose_the_realm(at):
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    assert realm(at.ask("GET", "/v2/", headers)) == f"http://{at.server.address}/v2/token"


# What may not be seen


def shape(answer, name):
    """Return all of an answer but for what names the request."""
    headers = {key.lower(): value.replace(name, "NAME") for key, value in answer.headers.items()}
    del headers["x-request-id"], headers["date"]
    return answer.status, headers, answer.body.replace(name.encode(), b"NAME")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "POST"])
@pytest.mark.parametrize(
    "rest", ["manifests/v1", "manifests/{manifest}", "blobs/{blob}", "tags/list", "referrers/{manifest}"]
)
def test_forbidden_and_absent_repositories_answer_alike(at, account, method, rest):
    stranger, *_ = account()
    rest = rest.format(manifest=at.manifest, blob=at.blob)
    anonymous = at.token("repository:team/app:pull")
    for headers in ({}, stranger, anonymous):
        body = b"" if method in ("PUT", "POST") else None
        there = at.ask(method, f"/v2/team/app/{rest}", headers, body)
        absent = at.ask(method, f"/v2/team/xyz/{rest}", headers, body)
        assert there.status in (401, 403)
        assert shape(there, "team/app") == shape(absent, "team/xyz")


def test_a_blob_known_by_its_digest_is_not_given_in_another_repository(at, account):
    headers, *_ = account("mine/*", "pull", "push")
    for method in ("GET", "HEAD"):
        assert at.ask(method, f"/v2/mine/app/blobs/{at.blob}", headers).status == 404
        assert at.ask(method, f"/v2/mine/app/manifests/{at.manifest}", headers).status == 404
        assert at.ask(method, f"/v2/team/app/blobs/{at.blob}", headers).status == 403


def mount(at, headers, repository, digest, source=None):
    query = f"?mount={digest}" + (f"&from={source}" if source else "")
    return at.ask("POST", f"/v2/{repository}/blobs/uploads/{query}", headers, b"").status


@pytest.mark.parametrize("source", ["team/app", None])
def test_a_mount_takes_nothing_that_may_not_be_pulled(at, account, source):
    own = f"mine-{os.urandom(4).hex()}/app"
    headers, name, made = account(own, "pull", "push")
    token = at.token(f"repository:{own}:pull,push+repository:team/app:pull", name, "its password")
    for credential in (headers, token):
        assert mount(at, credential, own, at.blob, source) == 202
        assert mount(at, credential, own, ABSENT, source) == 202
        assert at.ask("GET", f"/v2/{own}/blobs/{at.blob}", credential).status == 404
    at.facts.grant(made, "team/app", "pull")
    assert mount(at, token, own, at.blob, source) == 202, "the token's scope does not name the source"
    token = at.token(f"repository:{own}:pull,push+repository:team/app:pull", name, "its password")
    assert mount(at, token, own, at.blob, source) == 201
    assert mount(at, headers, own, at.blob, source) == (201 if source else 202), "a password names no repository"


def test_a_sparse_manifest_gives_no_access_to_what_it_names(tmp_path, account):
    from tests.http.access.conftest import guarded

    with guarded(tmp_path, sparse="true") as at:
        at.facts.grant(at.facts.account("thief", "password"), "mine/*", "pull", "push")
        thief = at.basic("thief", "password")
        body = image(b"team/app")
        headers = thief | {"Content-Type": body.media_type}
        assert at.ask("PUT", "/v2/mine/app/manifests/v1", headers, body.body).status == 201
        for blob in body.blobs:
            assert at.ask("GET", f"/v2/mine/app/blobs/{sha256(blob)}", thief).status == 404
            assert at.ask("HEAD", f"/v2/mine/app/blobs/{sha256(blob)}", thief).status == 404


def test_the_catalog_names_what_may_be_pulled_and_pages_rightly(at, account):
    prefix = f"listed-{os.urandom(4).hex()}"
    root, *_ = account("*", "admin")
    names = [f"{prefix}/{letter}" for letter in "abcdef"]
    for name in names:
        answer = at.ask("POST", f"/v2/{name}/blobs/uploads/?mount={at.blob}&from=team/app", root, b"")
        assert answer.status == 201
    at.facts.revoke("anonymous")
    headers, _, made = account()
    assert at.ask("GET", "/v2/_catalog", headers).json() == {"repositories": []}
    assert at.ask("GET", "/v2/_catalog?n=2", headers).json() == {"repositories": []}
    for name in names[::2]:
        at.facts.grant(made, name, "pull")
    at.facts.grant(made, names[1], "push")
    visible = set(at.ask("GET", "/v2/_catalog", headers).json()["repositories"])
    assert {name for name in visible if name.startswith(prefix)} == set(names[::2])
    assert "team/app" not in visible
    found, path = [], "/v2/_catalog?n=1"
    while path:
        answer = at.ask("GET", path, headers)
        page = answer.json()["repositories"]
        assert len(page) <= 1
        found += page
        path = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert found == sorted(visible)
    assert set(names) <= set(at.ask("GET", "/v2/_catalog", root).json()["repositories"])


def test_health_names_nothing_and_the_internal_api_refuses(at):
    assert b"team" not in at.ask("GET", "/readyz").body + at.ask("GET", "/healthz").body
    for path in ("/_concord/status", "/_concord/conflicts", "/_concord/digest", "/metrics"):
        answer = at.ask("GET", path)
        assert answer.status == 401 and b"team" not in answer.body


@pytest.mark.parametrize("path", ["%74eam/app/manifests/v1", "team%2Fapp/manifests/v1", "/team/app/tags/list"])
def test_other_spellings_of_a_path_are_decided_too(at, path):
    assert at.ask("GET", f"/v2/{path}").status == 401


# Uploads


def test_an_upload_belongs_to_the_account_that_began_it(at, account):
    own = f"shared-{os.urandom(4).hex()}/app"
    first, *_ = account(own, "pull", "push")
    other, *_ = account(own, "pull", "push")
    for _ in range(4):  # at whichever process
        begun = at.ask("POST", f"/v2/{own}/blobs/uploads/", first, b"")
        location = begun.headers["Location"]
        assert at.ask("PATCH", location, other, b"theirs").status == 404
        assert at.ask("GET", location, other).status == 404
        assert at.ask("DELETE", location, other).status == 404
        patched = at.ask("PATCH", location, first, b"mine")
        assert patched.status == 202
        assert at.ask("PUT", with_digest(patched.headers["Location"], sha256(b"mine")), other, b"").status == 404
        assert at.ask("PUT", with_digest(patched.headers["Location"], sha256(b"mine")), first, b"").status == 201


def test_a_token_that_has_expired_ends_the_upload_it_began(at, tmp_path):
    from tests.http.access.conftest import guarded

    with guarded(tmp_path, clustered=True) as at:
        owner = at.facts.account("owner", "password of owner")
        at.facts.grant(owner, "team/*", "push")
        now_s = int(time.time())
        live, expired = (
            {"Authorization": f"Bearer {forged(at, 'owner', expires_s=now_s + more_s)}"} for more_s in (100, -100)
        )
        late = {"Authorization": f"Bearer {forged(at, 'owner', expires_s=now_s - 3700)}"}
        location = at.ask("POST", "/v2/team/app/blobs/uploads/", live, b"").headers["Location"]
        assert at.ask("PATCH", location, late, b"long").status == 401
        patched = at.ask("PATCH", location, expired, b"long")
        assert patched.status == 202
        assert at.ask("POST", "/v2/team/app/blobs/uploads/", expired, b"").status == 401
        assert at.ask("PUT", "/v2/team/app/manifests/v2", expired, b"{}").status == 401
        finish = with_digest(patched.headers["Location"], sha256(b"long"))
        at.facts.block(owner)
        assert at.ask("PUT", finish, expired, b"").status == 401, "a revocation counts at once"
        at.facts.block(owner, False)
        assert at.ask("PUT", finish, expired, b"").status == 201


# Guessing


def test_guessing_is_bounded_and_the_owner_is_not_locked_out(tmp_path):
    from tests.http.access.conftest import guarded

    with guarded(tmp_path, trusted_proxies="127.0.0.1") as at:
        at.facts.grant(at.facts.account("victim", "right"), "team/*", "pull")

        def login(password, client):
            return at.ask("GET", "/v2/", at.basic("victim", password) | {"X-Forwarded-For": client})

        statuses = [login(f"guess {number}", "192.0.2.7").status for number in range(14)]
        assert statuses[:10] == [401] * 10 and set(statuses[10:]) == {429}
        refused = login("one more", "192.0.2.8")  # of the same network
        assert refused.status == 429 and int(refused.headers["Retry-After"]) >= 1
        assert login("right", "198.51.100.4").status == 200, "the owner is elsewhere"
        assert login("right", "192.0.2.7").status in (200, 429), "by the cache of decisions, in some processes"
        assert login("guess 1", "198.51.100.4").status == 401


def test_a_repeated_wrong_password_counts_once(tmp_path):
    from tests.http.access.conftest import guarded

    with guarded(tmp_path) as at:
        at.facts.account("victim", "right")
        begun = time.monotonic()
        statuses = {at.ask("GET", "/v2/", at.basic("victim", "wrong")).status for _ in range(40)}
        assert statuses == {401} and time.monotonic() - begun < 2


def test_no_secret_is_written_to_the_log(at, account):
    headers, name, _ = account("team/*", "pull")
    token = at.token("repository:team/app:pull", name, "its password")
    at.ask("GET", "/v2/", token)
    at.ask("GET", "/v2/", at.basic(name, "a wrong secret"))
    at.ask("GET", "/v2/", at.basic("a secret in the wrong field", "x"))
    key = at.facts.robot(f"robot-{os.urandom(4).hex()}")
    at.ask("GET", "/v2/", at.basic(name, key))
    text = at.server.log.read_text()
    sent = token["Authorization"].split()[1], headers["Authorization"].split()[1]
    for secret in ("its password", "a wrong secret", "wrong field", key, *sent):
        assert secret not in text


def test_a_kept_connection_is_asked_again_at_each_request(at, account):
    headers, _, made = account("team/*", "pull")
    connection = http.client.HTTPConnection(at.server.host, at.server.port, timeout=10)
    statuses = []
    for step in range(9):
        if step == 3:
            at.facts.block(made)
        if step == 6:
            at.facts.block(made, False)
        connection.request("GET", "/v2/team/app/manifests/v1", headers=headers if step != 8 else {})
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    assert statuses == [200, 200, 200, 401, 401, 401, 200, 200, 401]


def test_a_right_guess_is_told_from_wrong_ones_by_nothing_once_there_were_too_many(at, account):
    """The owner has signed in, so that the password is known to be right without being hashed again."""
    own = f"guessed-{os.urandom(4).hex()}/app"
    headers, name, _ = account(own, "pull")
    assert at.ask("GET", "/v2/", headers).status == 200
    statuses = [at.ask("GET", "/v2/token?service=concord", at.basic(name, f"guess {n}")).status for n in range(60)]
    assert 429 in statuses
    right = [at.ask("GET", f"/v2/token?service=concord&scope=n{n}", headers).status for n in range(5)]
    assert set(right) == {429}


def test_a_query_of_many_fields_is_refused_at_once(at):
    query = "&".join(f"f{number}" for number in range(9000))
    begun = time.perf_counter()
    assert at.ask("GET", f"/v2/token?{query}").status == 400
    assert time.perf_counter() - begun < 1


def test_a_long_name_costs_no_hash_and_no_memory(at):
    begun = time.perf_counter()
    for number in range(20):
        assert at.ask("GET", "/v2/", at.basic("n" * 20_000 + str(number), "password")).status == 401
    assert time.perf_counter() - begun < 1


def test_refusals_of_strangers_do_not_push_others_out_of_the_audit_log(at):
    for number in range(100):
        assert at.ask("GET", f"/v2/{'x' * 20_000}{number}/tags/list").status == 401
    time.sleep(1)
    lines = [line for file in (at.server.data / "audit").glob("*") for line in file.read_bytes().splitlines()]
    strangers = [line for line in lines if b"/v2/xxxx" in line]
    assert len(strangers) <= 3 * STRANGERS_A_MINUTE and max(map(len, lines)) < 1000
