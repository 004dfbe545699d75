"""Instances of the registry in one simulated world, and what the world does to them."""

import asyncio
import random
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3
from pydantic import SecretStr

from crdt.change import Change
from crdt.header import Field
from registry.capabilities import OWN
from registry.catalog.catalog import PATH
from registry.catalog.database import Database, Reads
from registry.cluster.rpc.keys import ClusterKey
from registry.config import Config
from registry.http.oci.read_only import ReadOnlyApp
from registry.instance import Instance
from simulations.disk import SimulatedDisk
from simulations.life import Died, Life, in_life, without_request
from simulations.loop import VirtualLoop
from simulations.network import Network, RedisServers, SimulatedBus, SimulatedTransport, Weather
from simulations.processes import Processes

EPOCH_S = 1_700_000_000
SECRET = "the simulated cluster's secret"
SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())

Image = tuple[dict[str, bytes], dict[str, bytes]]
"""The content files and the databases of a disk."""


class SimulatedClock:
    """See `registry.ports.Clock`: a wall clock that drifts, jumps and stands still, and chance from the seed."""

    def __init__(self, node: "Node", life: Life) -> None:
        self._node, self._life = node, life

    def now_ms(self) -> int:
        self._life.check()
        return self._node.told_ms()

    def steady_s(self) -> float:
        self._life.check()
        return asyncio.get_running_loop().time()

    def entropy(self, size: int) -> bytes:
        self._life.check()
        return self._node.drawn.randbytes(size)


class Node:
    """One instance over all its lives: its disk, its clock, and the running registry while it lives."""

    def __init__(self, world: "World", name: str, site: str) -> None:
        self.world, self.name, self.site = world, name, site
        self.drawn = random.Random(f"{world.seed} {name}")
        self.image: Image = ({}, dict(world.template))
        self.lives = 0
        self.begun_s = 0.0
        """When the present life began."""
        self.life: Life | None = None
        self.worker: Life | None = None
        """The process beside the primary, which ends with it."""
        self.instance: Instance | None = None
        self.started = False
        """Whether this life has come so far as to serve."""
        self.disk: SimulatedDisk | None = None
        self._disk_has_refused = False
        """Whether it has refused a call in this life."""
        self.secrets = list(world.secrets)
        self.clock_offset_s = 0.0
        self.clock_rate = 1.0
        self._stood_still_ms: int | None = None
        self.recent_ms: deque[int] = deque(maxlen=8)
        """What its clock showed when it was looked at last."""
        self.latest_ms = 0
        """The latest that its clock has shown to this life."""
        self._refused: Counter[str] = Counter()
        """Frames and requests that its earlier lives have refused, by reason."""
        self.on_disk_call: Callable[[str, str], None] = lambda call, name: None
        self.abilities = OWN
        """Of the version that it is."""
        self.fields_of: Callable[[Change], tuple[Field, ...]] = lambda change: ()
        """What its version says in the header of a change's frame."""

    @property
    def up(self) -> bool:
        return self.life is not None and self.life.alive

    def wall_ms(self) -> int:
        if self._stood_still_ms is not None:
            return self._stood_still_ms
        return int((EPOCH_S + self.clock_offset_s + self.world.loop.now * self.clock_rate) * 1000)

    def told_ms(self) -> int:
        """What the instance is told when it looks at its clock."""
        now = self.wall_ms()
        self.recent_ms.append(now)
        self.latest_ms = max(self.latest_ms, now)
        return now

    def stop_clock(self, stopped: bool) -> None:
        self._stood_still_ms = self.wall_ms() if stopped else None

    async def start(self, connected: bool = True) -> None:
        """Begin a life on the disk as it is. Unconnected it hears and reaches nobody, nor is it heard."""
        self.lives += 1
        self.begun_s = self.world.loop.now
        self.started = self._disk_has_refused = False
        self.recent_ms.clear()
        self.latest_ms = 0
        life = self.life = Life(self.name, self.lives)
        self.world.trace("start", life)
        starting = self.world.loop.create_future()
        context = in_life(life)
        self.world.loop.call_soon(
            lambda: self.world.loop.create_task(self._live(life, connected, starting), context=in_life(life)),
            context=context,
        )
        await asyncio.wait([starting], timeout=60)

    async def _live(self, life: Life, connected: bool, starting: "asyncio.Future[None]") -> None:
        world = self.world
        try:
            content, databases = self.image
            self.disk = SimulatedDisk(world.scratch / f"{self.name}-{self.lives}", self.drawn, content, databases)
            world.disks.append(self.disk)
            self.disk.on_call = lambda call, name: self._disk_call(life, call, name)
            keys = [ClusterKey(secret).cluster for secret in self.secrets]
            servers = world.redis if connected else RedisServers(world.weather, [])
            bus = SimulatedBus(servers, life, keys, self.site)
            bus.on_publish = lambda frame: world.frame_leaves(self, life, frame)
            transport = SimulatedTransport(world.network if connected else Network(world.weather), life)
            clock = SimulatedClock(self, life)
            self.instance = Instance(self._config(), clock, self.disk, bus, transport, abilities=self.abilities)
            world.born(self, self.instance)
            await self.instance.start()
            self.instance.cluster.gossip.fields_of = self.fields_of
            self.started = True
            place = self.name if connected else f"{self.name}-alone"
            processes = self._processes(self.instance, life)
            world.network.serve(place, life, processes, processes.accepting)
        except Died:
            pass
        except Exception:
            if not self._disk_has_refused:
                raise
            self.die(False)  # a process whose disk refuses its start says so and ends
        finally:
            if not starting.done():
                without_request(partial(starting.set_result, None))

    def _processes(self, instance: Instance, life: Life) -> Processes:
        assert self.disk is not None, "an instance has a disk"
        reading = ReadOnlyApp(
            Reads(self.disk, PATH), self.disk, instance.clock, instance.lease, instance.config.check_after_s, False
        )
        self.worker = life.part("worker")
        return Processes(instance, reading, life, self.worker)

    def _config(self) -> Config:
        return Config.model_construct(
            listen="127.0.0.1:80",  # operators are on its host, and sign nothing
            site=self.site,
            redis=["simulated"],
            advertise=f"http://{self.name}",
            advertise_site="",
            peer=self.world.peers,
            name=[],
            cluster_key=[SecretStr(secret) for secret in self.secrets],
            sparse=False,
            hold_s=5.0,
            listen_internal="",
            **{"check_after_s": 0.0} | self.world.settings,
        )

    def _disk_call(self, life: Life, call: str, name: str) -> None:
        life.check()
        self.world.trace("disk", life, call)
        try:
            self.on_disk_call(call, name)
        except OSError:
            self._disk_has_refused = True
            raise
        life.check()

    def die(self, power_cut: bool) -> None:
        """End this life now: by a kill, which leaves what was written, or a power cut, which leaves what was synced."""
        if self.life is None or not self.life.alive:
            return
        self.world.trace("power cut" if power_cut else "kill", self.life)
        assert self.disk is not None, "a living instance has a disk"
        self.image = self.disk.image(power_cut)
        self.disk.discard()
        self._refused = self.refused()
        self.instance = None
        self.life.end()

    def refused(self) -> Counter[str]:
        """Frames and requests that it has refused in all its lives, by reason."""
        if self.instance is None or not self.started:
            return self._refused
        return self._refused + self.instance.cluster.gossip.frames + self.instance.peer_requests_refused

    def backup(self) -> Image:
        """A copy of the disk as it is."""
        return self.disk.image(False) if self.up and self.disk is not None else self.image

    def pause(self, primary_alone: bool = False) -> None:
        """Let all processes stand still, or the primary alone."""
        for life in (self.life,) if primary_alone else (self.life, self.worker):
            if self.up and life is not None and not life.paused:
                self.world.trace("pause", life)
                life.paused = True

    def resume(self) -> None:
        for life in (self.life, self.worker):
            if life is not None and life.paused:
                self.world.trace("resume", life)
                life.resume(self.world.loop)


