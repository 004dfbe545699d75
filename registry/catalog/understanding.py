"""Documents that this version does not understand, and serving nothing that depends on them.

A later version may write critical facts (see `crdt.fact`). An instance that does not understand one keeps, digests and
passes on the fact, and must not answer as if it were not there. What depends on a document follows from its name:

    repository/<name>       that repository
    every other document    everything, since rights, policies and members may concern any repository

Each document's row counts its live critical facts that are not understood, in the transaction that takes them in or
deletes them. So every process sees it with the next query, and one query tells of it together with other rows. After an
upgrade the facts that the new version understands are read again, before anything is served.
"""

from collections.abc import Mapping
from typing import NamedTuple

from crdt.fact import CRITICAL, FactReader, kind_of
from registry.catalog.database import Reads, Transaction
from registry.catalog.queries import KIND, document_name
from registry.catalog.view import ReadAgain, read_again
from registry.errors import CannotStart, NeedsUpgrade
from registry.event_loop.steps import Steps
from registry.oci.names import Repository
from registry.ports import Clock
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import LogLimit

log = EventLog("concord.catalog")

MAX_LISTED = 100
MAX_LOGGED_AT_START = 20
MAX_KINDS = 10
_AFTER_REPOSITORIES = KIND[:-1] + chr(ord(KIND[-1]) + 1)
"""The first name after those of repositories."""
_UNDERSTOOD = "fact kinds"
"""Key of the catalog for the kinds of facts by which its rows were read, separated by spaces."""

NO_OTHER_BLOCKS = f"""
NOT EXISTS (SELECT 1 FROM documents WHERE not_understood > 0 AND name < '{KIND}')
AND NOT EXISTS (SELECT 1 FROM documents WHERE not_understood > 0 AND name >= '{_AFTER_REPOSITORIES}')
"""
"""SQL: all documents are understood on which every repository depends."""
_BLOCKING_ALL = f"""
SELECT name FROM documents WHERE not_understood > 0 AND name < '{KIND}'
UNION ALL SELECT name FROM documents WHERE not_understood > 0 AND name >= '{_AFTER_REPOSITORIES}' LIMIT 1
"""
_BLOCKING = f"SELECT name FROM documents WHERE name = ? AND not_understood > 0 UNION ALL {_BLOCKING_ALL}"
_IN_RANGE = "SELECT name FROM documents WHERE not_understood > 0 AND name > ? AND name <= ? ORDER BY name LIMIT 1"
_ALL = "SELECT name FROM documents WHERE not_understood > 0 ORDER BY name LIMIT ?"
_COUNT = "SELECT COUNT(*) FROM documents WHERE not_understood > 0"
_KINDS = f"""
SELECT f.key FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind = '{CRITICAL}'
WHERE d.name = ? LIMIT {MAX_KINDS}
"""


class NotUnderstood(NamedTuple):
    """A document with critical facts that are not understood."""

    document: str
    kinds: list[str]
    """The kinds of some of those facts."""


def require_understood(source: Reads | Transaction, document: str) -> None:
    """Raise NeedsUpgrade where a repository's document, or one on which all depend, is not understood."""
    row = source.row(_BLOCKING, (document,))
    if row is not None:
        raise _refusal(source, row[0])


def require_understood_after(source: Reads, after: str, upto: str = "") -> None:
    """Raise NeedsUpgrade where a list of repositories, those after one up to another, would name one that is not
    understood. Without `upto` the list goes to the end."""
    last = document_name(Repository(upto)) if upto else _AFTER_REPOSITORIES
    row = source.row(_BLOCKING_ALL) or source.row(_IN_RANGE, (KIND + after, last))
    if row is not None:
        raise _refusal(source, row[0])


def is_understood(source: Reads, document: str) -> bool:
    """Return whether a repository may be served."""
    return source.row(_BLOCKING, (document,)) is None


