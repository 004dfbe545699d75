"""The gate in one process: client certificates, the cache of decisions, expiry, and what is not asked at all."""

from types import SimpleNamespace

import pytest

from registry.access.rights import CredentialKind, Right
from registry.access.tokens import Claims, TokenUse, seal_token
from registry.config import Config
from registry.errors import Denied, NothingHere, Unauthorized
from registry.http.access.admission import permissions_of
from registry.http.access.gate import MAX_CACHED, MAX_CACHED_BYTES, UPLOAD_GRACE_S, Gate
from registry.http.oci.paths import parse_api_path
from registry.http.wire.client_certificate import CLIENT_CERTIFICATE
from tests.support.access_view import Facts, FileView
from tests.support.seams import StillClock

KEY = b"k" * 32
TARGET = b"/v2/team/app/manifests/v1"
QUIET = SimpleNamespace(takes_reads=False)
"""An audit log that is off."""


class NoPasswords:
    """Fails where a password is checked."""

    async def check(self, attempt, credentials):
        raise AssertionError("a password was checked")


class NoIdentities:
    """Fails where an ID token is checked."""

    async def check(self, presented):
        raise AssertionError("an ID token was checked")


class Setting:
    """A gate over facts."""

    def __init__(self, directory, **settings):
        self.facts, self.clock = Facts(directory / "facts.json"), StillClock()
        self.view = FileView(self.facts.path)
        config = Config(data=directory, **settings)
        self.gate = Gate(self.view, lambda: [KEY], self.clock, NoPasswords(), NoIdentities(), QUIET, config)
        self.alice = self.facts.account("alice", "x", certificate="CN=alice")
        self.credential = self.facts.state["accounts"][self.alice]["credentials"][0][0]

    def token(self, scopes=None, account=None, credential=None, age_s=0, life_s=900):
        now_s = self.clock.now_ms() // 1000 - age_s
        scopes = {"repository:team/app": list(Right)} if scopes is None else scopes
        claims = Claims(
            TokenUse.ACCESS,
            "concord",
            self.alice if account is None else account,
            "alice",
            self.credential if credential is None else credential,
            [],
            scopes,
            now_s,
            now_s + life_s,
        )
        return [(b"authorization", f"Bearer {seal_token(claims, KEY)}".encode())]

    async def admit(
        self, method="GET", path="/v2/team/app/manifests/v1", headers=(), certificate="", is_internal=False
    ):
        scope = {"method": method, "path": path, "headers": list(headers), "scheme": "https"}
        if certificate:
            scope[CLIENT_CERTIFICATE] = certificate
        await self.gate.admit(scope, parse_api_path(path), is_internal)
        return permissions_of(scope)


@pytest.fixture
def at(tmp_path):
    return Setting(tmp_path)


async def test_a_client_certificate_is_an_identity_of_its_own(at):
    with pytest.raises(Denied):
        await at.admit(certificate="CN=alice")
    at.facts.grant(at.alice, "team/*", "pull")
    permissions = await at.admit(certificate="CN=alice")
    assert permissions.admission.caller.account == at.alice
    assert await at.admit(path="/v2/", certificate="CN=alice")
    for subject in ("CN=bob", "cn=alice", "x"):
        with pytest.raises(Unauthorized):
            await at.admit(certificate=subject)
    at.facts.block(at.alice)
    with pytest.raises(Unauthorized):
        await at.admit(certificate="CN=alice")


async def test_authorization_counts_before_the_certificate(at):
    at.facts.grant(at.alice, "team/*", "pull")
    for value in (b"Bearer nonsense", b"Basic !"):
        with pytest.raises(Unauthorized):
            await at.admit(headers=[(b"authorization", value)], certificate="CN=alice")


