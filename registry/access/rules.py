"""The rules that decide which facts of access control count, and which are void.

A fact that gives something (an account, a credential, a membership, a grant, a binding, an unblocking) counts if its
author was entitled to say it, by facts that the author had seen and that count themselves; and if every removal that
took that entitlement away *covers* it, which means that the author of the removal had seen the fact. What a removed
administrator said unseen is void, and so is what rests on it. With `distrust` a removal covers nothing.

A removal (of an account or a member, a revocation, a block, a withdrawal) counts if its author was entitled by facts
that it had seen, whatever was removed elsewhere meanwhile: removals win, and where two administrators remove each other
both are removed.

So what counts depends on which removals count, and that on what counts. Void removals void nothing: a puppet that a
removed administrator has made cannot remove others. The model is the well-founded one of the rules read as a logic
program (Van Gelder, "The alternating fixpoint of logic programs with negation", 1993): assume that all removals count,
find what is given under that, and which removals count under that; do so twice, since each step turns the error round;
repeat until nothing changes. The removals that are left are all that count for certain, and those whose own standing is
circular: these count too, and what they void is void. The result is a function of the set of facts alone, so the order
in which they arrived cannot matter.

Strong removal as in p2panda and Matrix's state resolution, where removals of rights come first.
"""

from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from typing import NamedTuple

from crdt.clock import COUNTER_BITS
from registry.access.facts import (
    ANYONE,
    BOOTSTRAP,
    OPERATOR,
    SIGNED_IN,
    AccountMade,
    AccountRemoved,
    Blocked,
    CredentialMade,
    Enforced,
    Granted,
    Joined,
    Left,
    Revoked,
    Statement,
    Unblocked,
    Withdrawn,
    account_subject,
    group_subject,
)
from registry.access.history import History
from registry.access.patterns import EVERYTHING, is_within
from registry.access.rights import CredentialKind, Right


class Judgement(NamedTuple):
    """The facts that count, by id."""

    given: frozenset[str]
    """Facts that give something."""
    removed: frozenset[str]
    """Removals."""


Removes = Callable[[Statement], bool]
"""Returns whether a removal takes an entitlement away from the statement that is judged."""


class _Facts:
    """All statements, by what they are about."""

    def __init__(self, history: History) -> None:
        self.accounts: dict[str, list[Statement]] = {}
        self.unblockings: dict[str, list[Statement]] = {}
        self.memberships: dict[str, list[Statement]] = {}
        self.admin_grants: dict[str, list[Statement]] = {}
        self.exclusions: dict[str, list[Statement]] = {}
        """Blocks and removals of each account."""
        self.revocations: dict[str, list[Statement]] = {}
        self.departures: dict[tuple[str, str], list[Statement]] = {}
        self.retirements: list[Statement] = []
        """Grants that make another one than the bootstrap account an administrator of everything."""
        for statement in history.order:
            self._add(statement)
        tables = (self.accounts, self.memberships, self.admin_grants, self.unblockings)
        conferring = {one.origin.id for table in tables for listed in table.values() for one in listed}
        self.conferring = [one for one in history.order if one.origin.id in conferring]
        """The facts on which the entitlement of an author depends."""

    def _add(self, statement: Statement) -> None:
        match statement.body:
            case AccountMade(account):
                self.accounts.setdefault(account, []).append(statement)
            case AccountRemoved(account) | Blocked(account):
                self.exclusions.setdefault(account, []).append(statement)
            case Unblocked(account):
                self.unblockings.setdefault(account, []).append(statement)
            case Joined(_, account):
                self.memberships.setdefault(account, []).append(statement)
            case Left(group, account):
                self.departures.setdefault((group, account), []).append(statement)
            case Revoked(subject):
                self.revocations.setdefault(subject, []).append(statement)
            case Granted(subject, pattern, rights) if Right.ADMIN in rights and subject not in (ANYONE, SIGNED_IN):
                self.admin_grants.setdefault(subject, []).append(statement)
                if pattern == EVERYTHING and subject != account_subject(BOOTSTRAP):
                    self.retirements.append(statement)


