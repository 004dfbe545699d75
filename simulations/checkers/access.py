"""Access control: every change is asked for, has seen what was there, and is never lost; and after healing all policies
are equal, and what the oracle says of the union of the facts.

A request that was refused, a failed login among them, says no fact: each fact that an instance says is one that a
request under way there asked for, by the account whose credential the request had.
"""

from collections.abc import Collection, Iterable, Mapping

from registry.access.facts import (
    DOCUMENT,
    OPERATOR,
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
)
from registry.access.policy import Policy
from registry.access.rights import Caller
from simulations.access_oracle import InForce
from simulations.access_states import NOW_MS, REPOSITORIES, AccessStates, statements_of
from simulations.checkers import Violation
from simulations.history import DocumentState, Fact, History, Identity, Operation
from simulations.node import Node

SAYS: Mapping[str, tuple[type, ...]] = {
    "prepare": (AccountMade, CredentialMade, Granted, Enforced),
    "account/create": (AccountMade, CredentialMade, Granted),
    "robot/create": (AccountMade,),
    "account/remove": (AccountRemoved,),
    "account/password": (CredentialMade,),
    "account/block": (Blocked,),
    "account/unblock": (Unblocked,),
    "key/create": (CredentialMade,),
    "key/revoke": (Withdrawn,),
    "group/add": (Joined,),
    "group/remove": (Left,),
    "grant": (Granted,),
    "revoke": (Revoked,),
    "approve": (AccountMade, CredentialMade, Joined, Granted, Unblocked, AccountRemoved, Blocked, Revoked, Left),
    "enforce": (Enforced,),
}
"""The facts that each request may say."""


class Access:
    """Remembers all facts of access control that instances had."""

    def __init__(self, states: AccessStates, history: History) -> None:
        self._states = states
        self._history = history
        self._known: dict[str, Statement] = {}
        self._acknowledged: dict[str, Operation] = {}

    def check_said(
        self, node: Node, before: DocumentState, said: Mapping[Identity, Fact], is_found: bool, now_s: float
    ) -> None:
        """An instance has said facts; `is_found` for those of an earlier start."""
        statements = statements_of(frozenset(fact.key[1] for fact in said.values()))
        present = statements_of(frozenset(fact.key[1] for fact in before.facts.values()))
        new = {id: one for id, one in statements.items() if id not in self._known}
        self._known |= present | new
        for statement in new.values() if not is_found else ():
            asked = self._history.under_way(node.name, now_s)
            if not any(self._asks_for(operation, statement) for operation in asked):
                raise Violation(f"{node.name} has said {statement}, and no request asked for it")
            if unseen := present.keys() - self._past(statement):
                raise Violation(f"{node.name} has said {statement}, which has not seen {sorted(unseen)[:3]}")

    def _asks_for(self, operation: Operation, statement: Statement) -> bool:
        kinds = SAYS.get(operation.reference, ()) if operation.kind == "access" else ()
        return isinstance(statement.body, kinds) and statement.origin.by == self._author_of(operation)

    def _author_of(self, operation: Operation) -> str:
        if not operation.credential:
            return OPERATOR
        made = self._known.get(operation.credential)
        return made.body.account if made is not None and isinstance(made.body, CredentialMade) else ""

    def _past(self, statement: Statement) -> set[str]:
        seen: set[str] = set()
        waiting = [*statement.origin.after]
        while waiting:
            id = waiting.pop()
            if id in self._known and id not in seen:
                seen.add(id)
                waiting += self._known[id].origin.after
        return seen

    def check_answer(self, operation: Operation, facts: Iterable[Fact]) -> None:
        """An answer has come: `facts` are what its instance has said since the request was sent."""
        if operation.status != 200 or operation.reference not in SAYS:
            return
        statements = statements_of(frozenset(fact.key[1] for fact in facts))
        found = {id: one for id, one in statements.items() if self._asks_for(operation, one)}
        if not found:
            raise Violation(f"{operation} was acknowledged and never committed")
        self._acknowledged |= dict.fromkeys(found, operation)

    def excuse(self, node: str) -> None:
        """An instance's disk was put back to an earlier state, or destroyed: what only it had is lost."""
        kept: set[str] = set()
        for other, seen in self._history.documents.items():
            if other != node:
                facts = seen.get(DOCUMENT, DocumentState()).facts.values()
                kept |= statements_of(frozenset(fact.key[1] for fact in facts)).keys()
        self._acknowledged = {id: one for id, one in self._acknowledged.items() if id in kept}

    def check_end(self, nodes: Collection[Node]) -> None:
        """After healing: equal policies, as the oracle says, and every acknowledged change."""
        states = {node.name: self._states.of(node) for node in nodes}
        union = frozenset(text for state in states.values() for text in state.texts)
        for id, operation in self._acknowledged.items():
            if id not in statements_of(union):
                raise Violation(f"{operation} was acknowledged, and is lost")
        expected = self._states.in_force(union)
        for node in nodes:
            assert node.instance is not None, "all live in the end"
            if states[node.name].is_restored:
                raise Violation(f"{node.name} has met members, and its credentials do not count")
            compare(node.name, in_force(node.instance.catalog.access.policy), expected)


def in_force(policy: Policy, repositories: Collection[str] = REPOSITORIES, now_ms: int = NOW_MS) -> InForce:
    """Return what a policy says, as the oracle says it."""
    active = [account.id for account in policy.accounts.values() if not account.is_blocked]
    return InForce(
        frozenset((account.id, account.name, account.is_blocked) for account in policy.accounts.values()),
        frozenset(
            (account, repository, str(right))
            for account in ["", *active]
            for repository in repositories
            for right in policy.rights(Caller(account), repository, now_ms)
        ),
        frozenset((account, one.id) for account in active for one in policy.credentials_of(account)),
        policy.void,
    )


def compare(name: str, found: InForce, expected: InForce) -> None:
    """Raise Violation where an instance has another policy than the oracle."""
    for field, one, other in zip(InForce._fields, found, expected, strict=True):
        if one != other:
            more, less = sorted(map(str, one - other))[:3], sorted(map(str, other - one))[:3]
            raise Violation(f"{name}: by the oracle the {field} lack {more}, and have {less}")
