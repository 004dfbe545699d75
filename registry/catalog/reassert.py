"""Undoing deletes: what an older copy of a repository says and was deleted since, asserted anew.

A delete wins over what it observed, for ever (see `crdt.document`): facts that come back with a bundle or a backup stay
deleted. So what is to come back is asserted as new facts, under a fresh writer, which no delete has observed. They keep
the time of the old ones: where another site has moved a tag meanwhile, unseen here, its push is the newer one and wins.
"""

from collections.abc import Sequence
from typing import NamedTuple

from crdt.fact import BLOB, MANIFEST, TAG, Fact
from registry.catalog.database import Transaction
from registry.catalog.documents import Documents
from registry.catalog.view import Identity, observed
from registry.catalog.winner import winner_key
from registry.event_loop.steps import ROWS_PER_STEP, Steps

Key = tuple[str, str]
"""The kind of a fact, and the tag or digest it is about."""


class Older(NamedTuple):
    """The facts of an older copy of a repository that differ from the live facts here."""

    absent: list[Fact]
    """The winning facts about keys that have no live fact here now."""
    moved: list[Fact]
    """Tags that point elsewhere here now."""


def compare(tx: Transaction, documents: Documents, name: str, facts: Sequence[Fact]) -> Steps[Older]:
    """Compare an older copy's facts with those here, in bounded steps."""
    winners: dict[Key, Fact] = {}
    for fact in facts:
        if fact.kind in (TAG, MANIFEST, BLOB):
            before = winners.get((fact.kind, fact.key))
            if before is None or winner_key(before) < winner_key(fact):
                winners[fact.kind, fact.key] = fact
    document, older = documents.document_id(tx, name), Older([], [])
    for number, ((kind, key), fact) in enumerate(winners.items(), 1):
        live = observed(tx, document, kind, key) if document is not None else []
        if not live:
            older.absent.append(fact)
        elif kind == TAG and fact.digest not in {one.digest for one in live}:
            older.moved.append(fact)
        if number % ROWS_PER_STEP == 0:
            yield
    return older


def reassert(tx: Transaction, documents: Documents, name: str, facts: Sequence[Fact]) -> Steps[None]:
    """Assert facts anew, as one operation, in the place of those that are live here."""
    document, replaced = documents.document_id(tx, name), list[Identity]()
    for number, fact in enumerate(facts, 1):
        live = observed(tx, document, fact.kind, fact.key) if document is not None else []
        replaced += [one.identity for one in live]
        if number % ROWS_PER_STEP == 0:
            yield
    writer = documents.begin(tx)
    yield from documents.write_in_steps(tx, name, replaced, [f._replace(writer=writer) for f in facts], (), writer)
