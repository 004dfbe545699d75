"""Refusals in the form that clients understand: 401 with a Bearer challenge (RFC 6750, section 3), 403 otherwise.

The challenge names the realm, the address at which clients get tokens. It is made of the request's scheme and `Host`,
where no setting says it: the address that the client has reached the registry by. A trusted proxy states the scheme. A
`Host` that is no host name, or comes twice, is not repeated. Clients refuse a realm that changes, or that leads from
https to http, so behind a proxy that rewrites `Host` the setting `token_url` is needed.

A challenge holds one scope, since containers/image reads one alone; an `error` only where a token was presented, since
containerd then drops the token that it has cached.
"""

import re

from starlette.types import Scope

from registry.access.patterns import EVERYTHING
from registry.access.rights import Right
from registry.access.scopes import ADMINISTRATION, CATALOG
from registry.errors import Denied, Unauthorized
from registry.http.access.admission import Admission
from registry.http.access.rules import Demand, Rule
from registry.http.oci.paths import API_VERSION, TOKEN_PATH

SERVICE = "concord"
"""The service that tokens are for. It is the same at every instance, since clients refuse one that changes."""
INVALID_TOKEN, INSUFFICIENT_SCOPE = "invalid_token", "insufficient_scope"
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_ACTIONS = {Right.PULL: "pull", Right.PUSH: "pull,push", Right.DELETE: "delete", Right.ADMIN: "admin"}
"""The actions of a challenge. Clients that push also look at what is there."""


class Challenges:
    """The refusals of one process."""

    def __init__(self, token_url: str, own_address: str) -> None:
        """`token_url` is the setting, or empty; `own_address` stands for a `Host` that cannot be repeated."""
        self._token_url = token_url
        self._own_address = own_address

    def realm(self, scope: Scope) -> str:
        """Return the address at which the client of a request gets tokens."""
        if self._token_url:
            return self._token_url
        hosts = [value.decode("latin-1").strip() for name, value in scope["headers"] if name == b"host"]
        host = hosts[0] if len(hosts) == 1 and _HOST.match(hosts[0]) else self._own_address
        return f"{scope['scheme']}://{host}{TOKEN_PATH}"

    def unauthorized(self, scope: Scope, rule: Rule, message: str, error: str = "") -> Unauthorized:
        """Return a refusal upon which the client gets a token, or another one."""
        refusal = Unauthorized(message)
        parts = [f'realm="{self.realm(scope)}"', f'service="{SERVICE}"']
        if wanted := scope_of(rule):
            parts.append(f'scope="{wanted}"')
        if error:
            parts.append(f'error="{error}"')
        refusal.headers |= {"WWW-Authenticate": "Bearer " + ",".join(parts), **API_VERSION}
        return refusal


def denied(rule: Rule, admission: Admission) -> Denied:
    """Return the refusal that names the missing right. It depends on the request and the caller alone."""
    where = "the registry" if rule.repository == EVERYTHING else f"the repository {rule.repository[:255]}"
    detail = {"right": rule.right.value, "repository": rule.repository[:255]}
    return Denied(f"the account {admission.caller.name} lacks the right {rule.right} on {where}", detail)


def scope_of(rule: Rule) -> str:
    """Return the scope that a request needs; empty where it needs none."""
    if rule.demand is Demand.CREDENTIAL or not rule.resource:
        return ""
    if rule.resource in (CATALOG, ADMINISTRATION):
        return f"{rule.resource}:*"
    if '"' in rule.resource or "\\" in rule.resource or not rule.resource.isprintable() or not rule.resource.isascii():
        return ""  # it is no repository, and would not fit into a quoted string
    return f"{rule.resource}:{_ACTIONS[rule.right]}"
