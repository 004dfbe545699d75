"""Lists hold what the facts at the answering instance say, all of it, in order, however they are paged."""

from collections.abc import Mapping, Sequence

from registry.catalog.queries import KIND
from simulations.checkers import Violation
from simulations.history import DocumentState
from simulations.workload.images import PARTS


def tags_of(seen: DocumentState) -> list[str]:
    return sorted({fact.key[1] for fact in seen.facts.values() if fact.key[0] == "t"})


def referrers_of(seen: DocumentState, subject: str) -> list[str]:
    manifests = {fact.key[1] for fact in seen.facts.values() if fact.key[0] == "m"}
    return sorted(digest for digest in manifests & PARTS.keys() if PARTS[digest].subject == subject)


def repositories_of(documents: Mapping[str, DocumentState]) -> list[str]:
    return sorted(name.removeprefix(KIND) for name, seen in documents.items() if seen.facts)


def check_list(what: str, listed: Sequence[str], expected: Sequence[str]) -> None:
    if list(listed) != list(expected):
        raise Violation(f"{what} lists {listed} in the end, and there are {expected}")
