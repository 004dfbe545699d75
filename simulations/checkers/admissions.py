"""A request is let in if its credential gives the right by the facts that are committed at its instance at that moment,
and refused if not: the oracle is asked.

So an account that is blocked or removed can do nothing at an instance that has the fact. The moment is that at which
the request reaches a process: a gate that decides by a key decides at once. Where a password has to be verified, or
another process decides, any moment until the answer begins will do. What has to wait until an instance is current is
decided again then, so that it may be refused by a later state. A new instance of a cluster that enforces access control
lets nothing in by having no facts.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from registry.access.facts import CredentialMade
from registry.access.keys import is_key, key_hash
from registry.access.passwords import verify_password
from registry.access.rights import CredentialKind
from registry.access.tokens import Claims
from registry.http.access.rules import Demand, internal_rule_of
from registry.http.admin.paths import ACCESS
from registry.http.oci.paths import parse_api_path
from simulations.access_oracle import InForce
from simulations.access_states import AccessState, AccessStates, statements_of
from simulations.checkers import Violation
from simulations.node import Node

REFUSED = frozenset({401, 403})
UNDECIDED = frozenset({408, 429, 500, 502, 503})
"""Statuses of answers that say nothing of a decision."""
EVERYTHING = "*"
READS, DELETES = frozenset({"GET", "HEAD"}), frozenset({"DELETE"})


class Presented(NamedTuple):
    """A request as the gate sees it."""

    name: str
    secret: str
    repository: str
    right: str
    """Empty where any credential will do."""
    is_administrative: bool
    token: Claims | None = None
    """The claims of a token, in place of name and secret."""

    @property
    def is_decided_at_once(self) -> bool:
        return not self.name or self.token is not None or is_key(self.secret)

    def __str__(self) -> str:
        return f"{self.right or 'anything'} on {self.repository or 'nothing'} by {self.name or 'no account'}"


class Admissions:
    """Judges the requests of all clients."""

    def __init__(self, states: AccessStates) -> None:
        self._states = states
        self.checked = 0
        """Decisions that were judged while access control was enforced."""
        self.refused = 0

    def note(self, node: Node) -> None:
        """An instance has committed something."""
        if node.alive:
            self._states.of(node)

    def begin(self, node: Node, scope: Mapping[str, Any]) -> Callable[[int], None] | None:
        """A request has reached a process. Return what judges the status of its answer, which raises Violation."""
        presented = presented_by(scope)
        if presented is None:
            return None
        self._states.of(node)
        trail = self._states.trails[node.name]
        first = len(trail) - 1
        has_begun = node.instance is None or (node.started and node.instance.cluster.answers_clients.is_set())

        def judge(status: int) -> None:
            if status in UNDECIDED or (presented.is_administrative and status == 403):  # a change may be refused, too
                return
            if node.alive:
                self._states.of(node)
            is_let_in = status not in REFUSED
            if presented.token is not None and not is_let_in and trail[first].is_enforced:
                return  # it may have ended, by the clock of the instance or with its key
            is_exact = is_let_in and presented.is_decided_at_once and trail[first].is_enforced
            judged = trail[first : first + 1] if is_exact else trail[first:]
            if is_let_in and not has_begun and trail[-1].is_enforced:
                judged = [state for state in trail[first:] if state.is_enforced]
            self.checked += trail[first].is_enforced
            self.refused += not is_let_in
            if not any(self.may(state, presented) == is_let_in for state in judged):
                done = "let in" if is_let_in else "refused"
                raise Violation(f"{node.name} has {done} a request, with {status}, against the facts: {presented}")

        return judge

    def may(self, state: AccessState, presented: Presented) -> bool:
        """Return whether the facts of a state let a request in."""
        if not state.is_enforced and not (presented.is_administrative and presented.name):
            return True
        in_force = self._states.in_force(state.texts)
        if presented.token is not None:
            return not state.is_restored and _grants(in_force, presented.token, presented)
        accounts = [account for account, name, blocked in in_force.names if name == presented.name and not blocked]
        if not accounts or state.is_restored:
            return False
        mine = {id for account, id in in_force.credentials if account == accounts[0]}
        statements = statements_of(state.texts)
        if not any(_proves(statements[id].body, presented.secret) for id in mine):
            return False
        return not presented.right or (accounts[0], presented.repository, presented.right) in in_force.rights


def _grants(in_force: InForce, token: Claims, presented: Presented) -> bool:
    """Return whether a token grants what a request needs, if it has not ended by itself: its account, its credential
    and the right are in force, and the right is in its scope."""
    account, right = token.account, presented.right
    is_active = any(id == account and not blocked for id, _, blocked in in_force.names)
    if not is_active or (account, token.credential) not in in_force.credentials:
        return False
    is_in_scope = right in token.scopes.get(f"repository:{presented.repository}", ())
    return not right or (is_in_scope and (account, presented.repository, right) in in_force.rights)


def _proves(body: object, secret: str) -> bool:
    if not isinstance(body, CredentialMade):
        return False
    if is_key(secret):
        return body.kind == CredentialKind.KEY and body.secret == key_hash(secret)
    return body.kind == CredentialKind.PASSWORD and verify_password(body.secret, secret)


def presented_by(scope: Mapping[str, Any]) -> Presented | None:
    """Return what a request presents and asks for; None for one that needs no credential, or another proof."""
    headers = dict(scope["headers"])
    path, method = scope["path"], scope["method"]
    if b"concord-session" in headers or path.startswith("/_concord/peer"):
        return None
    name, secret, token = _credential_in(headers.get(b"authorization", b""))
    if path.startswith(ACCESS):
        if not name:
            return None
        # The body of a delegated request decides which right it needs.
        is_delegated = internal_rule_of(method, path).demand is Demand.DELEGATED
        return Presented(name, secret, EVERYTHING, "" if is_delegated else "admin", True, token)
    parsed = parse_api_path(path)
    if parsed is None or (parsed.resource == "token" and not name):  # everyone gets a token
        return None
    if parsed.resource in ("uploads", "upload"):
        right = "push"
    else:
        right = "pull" if method in READS else "delete" if method in DELETES else "push"
    return Presented(name, secret, parsed.name, right if parsed.name else "", False, token)


def _credential_in(authorization: bytes) -> tuple[str, str, Claims | None]:
    """Return the name, the secret and the token in an `Authorization`."""
    scheme, _, encoded = authorization.partition(b" ")
    if scheme == b"Bearer":
        token = msgspec.msgpack.decode(base64.urlsafe_b64decode(encoded.split(b".")[1] + b"=="), type=Claims)
        return token.name, "", token
    name, _, secret = base64.b64decode(encoded).decode().partition(":")
    return name, secret, None