async def test_a_certificate_is_no_authorization_of_another_request(at):
    at.facts.grant(at.alice, "team/*", "pull")
    await at.admit(certificate="CN=alice")
    assert not at.gate.lets_in_at_once(TARGET, [])
    assert not at.gate.lets_in_at_once(TARGET, [(b"authorization", b"\0CN=alice")])
    with pytest.raises(Unauthorized):
        await at.admit(headers=[(b"authorization", b"\0CN=alice")])


async def test_a_decision_serves_the_fast_path_until_a_fact_changes(at):
    at.facts.grant(at.alice, "team/*", "pull")
    headers = at.token()
    assert not at.gate.lets_in_at_once(TARGET, headers)
    await at.admit(headers=headers)
    assert at.gate.lets_in_at_once(TARGET, headers)
    assert at.gate.lets_in_at_once(b"/v2/team/app/tags/list?n=1", headers)
    assert not at.gate.lets_in_at_once(b"/v2/team/other/manifests/v1", headers)
    assert not at.gate.lets_in_at_once(b"/v2/", headers)
    assert not at.gate.lets_in_at_once(TARGET, [*headers, *headers])
    at.facts.account("bob")
    assert not at.gate.lets_in_at_once(TARGET, headers), "another revision: it is decided again"
    await at.admit(headers=headers)
    assert at.gate.lets_in_at_once(TARGET, headers)


async def test_a_decision_of_one_right_is_none_of_another(at):
    at.facts.grant(at.alice, "team/*", "push")
    headers = at.token()
    await at.admit("PUT", headers=headers)
    assert not at.gate.lets_in_at_once(TARGET, headers)
    for method in ("GET", "DELETE"):
        with pytest.raises(Denied):
            await at.admit(method, headers=headers)


async def test_a_repository_named_like_a_resource_is_not_that_resource(at):
    at.facts.grant(at.alice, "*", "admin")
    headers = at.token({"repository:*": list(Right), "repository:registry:admin": list(Right)})
    await at.admit(path="/_concord/replication/*/v1", headers=headers)
    await at.admit(path="/v2/*/tags/list", headers=headers)
    for path in ("/_concord/status", "/metrics"):
        with pytest.raises(Unauthorized, match="another scope"):
            await at.admit(path=path, headers=headers)


async def test_a_metrics_reader_is_no_administrator(tmp_path):
    at = Setting(tmp_path, metrics_access="account")
    headers = at.token({})
    assert await at.admit(path="/metrics", headers=headers)
    with pytest.raises(Denied):
        await at.admit(path="/_concord/status", headers=headers)
    with pytest.raises(Unauthorized):
        await at.admit(path="/metrics")
    with pytest.raises(Unauthorized):
        await at.admit(path="/metrics", headers=at.token({}, account=""))


@pytest.mark.parametrize(
    ("access", "is_internal", "is_open"), [("admin", True, True), ("anyone", False, True), ("admin", False, False)]
)
async def test_metrics_are_open_as_configured(tmp_path, access, is_internal, is_open):
    at = Setting(tmp_path, metrics_access=access)
    if is_open:
        assert await at.admit(path="/metrics", is_internal=is_internal) is None
    else:
        with pytest.raises(Unauthorized):
            await at.admit(path="/metrics", is_internal=is_internal)


async def test_a_decision_ends_with_the_token_the_grant_and_the_credential(at):
    now_ms = at.clock.now_ms()
    at.facts.grant(at.alice, "team/*", "pull", expires_ms=now_ms + 30_000)
    headers = at.token()
    await at.admit(headers=headers)
    at.clock.at_ms += 30_000
    assert not at.gate.lets_in_at_once(TARGET, headers)
    with pytest.raises(Denied):
        await at.admit(headers=headers)
    at.facts.grant(at.alice, "team/*", "pull")
    await at.admit(headers=headers)
    at.clock.at_ms = now_ms + (900 + 60) * 1000
    assert not at.gate.lets_in_at_once(TARGET, headers)
    with pytest.raises(Unauthorized):
        await at.admit(headers=headers)
    at.clock.at_ms = now_ms
    key = at.facts.credential(at.alice, CredentialKind.KEY, "hash", expires_ms=now_ms + 5_000)
    headers = at.token(credential=key)
    await at.admit(headers=headers)
    at.clock.at_ms += 5_000
    with pytest.raises(Unauthorized):
        await at.admit(headers=headers)


