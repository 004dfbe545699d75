"""The document `access`: the policy by its committed facts, and adding facts to it.

Every process reads the facts from committed rows and keeps the policy that follows from them until the document's
revision is another one. The revision is a number in the row of the document, and can be read in the query that a
request makes anyway. Workers see a change with their next query after its commit.

A catalog that was restored from a backup is marked in `meta`. What was revoked since the backup is in force again by
its facts, so no credential counts until the document has been exchanged with a member, or the holder of the directory
has run `concord access recover`.

An instance that joins a cluster with an empty directory is marked, too. It cannot know whether the cluster enforces
access control, so it serves no client until it has exchanged everything with a member.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple, TypeVar

from crdt.change import Change
from crdt.revisions import Revision
from registry.access.bindings import Binding
from registry.access.changes import Author, Draft
from registry.access.facts import DOCUMENT, KINDS, Statement, fact_of, read_statement
from registry.access.policy import Policy
from registry.access.rights import Caller, Credential, Right
from registry.catalog.database import Reads, Transaction
from registry.catalog.documents import Documents
from registry.ports import Clock

T = TypeVar("T")

RESTORED = "access restored"
"""Key of the catalog that marks one that was restored and has not met a member since."""
AWAITED = "access awaited"
"""Key of the catalog that marks a new one, which does not know whether access control is enforced."""
CACHED_STATEMENTS = 65_536

REVISION = f"""
(SELECT COALESCE((SELECT changed FROM documents WHERE name = '{DOCUMENT}'), 0) * 4
 + EXISTS (SELECT 1 FROM meta WHERE key = '{RESTORED}') + 2 * EXISTS (SELECT 1 FROM meta WHERE key = '{AWAITED}'))
