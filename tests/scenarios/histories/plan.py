"""The plan of a seed: the cluster, its clients, and the faults with their times."""

import math
import random
from dataclasses import dataclass

SITES = (
    ("eu", "eu"),
    ("eu", "eu", "eu"),
    ("eu", "eu", "us", "us"),
    ("eu", "eu", "eu", "us", "us"),
    ("eu", "eu", "us", "us", "us"),
    ("eu", "eu", "us", "us"),
)
FIRST_FAULT_S = 3.0
CALM_END_S = 10.0
"""No fault begins in the last seconds, since some effects come that late."""
CALM_SHARE = 0.4
"""Of the pauses between bursts of faults: the share that is long, so that effects that come late are seen in calm."""


@dataclass(frozen=True)
class Planned:
    """One fault of the plan."""

    at_s: float
    kind: str
    lasts_s: float
    draw: int
    """The set from which the fault draws its targets."""


@dataclass(frozen=True)
class Plan:
    seed: int
    seconds: float
    sites: tuple[str, ...]
    """The site of each member."""
    workers: int
    redis_servers: int
    clients: int
    faults: tuple[Planned, ...]

    def describe(self) -> list[str]:
        sizes = ", ".join(f"{site}: {self.sites.count(site)}" for site in dict.fromkeys(self.sites))
        lines = [
            f"seed {self.seed}, {self.seconds:g} s",
            f"members {sizes}; {self.workers} processes each; {self.redis_servers} Redis; {self.clients} clients",
        ]
        return lines + [f"  {f.at_s:7.2f} s  {f.kind} for {f.lasts_s:.2f} s" for f in self.faults]


LASTS_S = {
    "kill-primary": (0.0, 0.0),
    "kill-worker": (0.0, 0.0),
    "kill-all": (0.2, 4.0),
    "stop-primary": (0.04, 7.0),
    "stop-worker": (0.04, 5.0),
    "stop-all": (0.04, 6.0),
    "redis-stop": (0.5, 8.0),
    "redis-pause": (0.1, 8.0),
    "redis-cut": (0.1, 8.0),
    "part-members": (0.5, 6.0),
    "part-sites": (0.5, 8.0),
    "one-way-members": (0.5, 6.0),
    "one-way-sites": (0.5, 8.0),
    "clock": (0.0, 0.0),
    "corrupt": (0.0, 0.0),
}
"""The duration of each kind of fault, at least and at most. Drawn by their logarithm, as what matters happens around
50 ms, when a member is not waited for any more, around a second, when leases end, and after several."""
BETWEEN_SITES = ("part-sites", "one-way-sites")


def draw_plan(seed: int, seconds: float, kinds: tuple[str, ...] = ()) -> Plan:
    """A plan that is a function of its arguments. `kinds` are the faults to draw from, all of them by default."""
    drawn = random.Random(f"{seed} {seconds}")
    sites = drawn.choice(SITES)
    workers, redis_servers, clients = drawn.choice((2, 2, 3)), drawn.choice((1, 1, 2)), drawn.randint(5, 8)
    usable = [kind for kind in kinds or LASTS_S if len(set(sites)) > 1 or kind not in BETWEEN_SITES]
    return Plan(seed, seconds, sites, workers, redis_servers, clients, tuple(_draw_faults(drawn, usable, seconds)))


def _draw_faults(drawn: random.Random, kinds: list[str], seconds: float) -> list[Planned]:
    faults: list[Planned] = []
    deck: list[str] = []  # every kind comes as often as the others
    kinds = [*kinds, *(kind for kind in kinds if kind in BETWEEN_SITES)]  # which not all plans have
    at_s = FIRST_FAULT_S
    while at_s < seconds - CALM_END_S:
        ends_s = at_s
        for _ in range(drawn.choice((1, 2, 2, 3, 3))):
            if not deck:
                deck = drawn.sample(kinds, len(kinds))
            kind = deck.pop()
            begins_s, lasts_s = at_s + drawn.uniform(0, 2), _draw_lasts_s(drawn, *LASTS_S[kind])
            faults.append(Planned(begins_s, kind, lasts_s, drawn.getrandbits(32)))
            ends_s = max(ends_s, begins_s + lasts_s)
        at_s = ends_s + (drawn.uniform(5, 11) if drawn.random() < CALM_SHARE else drawn.uniform(0.2, 3))
    return sorted((fault for fault in faults if fault.at_s < seconds - CALM_END_S), key=lambda fault: fault.at_s)


def _draw_lasts_s(drawn: random.Random, least_s: float, most_s: float) -> float:
    return math.exp(drawn.uniform(math.log(least_s), math.log(most_s))) if least_s else 0.0