class Court:
    """Judges the facts of one history."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._facts = _Facts(history)
        history.mark(self._marked())

    def _marked(self) -> set[str]:
        """Return the ids of the statements of which it matters who has seen them."""
        marked = {one.origin.id for one in self._facts.conferring}
        for statement in self.history.order:
            is_password = isinstance(statement.body, CredentialMade) and statement.body.kind == CredentialKind.PASSWORD
            if statement.is_removal or is_password or statement.origin.by != OPERATOR:
                marked.add(statement.origin.id)
        return marked

    @cached_property
    def judgement(self) -> Judgement:
        """The facts that count."""
        removals = [one for one in self.history.order if one.is_removal]
        possible = frozenset(one.origin.id for one in removals)
        while True:
            certain = self._entitled_removals(removals, possible)
            after = self._entitled_removals(removals, certain)
            if after == possible:
                return Judgement(self._given(self.history.order, possible), possible)
            possible = after

    @cached_property
    def withdrawn(self) -> frozenset[str]:
        """The ids of facts that are withdrawn."""
        removed = self.judgement.removed
        return frozenset(
            one.body.target
            for one in self.history.order
            if isinstance(one.body, Withdrawn) and one.origin.id in removed
        )

    def is_killed(self, statement: Statement, killers: Iterable[Statement]) -> bool:
        """Return whether one of some removals counts that the author of the statement had not seen."""
        removed = self.judgement.removed
        return any(one.origin.id in removed and not self.history.has_seen(statement, one) for one in killers)

    def killers_of(self, statement: Statement) -> Collection[Statement]:
        """Return the removals that end a grant or a membership unless its author had seen them."""
        match statement.body:
            case Granted(subject, pattern):
                revocations = self._facts.revocations.get(subject, [])
                return [one for one in revocations if is_within(pattern, _pattern_of(one))]
            case Joined(group, account):
                return self._facts.departures.get((group, account), [])
        return []

    def exclusions_of(self, account: str) -> Collection[Statement]:
        """Return the blocks and the removals of an account."""
        return self._facts.exclusions.get(account, [])

    def is_lifted(self, block: Statement, given: Collection[str]) -> bool:
        """Return whether an unblocking counts whose author had seen a block. Nothing brings back a removed account."""
        return isinstance(block.body, Blocked) and any(
            one.origin.id in given and self.history.has_seen(one, block)
            for one in self._facts.unblockings.get(block.body.account, [])
        )

    @property
    def is_bootstrap_retired(self) -> bool:
        """Return whether any other administrator of everything has ever existed."""
        return bool(self._facts.retirements)

    def _given(self, statements: Iterable[Statement], removed: Collection[str]) -> frozenset[str]:
        """Return which of some statements, in order, are given where these removals count."""
        given: set[str] = set()
        for statement in statements:
            if not statement.is_removal and self._is_given(statement, given, removed):
                given.add(statement.origin.id)
        return frozenset(given)

    def _is_given(self, statement: Statement, given: Collection[str], removed: Collection[str]) -> bool:
        def removes(removal: Statement) -> bool:
            return removal.origin.id in removed and not self._covers(removal, statement)

        return self._is_entitled(statement, given, removes)

    def _covers(self, removal: Statement, statement: Statement) -> bool:
        """Return whether a removal leaves what its author had seen of a removed administrator."""
        return not getattr(removal.body, "distrust", False) and self.history.has_seen(removal, statement)

    def _entitled_removals(self, removals: list[Statement], removed: frozenset[str]) -> frozenset[str]:
        """Return the removals whose authors were entitled, where these removals count."""
        given = self._given(self._facts.conferring, removed)

        def is_entitled(removal: Statement) -> bool:
            def removes(other: Statement) -> bool:
                return other.origin.id in removed and self.history.has_seen(removal, other)

            return self._is_entitled(removal, given, removes)

        return frozenset(one.origin.id for one in removals if is_entitled(one))

    def _is_entitled(self, statement: Statement, given: Collection[str], removes: Removes) -> bool:
        """Return whether the author was entitled to a statement, by what is given and not taken away."""
        author = statement.origin.by
        if author == OPERATOR or isinstance(statement.body, Enforced):
            return True  # enforcement only restricts
        if author == BOOTSTRAP and not self._precedes_retirement(statement):
            return False
        seen = self._seen_by(statement, given)
        if not any(map(seen, self._facts.accounts.get(author, []))):
            return False
        for exclusion in self._facts.exclusions.get(author, []):
            if removes(exclusion) and not self._is_lifted_before(exclusion, statement, given):
                return False
        if self._is_own(statement):
            return True
        pattern = _scope_of(statement)
        grants = self._grants_of(author, seen, removes)
        return any(is_within(pattern, _pattern_of(grant)) and _is_current(grant, statement) for grant in grants)

    def _grants_of(self, author: str, seen: Removes, removes: Removes) -> Iterable[Statement]:
        """Yield the administrator's grants of an author, of the account itself and of its groups."""

        def holds(statement: Statement) -> bool:
            had_seen = self.history.has_seen
            return seen(statement) and not any(
                removes(one) and not had_seen(statement, one) for one in self.killers_of(statement)
            )

        table = self._facts.admin_grants
        yield from filter(holds, table.get(account_subject(author), []))
        for membership in filter(holds, self._facts.memberships.get(author, [])):
            if isinstance(membership.body, Joined):
                yield from filter(holds, table.get(group_subject(membership.body.group), []))

    def _seen_by(self, statement: Statement, given: Collection[str]) -> Removes:
        return lambda other: other.origin.id in given and self.history.has_seen(statement, other)

    def _is_lifted_before(self, block: Statement, statement: Statement, given: Collection[str]) -> bool:
        if not isinstance(block.body, Blocked):
            return False
        seen = self._seen_by(statement, given)
        unblockings = self._facts.unblockings.get(block.body.account, [])
        return any(seen(one) and self.history.has_seen(one, block) for one in unblockings)

    def _precedes_retirement(self, statement: Statement) -> bool:
        """Return whether every other administrator was made by those who had seen a statement of the bootstrap account,
        or by that statement."""
        return all(
            one.origin.id == statement.origin.id or self.history.has_seen(one, statement)
            for one in self._facts.retirements
        )

    def _is_own(self, statement: Statement) -> bool:
        """Return whether an account does what it may do with itself: set its password, withdraw its credentials."""
        match statement.body:
            case CredentialMade(account, CredentialKind.PASSWORD):
                return account == statement.origin.by
            case Withdrawn(target):
                found = self.history.by_id.get(target)
                return (
                    found is not None
                    and isinstance(found.body, CredentialMade)
                    and found.body.account == statement.origin.by
                )
        return False


def _scope_of(statement: Statement) -> str:
    """Return the pattern of which an author has to be an administrator."""
    return statement.body.pattern if isinstance(statement.body, Granted | Revoked) else EVERYTHING


def _pattern_of(statement: Statement) -> str:
    assert isinstance(statement.body, Granted | Revoked), "only these have patterns"
    return statement.body.pattern


def _is_current(grant: Statement, statement: Statement) -> bool:
    """Return whether a grant had not expired when a statement was made, by the statement's own time."""
    assert isinstance(grant.body, Granted), "a grant"
    expires_ms = grant.body.expires_ms
    return expires_ms is None or statement.origin.time >> COUNTER_BITS < expires_ms