"""
"""SQL: the revision of access control, for a query that reads something else, too."""
_REVISION = f"SELECT {REVISION}"
_TEXTS = f"""
SELECT f.key, f.writer, f.clock
FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind IN ({", ".join("?" * len(KINDS))})
WHERE d.name = '{DOCUMENT}'
"""

_DIGEST = f"SELECT digest FROM documents WHERE name = '{DOCUMENT}'"
_CLOCK = f"""
SELECT v.clock FROM documents d CROSS JOIN vectors v ON v.document = d.id AND v.writer = ? WHERE d.name = '{DOCUMENT}'
"""
MAX_NAMED = 128
"""Entries that `CommittedAccess.reached` names, so that it fits the header of a frame. There are more only where as
many instances have written while cut off from each other."""

_read = lru_cache(CACHED_STATEMENTS)(read_statement)


class RightsBehind(Exception):
    """A change was made in sight of facts of access control that are not here yet. It changed nothing."""


class Changed(NamedTuple):
    """A change of access control that is committed."""

    change: Change
    policy: Policy
    """The policy that it leads to."""


def statements(source: Reads | Transaction) -> list[Statement]:
    """Return the facts of access control that are understood."""
    return [statement for statement, _ in _located(source)]


def _located(source: Reads | Transaction) -> list[tuple[Statement, tuple[int, int]]]:
    """Return the facts that are understood, each with its writer and its clock in the document."""
    found = ((_read(text), (writer, clock)) for text, writer, clock in source.rows(_TEXTS, tuple(KINDS)))
    return [(statement, identity) for statement, identity in found if statement is not None]


class CommittedAccess:
    """The policy by what is committed (`AccessView`). Each process has one."""

    def __init__(self, database: Reads) -> None:
        self._database = database
        self._policy = Policy([])
        self._reached: tuple[Revision, ...] = ()
        """The extent of the document at the revision of `_policy`."""

    @property
    def revision(self) -> int:
        """A number that changes whenever any fact of access control changes."""
        return int(self._database.row(_REVISION)[0])

    @property
    def policy(self) -> Policy:
        """The policy as of now."""
        if self._policy.revision != self.revision:
            with self._database.one_step():
                self._refresh()
        return self._policy

    def _refresh(self) -> None:
        located = _located(self._database)
        self._policy = policy = Policy((statement for statement, _ in located), self.revision)
        if not policy.is_enforced:
            self._reached = ()
            return
        vector: dict[int, int] = {}
        for statement, (writer, clock) in located:
            if statement.origin.id in policy.heads:
                vector[writer] = max(vector.get(writer, 0), clock + 1)
        named = dict(sorted(vector.items())[:MAX_NAMED])
        self._reached = (Revision(DOCUMENT, named, self._database.row(_DIGEST)[0]),)

    @property
    def reached(self) -> tuple[Revision, ...]:
        """The extent of the facts here, for what is sent to other instances: where access control is enforced, a change
        names what its sender had seen ("new enemy": Pang et al., "Zanzibar", 2019, section 2.2). The newest facts stand
        for all that they have seen."""
        return self._reached if self.policy.is_enforced else ()

    def require_reached(self, revisions: Iterable[Revision]) -> None:
        """Raise RightsBehind for a change whose sender had seen facts that are not here yet: it may be content that was
        pushed after a revocation, which must not be served under the rights before it."""
        for revision in revisions:
            if revision.document == DOCUMENT and not self._covers(revision):
                raise RightsBehind("the sender has seen facts of access control that are not here yet")

    def _covers(self, revision: Revision) -> bool:
        digest = self._database.row(_DIGEST)
        if digest is not None and digest[0] == revision.digest:
            return True
        clocks = ((self._database.row(_CLOCK, (writer,)), clock) for writer, clock in revision.vector.items())
        return all(row is not None and row[0] >= clock for row, clock in clocks)

    @property
    def digest(self) -> str:
        """The state digest of the document: equal where the facts are equal. Empty without any."""
        row = self._database.row(_DIGEST)
        return row[0].hex() if row is not None else ""

    @property
    def is_restored(self) -> bool:
        """True while no credential counts, since the catalog was restored from a backup."""
        return bool(self.revision & 1)

    @property
    def is_awaited(self) -> bool:
        """True while it is unknown here whether access control is enforced."""
        return bool(self.revision & 2)

    @property
    def is_enforced(self) -> bool:
        return self.policy.is_enforced

    def account_of(self, name: str) -> str | None:
        return self.policy.account_of(name)

    def credentials_of(self, account: str) -> list[Credential]:
        return [] if self.is_restored else self.policy.credentials_of(account)

    def bindings_of(self, account: str) -> list[Binding]:
        return [] if self.is_restored else self.policy.bindings_of(account)

    def bindings_to(self, issuer: str) -> list[Binding]:
        return [] if self.is_restored else self.policy.bindings_to(issuer)

    def certificate(self, subject: str) -> Credential | None:
        return None if self.is_restored else self.policy.certificate(subject)

    def is_in_force(self, account: str, credential: str) -> bool:
        return not self.is_restored and self.policy.is_in_force(account, credential)

    def rights(self, caller: Caller, repository: str, now_ms: int) -> dict[Right, int | None]:
        return self.policy.rights(caller, repository, now_ms)

    def may_see_any(self, caller: Caller, now_ms: int) -> bool:
        return self.policy.may_see_any(caller, now_ms)


def change_access(
    tx: Transaction, documents: Documents, clock: Clock, by: str, plan: Callable[[Draft], T]
) -> tuple[T, Changed]:
    """Add the facts that `plan` says, by an account or by the operator. Raises OciError for what is refused."""
    before = statements(tx)
    author = Author(by, documents.clock.tick(clock.now_ms()), documents.begin(tx), clock.entropy)
    draft = Draft(before, Policy(before), author)
    result = plan(draft)
    policy = draft.finish()
    change = documents.write(tx, DOCUMENT, [], [fact_of(statement) for statement in draft.said])
    return result, Changed(change, policy)


def mark_restored(execute: Callable[[str], object]) -> None:
    """Mark a catalog that is made from a backup, where it has facts of access control."""
    execute(
        f"INSERT OR IGNORE INTO meta (key, value) SELECT '{RESTORED}', 1 "
        f"WHERE EXISTS (SELECT 1 FROM documents WHERE name = '{DOCUMENT}')"
    )


def mark_awaited(tx: Transaction) -> None:
    """Mark a catalog that is new."""
    tx.execute("INSERT OR IGNORE INTO meta (key, value) VALUES (?, 1)", (AWAITED,))


def drop_marks(tx: Transaction) -> None:
    """Let the credentials of a restored catalog count again, and clients be served by what a new one knows."""
    tx.execute("DELETE FROM meta WHERE key IN (?, ?)", (RESTORED, AWAITED))
