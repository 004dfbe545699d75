"""The admission of a request: its caller, and the rights that its credential carries.

Handlers ask it for what their answer depends on beside the route: which repositories a list may name, whether a blob
may be mounted, which account an upload belongs to. Each question is decided by the facts of that moment.
"""

from collections.abc import AsyncIterator

import msgspec
from starlette.types import Scope

from registry.access.patterns import EVERYTHING
from registry.access.rights import ANONYMOUS, AccessView, Caller, Right
from registry.access.scopes import REPOSITORY
from registry.errors import Denied
from registry.ports import Clock

PERMISSIONS = "concord.permissions"
"""The permissions of the caller, in the scope of a request that was admitted while access control is enforced."""
RELAYED_ADMISSION = "concord.admission"
"""The admission of a request, in the scope of one that another process has admitted and relayed."""


class Admission(msgspec.Struct, array_like=True, frozen=True):
    """Who sends a request, and until when its credential counts. It crosses from one process to another."""

    caller: Caller
    scopes: dict[str, list[Right]] | None
    """The rights in the scope of the token, by resource; None where the credential is no token and narrows nothing."""
    until_ms: int | None
    """The time at which the credential ends; None where it does not end by itself."""

    @property
    def is_anonymous(self) -> bool:
        return not self.caller.account

    def is_in_scope(self, resource: str, right: Right) -> bool:
        """Return whether the scope of the credential includes a right on a resource."""
        return self.scopes is None or right in self.scopes.get(resource, ())


class Permissions:
    """The permissions of one caller, by the facts as they are at each call."""

    __slots__ = ("_clock", "_view", "admission")

    def __init__(self, admission: Admission, view: AccessView, clock: Clock) -> None:
        self.admission = admission
        self._view = view
        self._clock = clock

    def may(self, repository: str, right: Right) -> bool:
        """Return whether the caller has a right on a repository, in scope and facts."""
        return self.admission.is_in_scope(REPOSITORY + repository, right) and self.has(repository, right)

    def require_still(self, repository: str, right: Right) -> None:
        """Raise Denied where a caller that was let in has lost a right, or its credential, while its request went on: a
        body may take hours."""
        caller = self.admission.caller
        # Of an upload that another instance forwards, only the account is known here.
        is_in_force = not caller.credential or self._view.is_in_force(caller.account, caller.credential)
        if not (is_in_force and self.may(repository, right)):
            raise Denied(f"the right to {right} was taken away while the request went on", {"repository": repository})

    def has(self, repository: str, right: Right) -> bool:
        """Return whether the caller has a right on a repository by the facts, whatever the scope of its token."""
        return right in self._view.rights(self.admission.caller, repository, self._clock.now_ms())

    def named_repositories(self) -> list[str]:
        """Return the repositories in the scope of the caller's token; none where its credential is no token."""
        scopes = self.admission.scopes or {}
        return [resource.removeprefix(REPOSITORY) for resource in scopes if resource.startswith(REPOSITORY)]

    @property
    def may_see_any(self) -> bool:
        """True if any repository can be visible to the caller."""
        return self._view.may_see_any(self.admission.caller, self._clock.now_ms())

    @property
    def administers(self) -> bool:
        """True if the caller administers the whole registry."""
        return self.has(EVERYTHING, Right.ADMIN)


def permissions_of(scope: Scope) -> Permissions | None:
    """Return the permissions of the caller of a request; None where access control is not enforced, so that everything
    is permitted."""
    found: Permissions | None = scope.get(PERMISSIONS)
    return found


def admission_of(scope: Scope) -> Admission | None:
    """Return the admission of a request, to be relayed with it."""
    permissions = permissions_of(scope)
    return scope.get(RELAYED_ADMISSION) if permissions is None else permissions.admission


def may_pull(scope: Scope, repository: str) -> bool:
    """Return whether the caller of a request may pull from a repository."""
    permissions = permissions_of(scope)
    return permissions is None or permissions.may(repository, Right.PULL)


def account_of(scope: Scope) -> str:
    """Return the id of the account that sends a request; empty for an anonymous one, and where access control is not
    enforced."""
    permissions = permissions_of(scope)
    return (permissions.admission.caller if permissions is not None else ANONYMOUS).account


def require_push(scope: Scope, repository: str) -> None:
    """Raise Denied where the caller of a request may not push any more."""
    if (permissions := permissions_of(scope)) is not None:
        permissions.require_still(repository, Right.PUSH)


async def while_pushing(scope: Scope, repository: str, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield a body. Raises Denied at its end where the caller may not push any more."""
    async for piece in body:
        yield piece
    require_push(scope, repository)
