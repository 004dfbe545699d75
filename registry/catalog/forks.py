"""Healing a document that a writer used by two processes has split.

Two replicas then have different entries under the same (writer, clock), or one has deleted what the other has not, at
equal state vectors: no diff can tell them apart. So the facts themselves are compared. Every entry that is not the same
on both sides is deleted by its identity, and what either side had there is asserted again under this process's own
writer. No fact is lost; facts that contradict each other show as a conflict.
"""

from collections.abc import Iterable

from crdt.change import Change
from crdt.fact import by_writer, parse_fact
from crdt.vector import Vector
from registry.catalog.database import Transaction
from registry.catalog.documents import Documents
from registry.catalog.view import all_observed
from registry.event_loop.steps import Steps, convert_in_steps


def heal(
    tx: Transaction, documents: Documents, name: str, vector: Vector, theirs: Iterable[tuple[int, int, str]]
) -> Steps[Change | None]:
    """Bring a document together with another replica's live facts, each (writer, clock, text), as of `vector`; in
    steps.

    Return None where the two do not differ, or one of them has gone on: what only one has seen is no contradiction,
    and deleting it would undo writes.
    """
    document = documents.document_id(tx, name)
    if documents.vector(tx, document) != vector:
        return None
    ours = {fact.identity: fact.text() for fact in all_observed(tx, document)} if document is not None else {}
    others = {(writer, clock): text for writer, clock, text in theirs}
    split = sorted(identity for identity in ours.keys() | others.keys() if ours.get(identity) != others.get(identity))
    if not split:
        return None
    texts = {text for identity in split for text in (ours.get(identity), others.get(identity)) if text is not None}
    writer = documents.begin(tx)
    facts = yield from convert_in_steps(
        lambda text: by_writer(parse_fact(text, documents.kinds), writer), sorted(texts)
    )
    return (yield from documents.write_in_steps(tx, name, split, facts, writer=writer, heals=True))
