"""The model of access: actions, callers, and the view of the facts by which a request is decided."""

from enum import StrEnum
from typing import NamedTuple, Protocol

from registry.access.bindings import Binding


class Right(StrEnum):
    """A right that a grant gives on the repositories that its pattern matches."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    ADMIN = "admin"


class CredentialKind(StrEnum):
    """A way to prove who a caller is."""

    PASSWORD = "password"
    KEY = "key"
    """A robot's key: random, shown once, stored hashed."""
    CERTIFICATE = "certificate"


class Caller(NamedTuple):
    """Who sends a request, as proved by a credential."""

    account: str
    """The account's random id; empty for an anonymous caller."""
    name: str = ""
    groups: frozenset[str] = frozenset()
    """Groups that an identity provider names, which live as long as the token. Those of facts are not here."""
    credential: str = ""
    """The id of the credential that proved it; tokens die with it."""


ANONYMOUS = Caller("")


class Credential(NamedTuple):
    """A credential that is in force."""

    id: str
    account: str
    kind: CredentialKind
    secret: str
    """An Argon2id hash, the hash of a key, or the subject of a certificate."""
    expires_ms: int | None


class AccessView(Protocol):
    """The facts in force, as committed here. Each method reads what is committed at that moment."""

    @property
    def revision(self) -> int:
        """A number that changes whenever any fact of access control changes."""
        ...

    @property
    def is_enforced(self) -> bool:
        """Return whether the cluster enforces access control."""
        ...

    @property
    def is_awaited(self) -> bool:
        """True while it is unknown here whether the cluster enforces access control, so that no client is served."""
        ...

    def account_of(self, name: str) -> str | None:
        """Return the id of the account of that name that is in force; None without one, and for a blocked one."""
        ...

    def credentials_of(self, account: str) -> list[Credential]:
        """Return the credentials of an account that are in force, those that have expired included."""
        ...

    def bindings_of(self, account: str) -> list[Binding]:
        """Return the bindings of an account that are in force, those that have expired included."""
        ...

    def bindings_to(self, issuer: str) -> list[Binding]:
        """Return the bindings to an issuer that are in force, those that have expired included."""
        ...

    def certificate(self, subject: str) -> Credential | None:
        """Return the credential of a client certificate's subject."""
        ...

    def is_in_force(self, account: str, credential: str) -> bool:
        """Return whether an account and its credential, or binding, are in force: neither removed, blocked nor
        replaced."""
        ...

    def rights(self, caller: Caller, repository: str, now_ms: int) -> dict[Right, int | None]:
        """Return the rights that a caller has on a repository now, each with the time in ms until which it has it, or
        None where no expiry bounds it. `admin` implies all others. An account that is not in force has the rights of an
        anonymous caller at most."""
        ...

    def may_see_any(self, caller: Caller, now_ms: int) -> bool:
        """Return whether any repository can be visible to the caller."""
        ...