def blocking_all(source: Reads) -> str | None:
    """Return a document that is not understood and on which everything depends, if there is one."""
    row = source.row(_BLOCKING_ALL)
    return row[0] if row is not None else None


def any_not_understood(source: Reads | Transaction) -> str | None:
    """Return a document that is not understood, if there is one."""
    row = source.row(_ALL, (1,))
    return row[0] if row is not None else None


def not_understood(source: Reads, limit: int = MAX_LISTED) -> list[NotUnderstood]:
    """Return the documents that are not understood, by name."""
    return [NotUnderstood(name, _kinds(source, name)) for (name,) in source.rows(_ALL, (limit,))]


def not_understood_count(source: Reads) -> int:
    return int(source.row(_COUNT)[0])


def _kinds(source: Reads | Transaction, document: str) -> list[str]:
    """Return the kinds of a document's critical facts that are not understood."""
    return sorted({kind_of(text)[:MAX_LISTED] for (text,) in source.rows(_KINDS, (document,))})


def _refusal(source: Reads | Transaction, document: str) -> NeedsUpgrade:
    kinds = _kinds(source, document)
    return NeedsUpgrade(
        f"this instance is too old for {document}: it does not understand facts of kind {', '.join(kinds)} there; ask "
        "another instance, or upgrade this one",
        {"document": document, "kinds": kinds},
    )


class Understanding:
    """The kinds of facts that one instance understands, and the log of documents that it does not. The catalog owns
    it."""

    def __init__(self, kinds: Mapping[str, FactReader], clock: Clock) -> None:
        self.kinds = kinds
        self._limit = LogLimit(clock)

    def changed(self, document: str, is_understood: bool) -> None:
        """Log that a document is not understood any more, or is again, once that is durable."""
        left_out = self._limit.admit()
        if left_out is None:
            return
        if is_understood:
            message = "%(document)s holds nothing any more that this version does not understand"
            log.warning(LogEvent.DOCUMENT_UNBLOCKED, message, document=document, **left_out)
        else:
            log.error(LogEvent.DOCUMENT_BLOCKED, _CONSEQUENCE, document=document, scope=_scope(document), **left_out)

    def is_current(self, source: Reads) -> bool:
        """Return whether the rows were read by the kinds of facts that are understood. Raises CannotStart where they
        were read by more."""
        row = source.row("SELECT value FROM meta WHERE key = ?", (_UNDERSTOOD,))
        before = set(row[0].split(" ")) if row is not None else set()
        if more := sorted(before - self.kinds.keys()):
            raise CannotStart(
                "the data directory was made by a newer version of Concord "
                f"(it holds facts of the kinds {', '.join(more)}, which this program does not understand)",
                "facts-newer",
            )
        return before == self.kinds.keys()

    def read_again(self, tx: Transaction) -> Steps[ReadAgain]:
        """Read the facts again that were not understood before, in bounded steps."""
        done = yield from read_again(tx, self.kinds)
        tx.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_UNDERSTOOD, " ".join(sorted(self.kinds)))
        )
        return done

    def report(self, source: Reads) -> None:
        """Log at the start which documents are not understood."""
        for document, kinds in not_understood(source, MAX_LOGGED_AT_START):
            scope = _scope(document)
            message = f"{_CONSEQUENCE} (kinds %(kinds)s)"
            log.error(LogEvent.DOCUMENT_BLOCKED, message, document=document, scope=scope, kinds=", ".join(kinds))
        count = not_understood_count(source)
        if count > MAX_LOGGED_AT_START:
            message = "%(count)d documents are not understood by this version; the status lists them"
            log.error(LogEvent.BLOCKED_DOCUMENTS_COUNTED, message, count=count)


_CONSEQUENCE = (
    "%(document)s holds critical facts that this version does not understand: nothing of %(scope)s is served here "
    "until this instance is upgraded"
)


def _scope(document: str) -> str:
    return f"repository {document.removeprefix(KIND)}" if document.startswith(KIND) else "any repository"
