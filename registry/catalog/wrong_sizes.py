"""Facts that state another size than the content or the manifest body on this disk has.

Answers take sizes from the content itself, so such a fact misleads no client of this instance. It is an alarm all the
same: a member has stated a wrong size, and an instance that does not have the content yet can only believe it until it
asks a holder.
"""

from collections import OrderedDict
from collections.abc import Callable

from crdt.fact import BLOB, MANIFEST, Fact
from registry.catalog.database import Transaction, WrongSize
from registry.oci.names import Digest
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.wrong_sizes")

MAX_REPORTED = 10_000
"""Digests and sizes that are not logged again: about 2 MB."""

_HERE = {
    BLOB: "SELECT size FROM content WHERE digest = ?1 AND size <> ?2",
    MANIFEST: "SELECT LENGTH(body) FROM manifests WHERE digest = ?1 AND LENGTH(body) <> ?2",
}
_STATED = {
    BLOB: "SELECT size, writer FROM facts WHERE kind = 'b' AND key = ?1 AND size <> ?2 LIMIT 1",
    MANIFEST: "SELECT size, writer FROM facts WHERE kind = 'm' AND key = ?1 AND size <> ?2 LIMIT 1",
}


class WrongSizes:
    """Count and log wrong sizes, each digest and size once."""

    def __init__(self, instance_of: Callable[[int], str | None]) -> None:
        self._instance_of = instance_of
        self._reported: OrderedDict[tuple[str, int], None] = OrderedDict()
        self.count = 0

    def report(self, wrong: WrongSize) -> None:
        if (wrong.digest, wrong.stated) in self._reported:
            return
        self._reported[wrong.digest, wrong.stated] = None
        if len(self._reported) > MAX_REPORTED:
            self._reported.popitem(last=False)
        self.count += 1
        log.error(
            LogEvent.SIZE_FACT_MISMATCHED,
            "a fact of instance %(stated_by)s states that %(digest)s has %(stated_bytes)d bytes, "
            "and it has %(actual_bytes)d; answers have the right size",
            stated_by=self._instance_of(wrong.writer) or f"unknown (writer {wrong.writer:x})",
            digest=wrong.digest,
            stated_bytes=wrong.stated,
            actual_bytes=wrong.size,
        )


def compare_fact(tx: Transaction, fact: Fact) -> None:
    """Compare a new fact with what is on this disk."""
    row = tx.row(_HERE[fact.kind], (fact.key, fact.size)) if fact.kind in _HERE else None
    if row is not None:
        tx.wrong_sizes.append(WrongSize(fact.key, fact.size, row[0], fact.writer))


def compare_content(tx: Transaction, kind: str, digest: Digest, size: int) -> None:
    """Compare what has come to this disk with the facts about it, and note the first that differs."""
    row = tx.row(_STATED[kind], (digest, size))
    if row is not None:
        tx.wrong_sizes.append(WrongSize(digest, row[0], size, row[1]))
