"""A second evaluator of the facts of access control, to compare `registry.access` with.

It was written from the rules alone and works differently: everything that an author had seen is a set, patterns are
regular expressions, and each statement is true, false or unknown, in Kleene's logic. All begin as unknown, and every
rule is applied to every statement until nothing changes (Fitting, "A Kripke-Kleene semantics for logic programs",
1985). A rule refers to what gives something only where that had been seen, so there are no positive loops, and this
model is the well-founded one. What stays unknown rests on removals that void each other: those removals count, and what
they touch is void. It is slow, and made for small histories.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from registry.access.facts import (
    AccountMade,
    AccountRemoved,
    Blocked,
    Bound,
    CredentialMade,
    Enforced,
    Granted,
    Joined,
    Left,
    Revoked,
    Statement,
    Unblocked,
    Withdrawn,
)

FALSE, UNKNOWN, TRUE = 0, 1, 2
OPERATOR, FIRST = "operator", "0" * 31 + "1"
RIGHTS = ("admin", "delete", "pull", "push")
TAKING = (AccountRemoved, Withdrawn, Left, Revoked, Blocked)


class InForce(NamedTuple):
    """Everything that a set of facts leads to, in comparable values."""

    names: frozenset[tuple[str, str, bool]]
    """Account, name, whether it is blocked."""
    rights: frozenset[tuple[str, str, str]]
    """Account (empty for an anonymous caller), repository, right."""
    credentials: frozenset[tuple[str, str]]
    """Account, id of a credential or a binding that can be used."""
    void: frozenset[str]
    """Ids of statements that do not count."""


def evaluate(statements: Iterable[Statement], repositories: Iterable[str], now_ms: int) -> InForce:
    """Return what is in force."""
    oracle = _Oracle({one.origin.id: one for one in statements})
    return oracle.in_force(list(repositories), now_ms)


def pattern_matches(pattern: str, name: str) -> bool:
    """Return whether a pattern matches a name."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None


def pattern_within(one: str, other: str) -> bool:
    """Return whether all that one pattern matches is matched by the other: by a search for what is not."""
    fillings = ("", "\x01", "/", "a", "\x01/\x01")
    texts = {one.replace("*", filling) for filling in fillings}
    return all(pattern_matches(other, text) for text in texts)


