"""Very many instances and tags: the registry's own gossip, anti-entropy and requests between instances, without SQLite,
clients and content.

    python -m simulations.scale --instances 200 --sites 10 --repositories 20000 --tags 1000000

Pushes go to instances at random while frames are lost; then one site is cut off while pushes go on, and comes back; at
last an empty instance joins. What is reported of messages and bytes is exact; processor time is that of this process,
which does the work of all instances.
"""

import asyncio
import logging
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from crdt.fact import manifest_fact, tag_fact
from crdt.frame import ACKNOWLEDGEMENT, CHANGE, HEARTBEAT
from crdt.vector import Vector
from simulations.bus import RedisServers
from simulations.loop import VirtualLoop
from simulations.network import Network
from simulations.packet_simulator import PacketSimulator
from simulations.scaled_instance import BODY, MEDIA_TYPE, ScaledInstance
from simulations.shared_catalog import Base, SharedCatalog, States, base

REDIS = "redis"
KINDS = {CHANGE: "changes", HEARTBEAT: "heartbeats", ACKNOWLEDGEMENT: "acknowledgements"}
EVERYWHERE_S = 120.0


@dataclass(frozen=True)
class Size:
    """The size of the deployment that is played."""

    instances: int = 200
    sites: int = 10
    repositories: int = 20_000
    tags: int = 1_000_000
    pushes_per_s: float = 20.0
    loss: float = 0.001
    between_sites_s: float = 0.04
    calm_s: float = 10.0
    cut_s: float = 10.0
    seed: int = 0


class Traffic:
    """Messages and bytes since it was last taken."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def note(self, kind: str, size: int, times: int = 1) -> None:
        self.count[kind] += times
        self.bytes[kind] += size * times


class SteadyClock:
    """See `registry.ports.Clock`."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self._loop, self._rng = loop, rng

    def now_ms(self) -> int:
        return 1_700_000_000_000 + int(self._loop.now * 1000)

    def steady_s(self) -> float:
        return self._loop.now

    def entropy(self, size: int) -> bytes:
        return self._rng.randbytes(size)


class Push(NamedTuple):
    """One push that is not everywhere yet."""

    upto: int
    """The clock at which its writer's entries end with it."""
    at_s: float
    lacking: list[int]
    """The number of instances that lack it."""


@dataclass
class Phase:
    """The results of one phase."""

    name: str
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    pushes: int = 0
    delays_s: list[float] = field(default_factory=list)
    agreed_s: float | None = None
    """From its end to agreement of all."""
    traffic: Traffic = field(default_factory=Traffic)
    frames: Counter[str] = field(default_factory=Counter)


