"""Which instances are to hold a content: rendezvous hashing over the known members (Thaler and Ravishankar, 1998).

Each member has a weight for each digest, and the highest hold it. Everybody computes the same without a message; when a
member comes or goes, only what ranks it first moves. Copies that are to be at so many instances are at as many
different sites as there are. The ranking is over members that are known, not over those that are live: else a moment's
silence would move content.
"""

from collections.abc import Iterable
from typing import NamedTuple

from blake3 import blake3

from registry.oci.names import Digest
from registry.settings.policy import Copies


class Candidate(NamedTuple):
    """An instance that may hold content."""

    instance: str
    site: str


def ranked(digest: Digest, candidates: Iterable[Candidate]) -> list[Candidate]:
    """All candidates, the first to hold a content first."""
    return sorted(candidates, key=lambda one: blake3(f"{digest}\0{one.instance}".encode()).digest(8), reverse=True)


def spread(order: Iterable[Candidate]) -> list[Candidate]:
    """The same candidates, so that the first ones are each at another site."""
    rounds: dict[str, int] = {}
    numbered = []
    for one in order:
        rounds[one.site] = rounds.get(one.site, 0) + 1
        numbered.append((rounds[one.site], one))
    return [one for _, one in sorted(numbered, key=lambda entry: entry[0])]  # stable: by rank inside a round


def designated(copies: Copies, digest: Digest, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Who is to hold a content. Fewer than the policy asks for where there are not so many."""
    order = ranked(digest, candidates)
    if copies.everywhere:
        return order
    if copies.sites:
        return [
            one for site, number in copies.sites for one in [other for other in order if other.site == site][:number]
        ]
    return spread(order)[: copies.number]