async def test_a_token_without_the_credential_it_was_issued_for_is_refused(at):
    at.facts.grant(at.alice, "team/*", "pull")
    with pytest.raises(Unauthorized):
        await at.admit(headers=at.token(credential="another"))
    with pytest.raises(Unauthorized):
        await at.admit(headers=at.token(account="another"))


async def test_only_requests_of_uploads_have_a_grace(at):
    at.facts.grant(at.alice, "team/*", "push", "pull")
    late, too_late = at.token(age_s=900 + 120), at.token(age_s=900 + UPLOAD_GRACE_S + 120)
    for method in ("PATCH", "PUT", "GET", "DELETE"):
        assert await at.admit(method, "/v2/team/app/blobs/uploads/x", late)
        with pytest.raises(Unauthorized):
            await at.admit(method, "/v2/team/app/blobs/uploads/x", too_late)
    for method, path in (
        ("POST", "/v2/team/app/blobs/uploads/"),
        ("PUT", "/v2/team/app/manifests/v1"),
        ("GET", "/v2/team/app/blobs/x"),
        ("GET", "/v2/"),
    ):
        with pytest.raises(Unauthorized):
            await at.admit(method, path, late)


async def test_the_cache_is_bounded(at, monkeypatch):
    monkeypatch.setattr("registry.http.access.gate.MAX_CACHED", 3)
    at.facts.grant(at.alice, "*", "pull")
    headers = at.token({f"repository:a{number}": [Right.PULL] for number in range(9)})
    for number in range(9):
        await at.admit(path=f"/v2/a{number}/tags/list", headers=headers)
    assert len(at.gate._decisions) == 3 and MAX_CACHED > 1000
    assert at.gate.lets_in_at_once(b"/v2/a8/tags/list", headers)


async def test_nothing_is_asked_where_nothing_is_enforced(at):
    at.facts.enforce(False)
    assert at.gate.lets_in_at_once(TARGET, [])
    for path in ("/v2/team/app/tags/list", "/_concord/status", "/no/such/path"):
        assert await at.admit(path=path, headers=[(b"authorization", b"nonsense")]) is None


async def test_a_path_without_a_rule_is_no_route(at):
    at.facts.grant(at.alice, "*", "admin")
    for path in ("/new/route", "/_concord/new"):
        with pytest.raises(NothingHere):
            await at.admit(path=path, certificate="CN=alice")


async def test_an_administrative_act_is_left_to_its_signature_where_it_has_one(at):
    signed = [(b"concord-session", b"x")]
    assert await at.admit("POST", "/_concord/gc", signed) is None
    for method, path in (("GET", "/_concord/status"), ("GET", "/v2/team/app/tags/list")):
        with pytest.raises(Unauthorized):
            await at.admit(method, path, signed)


async def test_a_certificate_of_an_expired_credential_is_refused(at):
    at.facts.grant(at.alice, "team/*", "pull")
    at.facts.credential(at.alice, CredentialKind.CERTIFICATE, "CN=old", expires_ms=1)
    with pytest.raises(Unauthorized):
        await at.admit(certificate="CN=old")
    assert at.view.certificate("CN=old").expires_ms == 1


async def test_a_long_authorization_takes_no_room_in_the_cache(at):
    at.facts.grant(at.alice, "team/*", "pull")
    ((name, value),) = at.token()
    for padding, cached in ((1, True), (MAX_CACHED_BYTES, False)):
        before = len(at.gate._decisions)
        await at.admit(headers=[(name, value.replace(b" ", b" " * padding))])
        assert (len(at.gate._decisions) > before) == cached