class _Oracle:
    def __init__(self, all_: dict[str, Statement]) -> None:
        self.all = all_
        self.by_kind: dict[type, list[Statement]] = {}
        for one in all_.values():
            self.by_kind.setdefault(type(one.body), []).append(one)
        self.past = {id: self._past(id) for id in all_}
        self.status = dict.fromkeys(all_, UNKNOWN)
        while True:
            after = {id: self._truth(one) for id, one in all_.items()}
            if after == self.status:
                break
            self.status = after

    def _past(self, id: str) -> frozenset[str]:
        seen: set[str] = set()
        waiting = [*self.all[id].origin.after]
        while waiting:
            other = waiting.pop()
            if other in self.all and other not in seen:
                seen.add(other)
                waiting += self.all[other].origin.after
        return frozenset(seen)

    def _about(self, kind: type, test: Callable[..., bool]) -> list[Statement]:
        return [one for one in self.by_kind.get(kind, ()) if test(one.body)]

    def _truth(self, one: Statement) -> int:
        """Return whether the author was entitled to a statement, by what is thought of the others now."""
        author, past, body = one.origin.by, self.past[one.origin.id], one.body
        if author == OPERATOR or isinstance(body, Enforced):
            return TRUE
        if author == FIRST:
            for other in self._others_made_administrators():
                if other is not one and one.origin.id not in self.past[other.origin.id]:
                    return FALSE

        def had_seen(listed: list[Statement]) -> list[Statement]:
            return [other for other in listed if other.origin.id in past]

        def stands(removal: Statement) -> int:
            """Return whether a removal takes something away from this statement."""
            if isinstance(body, TAKING):
                bites = removal.origin.id in past
            else:
                covers = one.origin.id in self.past[removal.origin.id]
                bites = removal.body.distrust or not covers  # type: ignore[union-attr]  # only such are asked
            return self.status[removal.origin.id] if bites else FALSE

        exists = max(
            (self.status[c.origin.id] for c in had_seen(self._about(AccountMade, lambda b: b.account == author))),
            default=FALSE,
        )
        free = TRUE
        for exclusion in self._about(AccountRemoved, lambda b: b.account == author):
            free = min(free, TRUE - stands(exclusion))
        for block in self._about(Blocked, lambda b: b.account == author):
            unblocks = had_seen(self._about(Unblocked, lambda b: b.account == author))
            lifted = [self.status[u.origin.id] for u in unblocks if block.origin.id in self.past[u.origin.id]]
            free = min(free, max(TRUE - stands(block), *lifted, FALSE))
        if self._is_about_oneself(one):
            return min(exists, free)
        pattern = body.pattern if isinstance(body, Granted | Revoked) else "*"
        ways = [FALSE]
        for grant in had_seen(
            self._about(Granted, lambda b: "admin" in b.rights and pattern_within(pattern, b.pattern))
        ):
            given = grant.body
            assert isinstance(given, Granted)
            if given.expires_ms is not None and one.origin.time >> 16 >= given.expires_ms:
                continue
            holds = self._holds(grant, stands)
            if given.subject == f"account:{author}":
                ways.append(holds)
            for joined in had_seen(self._about(Joined, lambda b: b.account == author)):
                if given.subject == f"group:{joined.body.group}":  # type: ignore[union-attr]  # it is one
                    ways.append(min(holds, self._holds(joined, stands)))
        return min(exists, free, max(ways))

    def _holds(self, given: Statement, stands: Callable[[Statement], int]) -> int:
        truth = self.status[given.origin.id]
        for removal in self._ending(given):
            truth = min(truth, TRUE - stands(removal))
        return truth

    def _ending(self, given: Statement) -> list[Statement]:
        """Return the removals that end a grant or a membership, if they count."""
        body, seen = given.body, self.past[given.origin.id]
        found: list[Statement] = []
        if isinstance(body, Granted):
            found = self._about(
                Revoked, lambda b: b.subject == body.subject and pattern_within(body.pattern, b.pattern)
            )
        elif isinstance(body, Joined):
            found = self._about(Left, lambda b: (b.group, b.account) == (body.group, body.account))
        return [removal for removal in found if removal.origin.id not in seen]

    def _others_made_administrators(self) -> list[Statement]:
        return self._about(
            Granted,
            lambda b: (
                "admin" in b.rights
                and b.pattern == "*"
                and b.subject not in ("anonymous", "authenticated", f"account:{FIRST}")
            ),
        )

    def _is_about_oneself(self, one: Statement) -> bool:
        body = one.body
        if isinstance(body, Withdrawn):
            target = self.all.get(body.target)
            return target is not None and (
                isinstance(target.body, CredentialMade) and target.body.account == one.origin.by
            )
        return isinstance(body, CredentialMade) and body.kind == "password" and body.account == one.origin.by

    def _counts(self, one: Statement) -> bool:
        return (
            self.status[one.origin.id] > FALSE if isinstance(one.body, TAKING) else self.status[one.origin.id] == TRUE
        )

    def in_force(self, repositories: list[str], now_ms: int) -> InForce:
        counting = [one for one in self.all.values() if self._counts(one)]
        names = self._names(counting)
        active = {account for account, (_, is_blocked) in names.items() if not is_blocked}
        in_force = [one for one in counting if not any(self._counts(killer) for killer in self._ending(one))]
        rights = set()
        for account in ["", *active]:
            groups = {
                one.body.group for one in in_force if isinstance(one.body, Joined) and one.body.account == account
            }
            subjects = {"anonymous"} | (
                {"authenticated", f"account:{account}", *(f"group:{g}" for g in groups)} if account else set()
            )
            for one in in_force:
                body = one.body
                if not isinstance(body, Granted) or body.subject not in subjects:
                    continue
                if body.expires_ms is not None and body.expires_ms <= now_ms:
                    continue
                is_for_all = body.subject in ("anonymous", "authenticated")
                listed = RIGHTS if "admin" in body.rights and not is_for_all else body.rights - {"admin"}
                rights |= {
                    (account, name, str(right))
                    for name in repositories
                    for right in listed
                    if pattern_matches(body.pattern, name)
                }
        return InForce(
            frozenset((account, name, is_blocked) for account, (name, is_blocked) in names.items()),
            frozenset(rights),
            frozenset((account, id) for account, id in self._credentials(counting) if account in active),
            frozenset(one.origin.id for one in self.all.values() if not self._counts(one)),
        )

    def _names(self, counting: list[Statement]) -> dict[str, tuple[str, bool]]:
        """Return name and whether it is blocked, by account."""
        gone = {one.body.account for one in counting if isinstance(one.body, AccountRemoved)}
        if self._others_made_administrators():
            gone.add(FIRST)
        first: dict[str, tuple[int, str, str]] = {}
        for one in counting:
            if isinstance(one.body, AccountMade) and one.body.account not in gone:
                made = (one.origin.time, one.origin.id, one.body.name)
                first[one.body.account] = min(first.get(one.body.account, made), made)
        found: dict[str, tuple[str, bool]] = {}
        for account, (time, id, name) in first.items():
            is_later = any(other[2] == name and other[:2] < (time, id) for other in first.values())
            blocks = [one for one in counting if isinstance(one.body, Blocked) and one.body.account == account]
            unblocks = [one for one in counting if isinstance(one.body, Unblocked) and one.body.account == account]
            is_blocked = any(
                all(block.origin.id not in self.past[unblock.origin.id] for unblock in unblocks) for block in blocks
            )
            found[account] = (f"{name}~{account[:12]}" if is_later else name, is_blocked)
        return found

    def _credentials(self, counting: list[Statement]) -> set[tuple[str, str]]:
        withdrawn = {one.body.target for one in counting if isinstance(one.body, Withdrawn)}
        found: set[tuple[str, str]] = set()
        passwords: dict[str, list[Statement]] = {}
        for one in counting:
            if isinstance(one.body, CredentialMade) and one.body.kind == "password":
                passwords.setdefault(one.body.account, []).append(one)
            elif isinstance(one.body, CredentialMade | Bound):
                found.add((one.body.account, one.origin.id))
        for account, listed in passwords.items():
            newest = [one for one in listed if not any(one.origin.id in self.past[other.origin.id] for other in listed)]
            resets = [one for one in newest if one.origin.by != account]
            if newest:
                best = max(resets or newest, key=lambda one: (one.origin.time, one.origin.writer, one.origin.id))
                found.add((account, best.origin.id))
        return {(account, id) for account, id in found if id not in withdrawn}
