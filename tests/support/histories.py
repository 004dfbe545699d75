"""Histories of one document: deltas of writers that see each other now and then."""

import random

from crdt.fact import tag_fact
from simulations.replica import MemoryReplica, bring_together

NAME = "repository/app"


def history(seed, operations=12, writers=3):
    """Deltas of writers that see each other now and then, in an order in which nothing is missing."""
    drawn, replicas, deltas = random.Random(seed), [MemoryReplica(100 + n) for n in range(writers)], []
    for number in range(operations):
        replica = drawn.choice(replicas)
        live = replica.texts(NAME)
        said = [tag_fact(f"v{number}", f"sha256:{number:064x}", number, replica.writer).text()]
        ended = drawn.sample(live, min(len(live), drawn.randrange(3)))
        deltas.append(replica.write(NAME, said if drawn.random() < 0.8 else [], ended))
        if drawn.random() < 0.5:
            other = drawn.choice(replicas)
            if other is not replica:
                bring_together(other, replica)
    return deltas, replicas
