"""The policy: accounts, credentials, groups and grants that are in force, and what conflict rules have left out.

A `Policy` is immutable. It is a function of the set of facts alone (`rules`), so equal documents have equal policies at
every instance.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from registry.access.bindings import Binding, read_claims
from registry.access.facts import (
    ANYONE,
    BOOTSTRAP,
    SIGNED_IN,
    AccountMade,
    AccountRemoved,
    Bound,
    CredentialMade,
    Enforced,
    Granted,
    Joined,
    Statement,
    account_subject,
    group_subject,
)
from registry.access.history import History
from registry.access.patterns import EVERYTHING, is_within, matches, overlap
from registry.access.rights import Caller, Credential, CredentialKind, Right
from registry.access.rules import Court

RENAMED_DIGITS = 12


class Account(NamedTuple):
    """An account that is not removed."""

    id: str
    name: str
    """The name under which it is found: another one than it was given, where that is taken."""
    given_name: str
    kind: str
    is_blocked: bool


class Way(NamedTuple):
    """One way in which a subject has rights on repositories."""

    grant: str
    """The id of the grant."""
    subject: str
    pattern: str
    rights: frozenset[Right]
    expires_ms: int | None


class Finding(NamedTuple):
    """A fact that a conflict rule has left out."""

    id: str
    kind: str
    """`void`, `renamed` or `password-lost`."""
    statement: Statement


class Policy:
    """All that is in force by a set of facts, which the caller knows by the number `revision`."""

    def __init__(self, statements: Iterable[Statement], revision: int = 0) -> None:
        self.revision = revision
        history = History(statements)
        court = Court(history)
        self.heads = tuple(history.heads())
        """The newest facts, which the next one names."""
        self.is_enforced = any(isinstance(one.body, Enforced) for one in history.order)
        given = [one for one in history.order if one.origin.id in court.judgement.given]
        self.accounts = _accounts(court, given)
        """Accounts that are not removed, by id."""
        self._by_name = {account.name: account for account in self.accounts.values()}
        alive = [one for one in given if not _is_ended(court, one)]
        self.bindings = _bindings(alive, self.accounts)
        """The bindings that are in force or expired, by account."""
        self.groups = _groups(alive, self.accounts)
        """The groups of each account."""
        self.ways = _ways(alive, self.accounts)
        """The grants that are in force or expired, by subject."""
        passwords = _passwords(court, given)
        self.credentials = _credentials(alive, passwords, self.accounts)
        """The credentials that are in force or expired, by account."""
        counting = court.judgement.given | court.judgement.removed
        self.void = frozenset(history.by_id) - counting
        """The ids of facts that do not count."""
        self.findings = _findings(court, passwords, self.accounts)

    def account_of(self, name: str) -> str | None:
        account = self._by_name.get(name)
        return account.id if account is not None and not account.is_blocked else None

    def named(self, name: str) -> Account | None:
        """Return the account of a name, also one that is blocked."""
        return self._by_name.get(name)

    def credentials_of(self, account: str) -> list[Credential]:
        return list(self.credentials.get(account, ())) if self._is_active(account) else []

    def bindings_of(self, account: str) -> list[Binding]:
        return list(self.bindings.get(account, ())) if self._is_active(account) else []

    def bindings_to(self, issuer: str) -> list[Binding]:
        bindings = (one for account in self.bindings for one in self.bindings_of(account))
        return [one for one in bindings if one.issuer == issuer]

    def certificate(self, subject: str) -> Credential | None:
        found = (
            one
            for listed in self.credentials.values()
            for one in listed
            if one.kind == CredentialKind.CERTIFICATE and one.secret == subject and self._is_active(one.account)
        )
        return min(found, key=lambda one: one.id, default=None)

    def is_in_force(self, account: str, credential: str) -> bool:
        proofs: list[Credential | Binding] = [*self.credentials_of(account), *self.bindings_of(account)]
        return any(one.id == credential for one in proofs)

    def ways_of(self, caller: Caller) -> Iterable[Way]:
        """Yield the grants that concern a caller, also those that have expired."""
        for subject in self.subjects_of(caller):
            yield from self.ways.get(subject, ())

    def subjects_of(self, caller: Caller) -> list[str]:
        """Return the subjects that stand for a caller."""
        if not self._is_active(caller.account):
            return [ANYONE]
        groups = self.groups.get(caller.account, frozenset()) | caller.groups
        return [ANYONE, SIGNED_IN, account_subject(caller.account), *map(group_subject, sorted(groups))]

    def concerning(self, caller: Caller, repository: str) -> list[Way]:
        """Return the grants that concern a caller and a repository, also those that have expired."""
        return [way for way in self.ways_of(caller) if matches(way.pattern, repository)]

    def rights(self, caller: Caller, repository: str, now_ms: int) -> dict[Right, int | None]:
        found: dict[Right, int | None] = {}
        for way in self.concerning(caller, repository):
            if _is_expired(way, now_ms):
                continue
            for right in Right if Right.ADMIN in way.rights else way.rights:
                found[right] = _later(found[right], way.expires_ms) if right in found else way.expires_ms
        return found

    def may_see_any(self, caller: Caller, now_ms: int) -> bool:
        return any(not _is_expired(way, now_ms) for way in self.ways_of(caller))

    def administers(self, account: str, pattern: str, now_ms: int) -> bool:
        """Return whether an account is an administrator of all that a pattern matches."""
        return any(
            Right.ADMIN in way.rights and not _is_expired(way, now_ms) and is_within(pattern, way.pattern)
            for way in self.ways_of(Caller(account))
        )

    def administers_any(self, account: str, now_ms: int) -> bool:
        """Return whether an account is an administrator of any pattern."""
        return any(Right.ADMIN in way.rights and not _is_expired(way, now_ms) for way in self.ways_of(Caller(account)))

    def administrators(self, now_ms: int) -> list[str]:
        """Return the accounts that are administrators of everything."""
        return [account for account in self.accounts if self.administers(account, EVERYTHING, now_ms)]

    def remaining(self, subject: str, pattern: str, now_ms: int) -> list[Way]:
        """Return the ways in which a subject still has rights on something that a pattern matches."""
        kind, _, name = subject.partition(":")
        subjects = [ANYONE, SIGNED_IN, subject] if kind == "group" else [subject]
        if subject == SIGNED_IN:
            subjects = [ANYONE, SIGNED_IN]
        elif kind == "account":
            subjects = self.subjects_of(Caller(name))
        ways = (way for one in subjects for way in self.ways.get(one, ()))
        return [way for way in ways if not _is_expired(way, now_ms) and overlap(way.pattern, pattern)]

    def _is_active(self, account: str) -> bool:
        found = self.accounts.get(account)
        return found is not None and not found.is_blocked


def _is_expired(way: Way, now_ms: int) -> bool:
    return way.expires_ms is not None and way.expires_ms <= now_ms


def _later(one: int | None, other: int | None) -> int | None:
    """Return the later of two expiries. None never comes."""
    return None if one is None or other is None else max(one, other)


def _is_ended(court: Court, statement: Statement) -> bool:
    """Return whether a removal ends what a statement gives: a withdrawal of it, or one that its author had not seen."""
    if isinstance(statement.body, CredentialMade | Bound):
        return statement.origin.id in court.withdrawn
    return court.is_killed(statement, court.killers_of(statement))


def _age(statement: Statement) -> tuple[int, str]:
    return statement.origin.time, statement.origin.id


def _accounts(court: Court, given: list[Statement]) -> dict[str, Account]:
    """Return the accounts that are not removed. Of several with one name the earliest keeps it, and the others are
    found under a name that no account can be given."""
    made: dict[str, Statement] = {}
    for statement in sorted(given, key=_age):
        if isinstance(statement.body, AccountMade):
            made.setdefault(statement.body.account, statement)
    if court.is_bootstrap_retired:
        made.pop(BOOTSTRAP, None)
    found: dict[str, Account] = {}
    taken: set[str] = set()
    for id, statement in made.items():  # the earliest first
        body = statement.body
        assert isinstance(body, AccountMade), "no other was taken"
        exclusions = [one for one in court.exclusions_of(id) if one.origin.id in court.judgement.removed]
        if any(isinstance(one.body, AccountRemoved) for one in exclusions):
            continue
        is_blocked = any(not court.is_lifted(one, court.judgement.given) for one in exclusions)
        name = f"{body.name}~{id[:RENAMED_DIGITS]}" if body.name in taken else body.name
        taken.add(body.name)
        found[id] = Account(id, name, body.name, body.kind, is_blocked)
    return found


def _groups(alive: list[Statement], accounts: Mapping[str, Account]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for statement in alive:
        body = statement.body
        if isinstance(body, Joined) and body.account in accounts:
            found[body.account] = found.get(body.account, frozenset()) | {body.group}
    return found


def _ways(alive: list[Statement], accounts: Mapping[str, Account]) -> dict[str, tuple[Way, ...]]:
    found: dict[str, list[Way]] = {}
    for statement in sorted(alive, key=_age):
        body = statement.body
        if not isinstance(body, Granted):
            continue
        kind, _, name = body.subject.partition(":")
        if kind == "account" and name not in accounts:
            continue
        rights = body.rights - {Right.ADMIN} if body.subject in (ANYONE, SIGNED_IN) else body.rights
        way = Way(statement.origin.id, body.subject, body.pattern, rights, body.expires_ms)
        found.setdefault(body.subject, []).append(way)
    return {subject: tuple(ways) for subject, ways in found.items()}


class _Passwords(NamedTuple):
    """The ids of password facts: those that count, one for each account, and those that lost against one of them."""

    winning: frozenset[str]
    lost: frozenset[str]


def _passwords(court: Court, given: list[Statement]) -> _Passwords:
    """Return the password of each account: the newest, of several that had not seen each other a reset by an
    administrator before a change, else the one with the highest (time, writer)."""
    by_account: dict[str, list[Statement]] = {}
    for statement in given:
        body = statement.body
        if isinstance(body, CredentialMade) and body.kind == CredentialKind.PASSWORD:
            by_account.setdefault(body.account, []).append(statement)
    winning, lost = set[str](), set[str]()
    for account, passwords in by_account.items():

        def rank(one: Statement, account: str = account) -> tuple[bool, int, int, str]:
            return one.origin.by != account, one.origin.time, one.origin.writer, one.origin.id

        newest = [one for one in passwords if not any(court.history.has_seen(other, one) for other in passwords)]
        winner = max(newest, key=rank, default=None)
        winning |= {winner.origin.id} if winner is not None else set()
        lost |= {one.origin.id for one in newest if one is not winner}
    return _Passwords(frozenset(winning), frozenset(lost))


def _credentials(
    alive: list[Statement], passwords: _Passwords, accounts: Mapping[str, Account]
) -> dict[str, tuple[Credential, ...]]:
    found: dict[str, list[Credential]] = {}
    for statement in sorted(alive, key=_age):
        body = statement.body
        if not isinstance(body, CredentialMade) or body.account not in accounts:
            continue
        if body.kind == CredentialKind.PASSWORD and statement.origin.id not in passwords.winning:
            continue
        credential = Credential(statement.origin.id, body.account, body.kind, body.secret, body.expires_ms)
        found.setdefault(body.account, []).append(credential)
    return {account: tuple(credentials) for account, credentials in found.items()}


def _bindings(alive: list[Statement], accounts: Mapping[str, Account]) -> dict[str, tuple[Binding, ...]]:
    """Return the bindings of each account. One whose claims can match no token is left out."""
    found: dict[str, list[Binding]] = {}
    for statement in sorted(alive, key=_age):
        body = statement.body
        if not isinstance(body, Bound) or body.account not in accounts:
            continue
        if (claims := read_claims(body.claims)) is not None:
            name = accounts[body.account].name
            binding = Binding(statement.origin.id, body.account, name, body.issuer, claims, body.expires_ms)
            found.setdefault(body.account, []).append(binding)
    return {account: tuple(bindings) for account, bindings in found.items()}


def _findings(court: Court, passwords: _Passwords, accounts: Mapping[str, Account]) -> tuple[Finding, ...]:
    """Return what the conflict rules have left out, the oldest first. A void fact is not named any more once another
    one says the same and counts."""
    counted = court.judgement.given | court.judgement.removed
    statements = sorted(court.history.order, key=_age)
    confirmed = {one.body for one in statements if one.origin.id in counted}
    renamed = {account.id for account in accounts.values() if account.name != account.given_name}
    found = []
    for statement in statements:
        id, body = statement.origin.id, statement.body
        if id not in counted:
            if body not in confirmed:
                found.append(Finding(id, "void", statement))
        elif id in passwords.lost:
            found.append(Finding(id, "password-lost", statement))
        elif isinstance(body, AccountMade) and body.account in renamed:
            found.append(Finding(id, "renamed", statement))
    return tuple(found)
