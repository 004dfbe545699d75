"""Partitions between members and between sites, one-way cuts, and Redis servers that are stopped, paused and cut.

A partition swallows every packet. A one-way cut swallows the requests of one member to another, and lets those of the
other one through, as a firewall does that was set up on one side: packets that go to the other's port are dropped.
"""

import random
from collections.abc import Callable

from tests.scenarios.histories.faults.fired import Fired
from tests.scenarios.histories.members import PORT, Member, Members
from tests.support.server import Redis

Undo = Callable[[], None]
WAYS = (("INPUT", "-s"), ("OUTPUT", "-d"))
"""The directions of a link: what a host receives from an address, and what it sends there."""


def part_members(members: Members, drawn: random.Random) -> Fired | None:
    """Some members of a site from its other ones."""
    site = drawn.choice(sorted({member.site for member in members.all}))
    near = members.of_site(site)
    if len(near) < 2:
        return None
    drawn.shuffle(near)
    some, others = near[:1], near[1:]
    undo = _part(members, [(one, other) for one in some for other in others])
    return Fired(f"{_names(some)} from {_names(others)}", (site,), undo, parts_site=site)


def part_sites(members: Members, drawn: random.Random) -> Fired | None:
    sites = sorted({member.site for member in members.all})
    if len(sites) < 2:
        return None
    first, second = members.of_site(sites[0]), members.of_site(sites[1])
    return Fired(" from ".join(sites[:2]), tuple(sites), _part(members, [(a, b) for a in first for b in second]))


def one_way_members(members: Members, drawn: random.Random) -> Fired | None:
    site = drawn.choice(sorted({member.site for member in members.all}))
    near = members.of_site(site)
    if len(near) < 2:
        return None
    source, target = drawn.sample(near, 2)
    undo = _silence(members, [(source, target)])
    return Fired(f"{source.number} to {target.number}", (site,), undo, parts_site=site)


def one_way_sites(members: Members, drawn: random.Random) -> Fired | None:
    sites = sorted({member.site for member in members.all})
    if len(sites) < 2:
        return None
    source, target = drawn.sample(sites, 2)
    pairs = [(a, b) for a in members.of_site(source) for b in members.of_site(target)]
    return Fired(f"{source} to {target}", tuple(sites), _silence(members, pairs))


def redis_stop(members: Members, drawn: random.Random) -> Fired | None:
    """One server, or all of them, until they are started again."""
    running = [redis for redis in _some(members, drawn) if redis.process is not None]
    for redis in running:
        redis.kill()

    def start() -> None:
        for redis in running:
            redis.start()

    return Fired(f"{len(running)} of {len(members.redis)} Redis", _all_sites(members), start) if running else None


def redis_pause(members: Members, drawn: random.Random) -> Fired | None:
    running = [redis for redis in _some(members, drawn) if redis.process is not None]
    for redis in running:
        redis.pause()

    def resume() -> None:
        for redis in running:
            if redis.process is not None:
                redis.resume()

    return Fired(f"{len(running)} of {len(members.redis)} Redis", _all_sites(members), resume) if running else None


def redis_cut(members: Members, drawn: random.Random) -> Fired | None:
    """Some members, or all, from all Redis servers: both ways, or only what they send, or only what they receive."""
    ways = drawn.choice((WAYS, WAYS, WAYS[:1], WAYS[1:]))
    cut = drawn.sample(members.all, drawn.randint(1, len(members.all)))
    rules = [
        (member.number, (chain, direction, redis.host))
        for member in cut
        for redis in members.redis
        for chain, direction in ways
    ]
    return Fired(f"{_names(cut)} from Redis", tuple({member.site for member in cut}), _dropping(members, rules))


def _some(members: Members, drawn: random.Random) -> list[Redis]:
    return members.redis if drawn.random() < 0.7 else drawn.sample(members.redis, 1)


def _all_sites(members: Members) -> tuple[str, ...]:
    return tuple(sorted({member.site for member in members.all}))


def _names(members: list[Member]) -> str:
    return ", ".join(str(member.number) for member in members)


def _part(members: Members, pairs: list[tuple[Member, Member]]) -> Undo:
    return _dropping(
        members,
        [(one.number, (chain, direction, other.server.host)) for one, other in pairs for chain, direction in WAYS],
    )


def _silence(members: Members, pairs: list[tuple[Member, Member]]) -> Undo:
    return _dropping(
        members,
        [
            (source.number, ("OUTPUT", "-d", target.server.host, "-p", "tcp", "--dport", str(PORT)))
            for source, target in pairs
        ],
    )


def _dropping(members: Members, rules: list[tuple[int, tuple[str, ...]]]) -> Undo:
    for host, rule in rules:
        members.drop(host, *rule)

    def undo() -> None:
        for host, rule in rules:
            members.drop(host, *rule, add=False)

    return undo
