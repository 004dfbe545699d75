"""Bugs in what the facts of access control mean, and in how requests are decided by them."""

from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

from registry.access import policy
from registry.access.changes import Draft
from registry.access.facts import (
    OPERATOR,
    AccountMade,
    AccountRemoved,
    Blocked,
    Body,
    CredentialMade,
    Granted,
    Statement,
)
from registry.access.policy import Policy
from registry.access.rules import Court
from registry.catalog.access import CommittedAccess, change_access
from registry.http.access.gate import Gate
from registry.http.admin import access as requests
from simulations.planted.bug import Bug, nothing_async, together


def revocation_of_what_was_seen() -> Bug:
    """A revocation ends the grants that its author had seen, as if it deleted them: additions win."""
    is_killed = Court.is_killed

    def add_wins(self: Court, statement: Statement, killers: Iterable[Statement]) -> bool:
        return is_killed(self, statement, [one for one in killers if self.history.has_seen(one, statement)])

    marks_all = patch.object(Court, "_marked", lambda self: {*self.history.by_id})
    return together(patch.object(Court, "is_killed", add_wins), marks_all)


def grant_without_after() -> Bug:
    """A grant does not name what was there when it was made."""
    say = Draft.say

    def forgetful(self: Draft, body: Body) -> str:
        if isinstance(body, Granted):
            self._after = ()
        return say(self, body)

    return patch.object(Draft, "say", forgetful)


def decisions_kept_for_ever() -> Bug:
    """A decision in the cache counts for every later revision of the facts."""

    def careless(self: Gate, key: Any, revision: int) -> Any:
        return self._decisions.get(key)

    return patch.object(Gate, "_cached", careless)


def void_facts_count() -> Bug:
    """All that a removed administrator has said counts, whatever its remover had seen."""
    return patch.object(Court, "_covers", lambda self, removal, statement: True)


def unblocking_wins() -> Bug:
    """An unblocking lifts blocks that it had not seen, too."""

    def lifted(self: Court, block: Statement, given: Any) -> bool:
        return isinstance(block.body, Blocked) and any(
            one.origin.id in given for one in self._facts.unblockings.get(block.body.account, [])
        )

    return patch.object(Court, "is_lifted", lifted)


def removal_by_name() -> Bug:
    """The removal of an account removes every account that was ever given its name."""
    exclusions_of = Court.exclusions_of

    def by_name(self: Court, account: str) -> list[Statement]:
        accounts = self._facts.accounts
        names = {_name_of(one) for one in accounts.get(account, [])}
        same = {id for id, made in accounts.items() if names & {*map(_name_of, made)}}
        removals = (one for id in sorted(same - {account}) for one in exclusions_of(self, id))
        return [*exclusions_of(self, account), *(one for one in removals if isinstance(one.body, AccountRemoved))]

    return patch.object(Court, "exclusions_of", by_name)


def _name_of(statement: Statement) -> str:
    return statement.body.name if isinstance(statement.body, AccountMade) else ""


def latest_password_wins() -> Bug:
    """Of concurrent passwords the latest counts, also against a reset by an administrator."""
    passwords = policy._passwords

    def as_own(statement: Statement) -> Statement:
        body, origin = statement.body, statement.origin
        return Statement(origin._replace(by=body.account), body) if isinstance(body, CredentialMade) else statement

    def latest(court: Court, given: list[Statement]) -> Any:
        return passwords(court, [*map(as_own, given)])

    return patch.object(policy, "_passwords", latest)


def all_said_by_the_operator() -> Bug:
    """A change counts as the operator's, whichever account has asked for it."""

    def as_operator(tx: Any, documents: Any, clock: Any, by: str, plan: Callable[[Draft], Any]) -> Any:
        return change_access(tx, documents, clock, OPERATOR, plan)

    return patch.object(requests, "change_access", as_operator)


def blocked_accounts_admitted() -> Bug:
    """A blocked account goes on as before."""

    def account_of(self: Policy, name: str) -> str | None:
        account = self.named(name)
        return account.id if account is not None else None

    is_active = patch.object(Policy, "_is_active", lambda self, account: account in self.accounts)
    return together(is_active, patch.object(Policy, "account_of", account_of))


def tokens_outlive_credentials() -> Bug:
    """A token counts though the credential that it was got by is withdrawn."""
    return patch.object(CommittedAccess, "is_in_force", lambda self, account, credential: True)


def rights_not_first() -> Bug:
    """Changes are taken in whatever rights their sender had seen."""
    return patch.object(CommittedAccess, "require_reached", lambda self, revisions: None)


def not_decided_again() -> Bug:
    """A request that was let in before its instance was current is answered, whatever has become of its rights."""
    return patch.object(Gate, "admit_again", nothing_async)
