"""The matrix: every caller × every route and method × one and several processes, plain and by TLS × first and repeated
requests.

What a cell must hold is computed from three properties of the caller (who it is, its rights, the scope of its token)
and the right that the route needs, written down here once more.
"""

from typing import NamedTuple
from urllib.parse import urlencode

import pytest

from registry.access.rights import Right
from registry.access.tokens import Claims, TokenUse, seal_token
from registry.cluster.rpc.keys import ClusterKey
from registry.http.access.identity_checks import ID_TOKEN_TYPE, TOKEN_EXCHANGE
from tests.http.access.conftest import Guarded, guarded
from tests.support.client import Client
from tests.support.issuer import Issuer
from tests.support.server import KEY
from tests.support.tls import Authority, Certificate

PULL, PUSH, DELETE, ADMIN = Right.PULL, Right.PUSH, Right.DELETE, Right.ADMIN
ALL = frozenset(Right)
DIGEST = f"sha256:{'1' * 64}"
REPETITIONS = 3


class Route(NamedTuple):
    """A request, and what it needs: a right on `team/app`, on everything ("*"), any credential, or nothing."""

    method: str
    path: str
    need: Right | str


ROUTES = [
    *(Route(method, "/v2/", "credential") for method in ("GET", "HEAD", "PUT")),
    *(Route(method, "/v2", "credential") for method in ("GET", "HEAD")),
    Route("GET", "/v2/what/is/this", "credential"),
    Route("GET", "/v2/token", "nothing"),
    Route("PUT", "/v2/token", "nothing"),
    Route("GET", "/v2/_catalog", "catalog"),
    Route("GET", "/v2/_catalog?n=1", "catalog"),
    *(
        Route(method, f"/v2/team/app/{rest}", PULL)
        for method in ("GET", "HEAD")
        for rest in (
            "manifests/v1",
            "manifests/absent",
            "manifests/{manifest}",
            f"manifests/{DIGEST}",
            "blobs/{blob}",
            f"blobs/{DIGEST}",
            "tags/list",
            "tags/list?n=10",
            f"referrers/{DIGEST}",
        )
    ),
    Route("POST", "/v2/team/app/manifests/v1", PULL),
    Route("PUT", "/v2/team/app/manifests/v1", PUSH),
    Route("DELETE", "/v2/team/app/manifests/absent", DELETE),
    Route("DELETE", f"/v2/team/app/manifests/{DIGEST}", DELETE),
    Route("DELETE", f"/v2/team/app/blobs/{DIGEST}", DELETE),
    Route("POST", "/v2/team/app/blobs/uploads/", PUSH),
    Route("POST", "/v2/team/app/blobs/uploads", PUSH),
    Route("POST", f"/v2/team/app/blobs/uploads/?mount={DIGEST}", PUSH),
    Route("POST", f"/v2/team/app/blobs/uploads/?mount={DIGEST}&from=public/app", PUSH),
    Route("POST", f"/v2/team/app/blobs/uploads/?digest={DIGEST}", PUSH),
    *(
        Route(method, f"/v2/team/app/blobs/uploads/{name}", PUSH)
        for method in ("GET", "HEAD", "PATCH", "PUT", "DELETE", "POST")
        for name in ("nonsense", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.e00")
    ),
    *(Route("GET", f"/_concord/{name}", "administration") for name in ("status", "digest", "conflicts", "leave")),
    Route("GET", "/_concord/scrub", "administration"),
    Route("HEAD", "/_concord/status", "administration"),
    Route("POST", "/_concord/digest", "administration"),
    *(Route("POST", f"/_concord/{name}", "administration") for name in ("gc", "forget")),
    Route("GET", "/metrics", "administration"),
    Route("GET", "/_concord/replication/team/app/v1", ADMIN),
    Route("GET", "/healthz", "nothing"),
    Route("GET", "/readyz", "nothing"),
    Route("GET", "/", "nothing"),
    Route("GET", "/_concord/what", "nothing"),
]


class Caller(NamedTuple):
    """A caller: its header, and what holds of it."""

    headers: dict[str, str]
    identity: str
    """none, invalid, anonymous or account."""
    rights: frozenset[Right] = frozenset()
    scope: frozenset[Right] | None = None
    """The rights on `team/app` in the scope of its token; None where it has no token."""
    administers: bool = False
    lists: bool = True
    """True if its token's scope includes the catalog."""
    client: Client | None = None
    """A client with a certificate, where that is its credential."""


def callers(at: Guarded) -> dict[str, Caller]:
    facts, made = at.facts, {}
    for name, right in (("puller", "pull"), ("pusher", "push"), ("deleter", "delete"), ("owner", "admin")):
        facts.grant(facts.account(name, f"password of {name}"), "team/*", right)
    facts.grant(facts.account("root", "password of root"), "*", "admin")
    facts.grant(facts.account("other", "password of other"), "elsewhere/*", "admin")
    blocked = facts.account("blocked", "password of blocked")
    facts.grant(blocked, "*", "admin")
    key = facts.robot("robot")
    facts.grant(next(id for id, one in facts.state["accounts"].items() if one["name"] == "robot"), "team/*", "pull")
    gone = facts.robot("gone", expires_ms=1)
    facts.grant("anonymous", "public/*", "pull")

    def basic(name):
        return at.basic(name, f"password of {name}")

    def token(name, actions, more=""):
        scope = f"repository:team/app:{actions}{more}" if actions else "registry:catalog:*"
        return at.token(scope, name, f"password of {name}") if name else at.token(scope)

    everything = "+registry:admin:*+registry:catalog:*"
    revoked = token("blocked", "*", everything)
    facts.block(blocked)
    made["no credential"] = Caller({}, "none")
    made["wrong password"] = Caller(at.basic("puller", "wrong"), "invalid")
    made["unknown account"] = Caller(at.basic("stranger", "password"), "invalid")
    made["empty password"] = Caller(at.basic("puller", ""), "invalid")
    made["blocked account"] = Caller(basic("blocked"), "invalid")
    made["token of a blocked account"] = Caller(revoked, "invalid")
    made["expired key"] = Caller(at.basic("gone", gone), "invalid")
    made["nonsense token"] = Caller({"Authorization": "Bearer nonsense"}, "invalid")
    made["other scheme"] = Caller({"Authorization": "Negotiate abc"}, "invalid")
    made["expired token"] = Caller({"Authorization": f"Bearer {forged(at, 'puller', expires_s=1)}"}, "invalid")
    made["token of another cluster"] = Caller(
        {"Authorization": f"Bearer {forged(at, 'root', secret='another secret of a cluster')}"}, "invalid"
    )
    made["anonymous token"] = Caller(token("", ""), "anonymous", scope=frozenset())
    for name, rights in (
        ("puller", {PULL}),
        ("pusher", {PUSH}),
        ("deleter", {DELETE}),
        ("owner", ALL),
        ("other", ()),
    ):
        made[name] = Caller(basic(name), "account", frozenset(rights))
    made["root"] = Caller(basic("root"), "account", ALL, administers=True)
    made["robot"] = Caller(at.basic("robot", key), "account", frozenset({PULL}))
    made["token of puller"] = Caller(
        token("puller", "pull"), "account", frozenset({PULL}), frozenset({PULL}), lists=False
    )
    made["token of puller without scope"] = Caller(token("puller", ""), "account", frozenset({PULL}), frozenset())
    made["token of owner to pull"] = Caller(token("owner", "pull"), "account", ALL, frozenset({PULL}), lists=False)
    made["token of other for all"] = Caller(token("other", "*"), "account", frozenset(), frozenset(), lists=False)
    made["token of root to pull"] = Caller(
        token("root", "pull"), "account", ALL, frozenset({PULL}), administers=True, lists=False
    )
    made["token of root for all"] = Caller(token("root", "*", everything), "account", ALL, ALL, administers=True)
    return made


def by_identity_provider(at: Guarded, issuer: Issuer) -> dict[str, Caller]:
    """Return callers that present ID tokens of an identity provider."""
    account = at.facts.account("workload")
    at.facts.grant(account, "team/*", "pull")
    at.facts.bind(account, issuer.url, sub="workload")
    token = issuer.token(sub="workload")
    fields = {"grant_type": TOKEN_EXCHANGE, "subject_token": token, "subject_token_type": ID_TOKEN_TYPE}
    body = urlencode(fields | {"scope": "repository:team/app:pull"}).encode()
    answer = at.ask("POST", "/v2/token", {"Content-Type": "application/x-www-form-urlencoded"}, body)
    exchanged = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    pulls = frozenset({PULL})
    return {
        "ID token as a password": Caller(at.basic("workload", token), "account", pulls),
        "token for an ID token": Caller(exchanged, "account", pulls, pulls, lists=False),
        "ID token of another subject": Caller(at.basic("workload", issuer.token(sub="another")), "invalid"),
    }


def by_certificate(at: Guarded, authority: Authority, clients: Authority) -> dict[str, Caller]:
    """Return callers that present a client certificate."""
    known, unknown = clients.issue(subject="machine"), clients.issue(subject="a stranger")
    account = at.facts.account("machine", certificate=known.parsed.subject.rfc4514_string())
    at.facts.grant(account, "team/*", "pull")

    def presenting(certificate: Certificate) -> Client:
        return Client(at.server.host, at.server.port, context=authority.context(certificate))

    return {
        "client certificate": Caller({}, "account", frozenset({PULL}), client=presenting(known)),
        "client certificate of no account": Caller({}, "invalid", client=presenting(unknown)),
        "wrong password beside a client certificate": Caller(
            at.basic("puller", "wrong"), "invalid", client=presenting(known)
        ),
    }


def forged(at: Guarded, name: str, secret: str | None = None, expires_s: int = 1 << 40) -> str:
    """Return a token sealed with a cluster's key, as only an instance can."""
    account, found = next((id, one) for id, one in at.facts.state["accounts"].items() if one["name"] == name)
    credential = found["credentials"][0][0]
    scopes = {"repository:team/app": list(Right)}
    claims = Claims(TokenUse.ACCESS, "concord", account, name, credential, [], scopes, 0, expires_s)
    return seal_token(claims, ClusterKey(secret or KEY).tokens)


def expected(route: Route, caller: Caller) -> str:
    """Return what the answer must be: "admitted", "401", "401 insufficient_scope" or "403"."""
    if route.need == "nothing":
        return "admitted"
    if caller.identity in ("none", "invalid"):
        return "401"
    if route.need == "credential":
        return "admitted"
    if route.need == "catalog":
        is_held, is_in_scope = True, caller.scope is None or caller.lists
    elif route.need == "administration":
        is_held, is_in_scope = caller.administers, caller.scope is None or caller.scope == ALL
    else:
        is_held, is_in_scope = route.need in caller.rights, caller.scope is None or route.need in caller.scope
    if is_held and is_in_scope:
        return "admitted"
    return "401 insufficient_scope" if is_held or caller.identity == "anonymous" else "403"


def seen(answer) -> str:
    challenge = answer.headers.get("WWW-Authenticate", "")
    assert (answer.status == 401) == bool(challenge), answer
    assert not challenge or challenge.startswith("Bearer realm="), "never a Basic challenge"
    if answer.status == 401:
        return "401 insufficient_scope" if 'error="insufficient_scope"' in challenge else "401"
    return "403" if answer.status == 403 else "admitted"


@pytest.fixture(scope="module", params=["one process", "three processes", "three processes, TLS"])
def matrix(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("matrix")
    settings, context = {"workers": "3" if "three" in request.param else "1"}, None
    with_tls = request.param.endswith("TLS")
    if with_tls:
        authority, clients = Authority(directory), Authority(directory, "clients")
        settings |= authority.issue().settings() | {"tls_client_ca": str(clients.file)}
        context = authority.context()
    with Issuer() as issuer, guarded(directory, clustered=True, context=context, **settings) as at:
        found = callers(at) | by_identity_provider(at, issuer)
        yield at, found | (by_certificate(at, authority, clients) if with_tls else {})


def test_every_cell_of_the_matrix(matrix):
    at, every = matrix
    faults = []
    for name, caller in every.items():
        for route in ROUTES:
            is_credential_judged = route.path != "/v2/token" or caller.identity in ("none",)
            if not is_credential_judged:
                continue  # tests of the endpoint have it
            path = route.path.format(manifest=at.manifest, blob=at.blob)
            body = b"" if route.method in ("POST", "PUT", "PATCH") else None
            client = caller.client or at.server.client
            answers = [client.request(route.method, path, body, caller.headers) for _ in range(REPETITIONS)]
            found = {seen(answer) for answer in answers}
            if found != {expected(route, caller)}:
                statuses = [answer.status for answer in answers]
                faults.append(f"{name}: {route.method} {path}: {found} {statuses}, expected {expected(route, caller)}")
            if any(answer.status >= 500 for answer in answers):
                faults.append(f"{name}: {route.method} {path}: {[answer.body for answer in answers]}")
    assert not faults, "\n".join(faults)
