"""After healing all agree: facts, views, state digests, conflicts; and the view is what the documents mean."""

from collections import defaultdict

from crdt.errors import DocumentBroken
from crdt.fact import fact_hash, parse_fact
from crdt.trie import build
from registry.catalog.queries import KIND
from registry.instance import Instance
from simulations.checkers import Violation
from simulations.history import Identity
from simulations.node import Node


def check_agreement(nodes: list[Node]) -> dict[str, set[Identity]]:
    """Check that all running instances hold the same. Return the live facts of each document."""
    shown = {node.name: (_shown(instance), instance) for node in nodes if (instance := node.instance) is not None}
    first, *others = shown
    for other in others:
        for what, one in shown[first][0].items():
            if one != shown[other][0][what]:
                raise Violation(f"{first} and {other} differ in their {what} after healing")
    live: dict[str, set[Identity]] = {}
    for name, (_, instance) in shown.items():
        live = _check_meaning(name, instance)
    return live


def _shown(instance: Instance) -> dict[str, object]:
    """Vectors are not compared: they may differ by operations that left nothing behind."""
    queries, replica = instance.catalog.queries, instance.catalog.replica
    names = [name for (name,) in instance.catalog.database.rows("SELECT name FROM documents WHERE facts > 0")]
    return {
        "state digests": replica.root(),
        "facts": {name: sorted(instance.catalog.facts(name)[1]) for name in names},
        "conflicts": queries.conflicts(1000),
        "repositories": queries.repositories("", 1000),
    }


def _check_meaning(name: str, instance: Instance) -> dict[str, set[Identity]]:
    """Check that the view follows from the documents: digests and conflicts are computed again here."""
    live: dict[str, set[Identity]] = {}
    conflicts = []
    for (document,) in instance.catalog.database.rows("SELECT name FROM documents ORDER BY name"):
        state, facts = instance.catalog.facts(document)
        if build(fact_hash(text) for _, _, text in facts).digest != state.digest:
            raise Violation(f"{name}: the state digest of {document} is not that of its facts")
        replica = instance.catalog.replica
        compaction = replica.read_for_compaction(document)
        try:
            if compaction is not None:
                compaction.snapshot()
        except DocumentBroken as error:
            raise Violation(f"{name}: the view of {document} is not what it means: {error}") from None
        live[document] = {(writer, clock) for writer, clock, _ in facts}
        targets: dict[str, set[str]] = defaultdict(set)
        for _, _, text in facts:
            fact = parse_fact(text)
            if fact.kind == "t":
                targets[fact.key].add(fact.digest)
        conflicts += [(document.removeprefix(KIND), tag) for tag, at in sorted(targets.items()) if len(at) > 1]
    if conflicts != instance.catalog.queries.conflicts(1000):
        raise Violation(f"{name} lists other conflicts than its documents have")
    return live
