"""Designated holders by rendezvous hashing over the known members (Thaler and Ravishankar, 1998).

Each member has a weight for each digest, and the members with the highest weights hold the content. All members compute
the same ranking without a message, and when a member joins or leaves, only the content moves for which it ranks first.
Where a policy asks for a number of replicas, they are spread over as many sites as there are. The ranking covers all
candidates, live or not (`Members.replica_candidates` leaves out those that have been away for ten minutes): otherwise a
moment's silence would move content.
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
    """Return the candidates for a content, the highest rank first."""
    return sorted(candidates, key=lambda one: blake3(f"{digest}\0{one.instance}".encode()).digest(8), reverse=True)


def spread(order: Iterable[Candidate]) -> list[Candidate]:
    """Return the same candidates, reordered so that the first ones are each at another site."""
    rounds: dict[str, int] = {}
    numbered = []
    for one in order:
        rounds[one.site] = rounds.get(one.site, 0) + 1
        numbered.append((rounds[one.site], one))
    return [one for _, one in sorted(numbered, key=lambda entry: entry[0])]  # stable: by rank inside a round


def designated(copies: Copies, digest: Digest, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the instances that a policy assigns a content to: fewer than it asks for where there are not so many."""
    order = ranked(digest, candidates)
    if copies.everywhere:
        return order
    if copies.sites:
        return [
            one for site, number in copies.sites for one in [other for other in order if other.site == site][:number]
        ]
    return spread(order)[: copies.number]
