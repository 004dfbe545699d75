"""The view of an instance on which access control is not enforced: no fact, and no question asked."""

from registry.access.rights import Caller, Credential, Right


class NotEnforced:
    """An `AccessView` without any fact."""

    revision = 0
    is_enforced = False

    def account_of(self, name: str) -> str | None:
        """Return None: there are no accounts."""
        return None

    def credentials_of(self, account: str) -> list[Credential]:
        """Return nothing."""
        return []

    def certificate(self, subject: str) -> Credential | None:
        """Return None."""
        return None

    def is_in_force(self, account: str, credential: str) -> bool:
        """Return False."""
        return False

    def rights(self, caller: Caller, repository: str, now_ms: int) -> dict[Right, int | None]:
        """Return no right."""
        return {}

    def may_see_any(self, caller: Caller, now_ms: int) -> bool:
        """Return False."""
        return False
