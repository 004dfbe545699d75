"""Bindings: which ID tokens of an identity provider prove an account.

A binding names an issuer and claims. A token matches if each of these claims is in it with an equal value. There are no
patterns: `repo:octo/app` as a prefix of `sub` would match `repo:octo/apple`, too. A name that its owner can give up is
no identity either, since another one can take it (a renamed repository, a deleted user). So the claims have to include
a stable id: that of the repository at GitHub, of the project at GitLab, of the subject at a Kubernetes cluster.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

GITHUB_HOST, GITHUB_SERVER_PATH = "token.actions.githubusercontent.com", "/_services/token"
"""The issuer of GitHub Actions, and the end of its path at an own server."""
GITLAB_HOST = "gitlab.com"
_KUBERNETES_HOST = "kubernetes.default.svc"

ABOUT_THE_TOKEN = frozenset({"iss", "aud", "exp", "iat", "nbf", "jti", "nonce", "at_hash"})
"""Claims that say nothing of who holds a token, or change with each of them."""
MUTABLE = frozenset(
    {
        *("name", "nickname", "given_name", "family_name", "preferred_username", "email", "email_verified", "groups"),
        *("repository", "repository_owner", "actor", "workflow", "job_workflow_ref", "workflow_ref"),
        *("project_path", "namespace_path", "user_login", "user_email", "pipeline_source"),
        *("ref", "ref_type", "ref_path", "ref_protected", "environment", "event_name", "repository_visibility"),
    }
)
"""Claims that may narrow a binding, and do not identify anything for good by themselves."""


class UnusableBinding(ValueError):
    """Claims by which no binding can be made. The message says what was expected."""


class Binding(NamedTuple):
    """A binding that is in force."""

    id: str
    """The id of its fact. Tokens that rest on it carry it as their credential."""
    account: str
    name: str
    """The name of the account."""
    issuer: str
    claims: Mapping[str, str]
    """At least one."""
    expires_ms: int | None

    def matches(self, claims: Mapping[str, object]) -> bool:
        """Return whether a token has all claims of this binding."""
        return all(_text_of(claims.get(name)) == value for name, value in self.claims.items())


def claims_text(claims: Mapping[str, str]) -> str:
    """Return claims as a fact holds them."""
    return json.dumps(dict(claims), sort_keys=True, separators=(",", ":"))


def read_claims(text: str) -> dict[str, str] | None:
    """Read the claims of a fact; None for what can match no token: malformed claims, or none at all."""
    try:
        return msgspec.json.decode(text, type=dict[str, str]) or None
    except msgspec.DecodeError:
        return None


def check_claims(issuer: str, claims: Mapping[str, str]) -> None:
    """Raise UnusableBinding unless these claims identify a workload of an issuer for good."""
    useless = sorted(claims.keys() & ABOUT_THE_TOKEN)
    if useless:
        raise UnusableBinding(f"the claim {useless[0]} does not say who holds a token: name another one")
    if not all(claims) or not all(claims.values()):
        raise UnusableBinding("a claim has a name and a value, as in sub=system:serviceaccount:ci:builder")
    required = _required(issuer)
    if required and not claims.keys() & set(required):
        raise UnusableBinding(
            f"tokens of {issuer} are bound by the claim {' or '.join(required)}: names can be given to others later"
        )
    if not claims.keys() - MUTABLE:
        raise UnusableBinding("expected a claim that identifies the caller for good, such as sub")


def _required(issuer: str) -> tuple[str, ...]:
    """Return the claims of which a well-known issuer's binding needs one."""
    parts = urlsplit(issuer)
    host = parts.hostname or ""
    if host == GITHUB_HOST or parts.path.endswith(GITHUB_SERVER_PATH):
        return "repository_id", "repository_owner_id"
    if host == GITLAB_HOST:
        return "project_id", "namespace_id"
    if host == _KUBERNETES_HOST or host.startswith(f"{_KUBERNETES_HOST}."):
        return ("sub",)
    return ()


def _text_of(value: object) -> str | None:
    """Return a claim as a binding states it; None for one that is no text, number or truth value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None