class World:
    """A seed, its instances, its network and its time."""

    def __init__(self, seed: int, sites: list[str]) -> None:
        self.seed = seed
        self.drawn = random.Random(seed)
        self.loop = VirtualLoop()
        self.scratch = Path(tempfile.mkdtemp(prefix="concord-simulation-", dir=SCRATCH))
        self.template = _template()
        self.weather = Weather(random.Random(f"{seed} weather"))
        self.network = Network(self.weather)
        self.weather.site_of = {f"redis-{site}": site for site in dict.fromkeys(sites)}
        self.redis = RedisServers(self.weather, list(self.weather.site_of))
        self.secrets = [SECRET]
        self.exchanging_keys = asyncio.Lock()
        self.nodes: list[Node] = []
        self.peers: list[str] = []
        """Addresses by which instances find each other without the bus."""
        self.settings: dict[str, Any] = {}
        """What else an operator has set everywhere."""
        self.gone: list[Node] = []
        """Those that will never run again."""
        for site in sites:
            self.add_node(site)
        self.disks: list[SimulatedDisk] = []
        """One for each life."""
        self._trace = blake3()
        self.on_frame: list[Callable[[Node], None]] = []
        self.on_born: list[Callable[[Node, Instance], None]] = []
        """Told of an instance before it starts."""

    def add_node(self, site: str) -> Node:
        """A place for another instance, with an empty disk."""
        node = Node(self, f"i{len(self.nodes) + len(self.gone)}", site)
        self.weather.site_of[node.name] = site
        self.nodes.append(node)
        return node

    def trace(self, kind: str, *details: object) -> None:
        """Note that something happened: what a run is recognised by."""
        self._trace.update(f"{self.loop.now:.6f} {kind} {details}\n".encode())

    def trace_hash(self) -> str:
        return self._trace.hexdigest()[:16]

    def frame_leaves(self, node: Node, life: Life, frame: bytes) -> None:
        self.trace("frame", life, len(frame))
        for call in self.on_frame:
            call(node)

    def born(self, node: Node, instance: Instance) -> None:
        for call in self.on_born:
            call(node, instance)

    def close(self) -> None:
        for node in self.nodes:
            if node.life is not None and node.life.alive:
                node.life.end()
                if node.disk is not None:
                    node.disk.discard()
        for disk in self.disks:
            disk.release()
        shutil.rmtree(self.scratch, ignore_errors=True)


_TEMPLATES: dict[str, bytes] = {}


def _template() -> dict[str, bytes]:
    """An empty catalog, made once: every instance would make the same one."""
    if not _TEMPLATES:
        scratch = Path(tempfile.mkdtemp(prefix="concord-template-", dir=SCRATCH))
        disk = SimulatedDisk(scratch / "disk", random.Random(0), {}, {})
        database = Database(disk, PATH)
        database._writing.pragma("wal_checkpoint", "truncate")
        _TEMPLATES.update({name: data for name, data in disk.image(False)[1].items() if data})
        database.reading.close()
        database._writing.close()
        disk.discard()
        shutil.rmtree(scratch, ignore_errors=True)
    return _TEMPLATES