class Deployment:
    """All instances, and what is known of every push."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.loop = VirtualLoop()
        self._rng = random.Random(size.seed)
        self.packet_simulator = PacketSimulator(random.Random(f"{size.seed} weather"))
        self.packet_simulator.between_sites_s = size.between_sites_s
        self.network = Network(self.packet_simulator)
        self.redis = RedisServers(self.packet_simulator, [REDIS])
        self.redis.on_publish.append(self._note_frame)
        self.states = States()
        self.common = base(_documents(size))
        self.instances: dict[str, ScaledInstance] = {}
        self.traffic = Traffic()
        self._on_their_way: dict[tuple[str, int], list[Push]] = {}
        self._delays_s: list[float] = []
        self._pushed = size.tags

    def play(self) -> Iterator[Phase]:
        """Each phase as it ends."""
        size = self.size
        run = self.loop.run_until_complete
        asyncio.set_event_loop(self.loop)
        yield run(self._phase("all start", self._start()))
        yield run(self._phase("pushes", self._push(size.calm_s), agree=True))
        yield run(self._phase("a site cut off", self._cut(size.cut_s), agree=True))
        yield run(self._phase("an empty one joins", self._join(), agree=True))

    async def _phase(self, name: str, work: Any, agree: bool = False) -> Phase:
        self.traffic, self._delays_s = Traffic(), []
        before = self._frames()
        begun, cpu, pushed = self.loop.now, time.process_time(), self._pushed
        await work
        phase = Phase(name, pushes=self._pushed - pushed)
        if agree:
            phase.agreed_s = await self._agree()
        phase.virtual_s, phase.cpu_s = self.loop.now - begun, time.process_time() - cpu
        phase.traffic, phase.delays_s, phase.frames = self.traffic, self._delays_s, self._frames() - before
        return phase

    def _frames(self) -> Counter[str]:
        return sum((one.cluster.gossip.frames for one in self.instances.values()), Counter[str]())

    def _note_frame(self, frame: bytes, subscribers: int) -> None:
        kind = KINDS[frame[1]]
        self.traffic.note(f"{kind} published", len(frame))
        self.traffic.note(f"{kind} delivered", len(frame), subscribers)

    def _note_request(self, path: str, size: int) -> None:
        self.traffic.note(path, size)

    def _add(self, site: str, common: Base) -> None:
        name = f"i{len(self.instances)}"
        rng = random.Random(f"{self.size.seed} {name}")
        catalog = SharedCatalog(self.states, common, rng.randbytes(16).hex(), rng.getrandbits(53))
        catalog.on_reached = lambda *reached: self.reached(catalog, *reached)
        clock = SteadyClock(self.loop, rng)
        one = ScaledInstance(name, site, catalog, clock, self.network, self.redis, self._note_request)
        self.instances[name] = one
        self.packet_simulator.site_of[name] = site
        one.start()

    async def _start(self) -> None:
        self.packet_simulator.site_of[REDIS] = "s0"
        for number in range(self.size.instances):
            self._add(f"s{number % self.size.sites}", self.common)
            await asyncio.sleep(10.0 / self.size.instances)
        await asyncio.sleep(5)

    async def _push(self, duration_s: float) -> None:
        self.packet_simulator.loss = self.size.loss
        end = self.loop.now + duration_s
        while self.loop.now < end:
            one = self.instances[self._rng.choice(list(self.instances))]
            repository = f"repository/r{self._rng.randrange(self.size.repositories)}"
            self._pushed += 1
            one.push(repository, f"v{self._rng.randrange(100)}", self._pushed)
            await asyncio.sleep(self._rng.expovariate(self.size.pushes_per_s))
        self.packet_simulator.loss = 0.0

    async def _cut(self, duration_s: float) -> None:
        away = {name for name in self.instances if self.packet_simulator.site_of[name] == "s1"}
        places = [*self.instances, REDIS]
        pairs = [(one, other) for one in places for other in places if (one in away) != (other in away)]
        for pair in pairs:
            self.packet_simulator.block(*pair)
        await self._push(duration_s)
        for pair in pairs:
            self.packet_simulator.unblock(*pair)

    async def _join(self) -> None:
        self._add("s2", base(()))

    async def _agree(self) -> float:
        begun = self.loop.now
        while len({one.catalog.replica.root() for one in self.instances.values()}) > 1:
            if self.loop.now > begun + EVERYWHERE_S:
                raise TimeoutError(f"instances differ after {EVERYWHERE_S} virtual s")
            await asyncio.sleep(0.05)
        return self.loop.now - begun

    def reached(self, catalog: SharedCatalog, name: str, before: Vector, after: Vector) -> None:
        """An instance has committed something of a document."""
        for writer, upto in after.items():
            known = before.get(writer, 0)
            if upto == known:
                continue
            pushes = self._on_their_way.setdefault((name, writer), [])
            if writer == catalog.writer:
                pushes.append(Push(upto, self.loop.now, [len(self.instances) - 1]))
                continue
            for push in [push for push in pushes if known < push.upto <= upto]:
                push.lacking[0] -= 1
                if not push.lacking[0]:
                    pushes.remove(push)
                    self._delays_s.append(self.loop.now - push.at_s)


def _documents(size: Size) -> Iterator[tuple[str, int, list[str]]]:
    """Every repository has its share of the tags, each with a manifest of its own."""
    each = size.tags // size.repositories
    for number in range(size.repositories):
        texts = []
        for at in range(each):
            digest = f"sha256:{number * each + at:064x}"
            texts.append(tag_fact(f"v{at}", digest, 1, 1).text())
            texts.append(manifest_fact(digest, MEDIA_TYPE, len(BODY), 1, 1).text())
        yield f"repository/r{number}", 1, texts


def resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(
    instances: Annotated[int, typer.Option(help="how many")] = 200,
    sites: Annotated[int, typer.Option(help="at how many sites")] = 10,
    repositories: Annotated[int, typer.Option(help="in all")] = 20_000,
    tags: Annotated[int, typer.Option(help="in all, before the pushes")] = 1_000_000,
    pushes: Annotated[float, typer.Option(help="a second, over all instances")] = 20.0,
    loss: Annotated[float, typer.Option(help="share of deliveries that the bus loses")] = 0.001,
    calm: Annotated[float, typer.Option(help="virtual seconds of pushes with all sites there")] = 10.0,
    cut: Annotated[float, typer.Option(help="virtual seconds of pushes with one site cut off")] = 10.0,
    seed: Annotated[int, typer.Option(help="what chance is drawn from")] = 0,
) -> None:
    """Play a large deployment and say what it took."""
    logging.disable(logging.WARNING)  # a site cut off is no news here
    console = Console()
    size = Size(instances, sites, repositories, tags, pushes, loss, calm_s=calm, cut_s=cut, seed=seed)
    begun = time.monotonic()
    deployment = Deployment(size)
    console.print(f"{repositories} repositories, {tags} tags: {time.monotonic() - begun:.0f} s, {resident_mb():.0f} MB")
    for phase in deployment.play():
        show(console, phase, len(deployment.instances))
    console.print(f"{resident_mb():.0f} MB resident in the end, in {time.monotonic() - begun:.0f} s")


def show(console: Console, phase: Phase, instances: int) -> None:
    console.print(f"\n[bold]{phase.name}[/bold]: {phase.virtual_s:.1f} virtual s, {phase.cpu_s:.1f} s of CPU")
    if phase.delays_s:
        ordered = sorted(phase.delays_s)
        middle, late = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
        times = f"median {middle:.3f} s, 99 % {late:.3f} s, longest {ordered[-1]:.3f} s"
        console.print(f"{phase.pushes} pushes, {len(ordered)} were everywhere after {times}")
    if phase.agreed_s is not None:
        console.print(f"all agreed {phase.agreed_s:.1f} s after the end")
    table = Table("message", "count", "kB", "a second and instance")
    for kind in sorted(phase.traffic.count):
        count = phase.traffic.count[kind]
        rate = count / phase.virtual_s / instances
        table.add_row(kind, str(count), f"{phase.traffic.bytes[kind] / 1000:.0f}", f"{rate:.2f}")
    console.print(table)
    console.print("frames: " + ", ".join(f"{name} {count}" for name, count in sorted(phase.frames.items())))


if __name__ == "__main__":
    typer.run(main)
