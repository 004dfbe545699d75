"""A node: the place of one instance over all its starts, with its disk, its clock, and the registry while it runs."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pydantic import SecretStr

from registry.capabilities import OWN
from registry.catalog.catalog import PATH
from registry.catalog.database import Reads
from registry.cluster.rpc.keys import ClusterKey
from registry.config import Config
from registry.http.oci.read_only import ReadOnlyApp
from registry.instance import Instance
from simulations.bus import RedisServers, SimulatedBus
from simulations.network import Network, SimulatedTransport
from simulations.options import make_config
from simulations.process import Process, ProcessDied, in_process, outside_processes
from simulations.process_group import ProcessGroup
from simulations.storage import DiskImage, SimulatedDisk

if TYPE_CHECKING:
    from simulations.cluster import SimulatedCluster

EPOCH_S = 1_700_000_000


class SimulatedClock:
    """See `registry.ports.Clock`: a wall clock that drifts, jumps and stands still, and chance from the seed."""

    def __init__(self, node: "Node", process: Process) -> None:
        self._node, self._process = node, process

    def now_ms(self) -> int:
        self._process.check()
        return self._node.told_ms()

    def steady_s(self) -> float:
        self._process.check()
        return asyncio.get_running_loop().time()

    def entropy(self, size: int) -> bytes:
        self._process.check()
        return self._node.rng.randbytes(size)


class Node:
    """The place of one instance over all its starts: its disk, its clock, and the registry while it runs."""

    def __init__(self, cluster: "SimulatedCluster", name: str, site: str) -> None:
        self.cluster, self.name, self.site = cluster, name, site
        self.rng = random.Random(f"{cluster.seed} {name}")
        self.image: DiskImage = ({}, dict(cluster.template))
        self.starts = 0
        self.begun_s = 0.0
        """The time of the present start."""
        self.process: Process | None = None
        self.worker: Process | None = None
        """The process beside the primary, which ends with it."""
        self.process_groups: list[ProcessGroup] = []
        """One for each start that has come so far as to serve."""
        self.instance: Instance | None = None
        self.started = False
        """True once this start has come so far as to serve."""
        self.disk: SimulatedDisk | None = None
        self._disk_has_refused = False
        """True once the disk has refused a call since this start."""
        self.secrets = list(cluster.secrets)
        self.clock_offset_s = 0.0
        self.clock_rate = 1.0
        self._stood_still_ms: int | None = None
        self.recent_ms: deque[int] = deque(maxlen=8)
        """The times that its clock showed when it was last read."""
        self.latest_ms = 0
        """The latest time that its clock has shown since this start."""
        self._refused: Counter[str] = Counter()
        """Frames and requests that were refused before the present start, by reason."""
        self.on_disk_call: Callable[[str, str], None] = lambda call, name: None
        self.on_left: Callable[[], None] = lambda: None
        """Called when its instance has left the cluster, in place of the end of its process."""
        self._leaving: asyncio.Task[None] | None = None
        self.abilities = OWN
        """The abilities of its version."""

    @property
    def up(self) -> bool:
        return self.process is not None and self.process.alive

    def wall_ms(self) -> int:
        if self._stood_still_ms is not None:
            return self._stood_still_ms
        return int((EPOCH_S + self.clock_offset_s + self.cluster.loop.now * self.clock_rate) * 1000)

    def told_ms(self) -> int:
        """Read the clock, as the instance does."""
        now = self.wall_ms()
        self.recent_ms.append(now)
        self.latest_ms = max(self.latest_ms, now)
        return now

    def stop_clock(self, stopped: bool) -> None:
        self._stood_still_ms = self.wall_ms() if stopped else None

    async def start(self, connected: bool = True) -> None:
        """Start a process on the disk as it is. Unconnected, it reaches no other instance, and none reaches it."""
        self.starts += 1
        self.begun_s = self.cluster.loop.now
        self.started = self._disk_has_refused = False
        self.recent_ms.clear()
        self.latest_ms = 0
        process = self.process = Process(self.name, self.starts)
        self.cluster.trace("start", process)
        starting = self.cluster.loop.create_future()
        context = in_process(process)
        self.cluster.loop.call_soon(
            lambda: self.cluster.loop.create_task(self._run(process, connected, starting), context=in_process(process)),
            context=context,
        )
        await asyncio.wait([starting], timeout=60)

    async def _run(self, process: Process, connected: bool, starting: "asyncio.Future[None]") -> None:
        cluster = self.cluster
        try:
            content, databases = self.image
            self.disk = SimulatedDisk(cluster.scratch / f"{self.name}-{self.starts}", self.rng, content, databases)
            cluster.disks.append(self.disk)
            self.disk.on_call = lambda call, name: self._disk_call(process, call, name)
            keys = [ClusterKey(secret).cluster for secret in self.secrets]
            servers = cluster.redis if connected else RedisServers(cluster.packet_simulator, [])
            bus = SimulatedBus(servers, process, keys, self.site)
            bus.on_publish = lambda frame: cluster.frame_leaves(self, process, frame)
            transport = SimulatedTransport(cluster.network if connected else Network(cluster.packet_simulator), process)
            clock = SimulatedClock(self, process)
            self.instance = Instance(
                self._config(), clock, self.disk, bus, transport, abilities=self.abilities, observers=[self]
            )
            cluster.born(self, self.instance)
            await self.instance.start()
            self._leaving = cluster.loop.create_task(self._end_when_left(self.instance))
            self.started = True
            place = self.name if connected else f"{self.name}-alone"
            processes = self._processes(self.instance, process)
            cluster.network.serve(place, process, processes, processes.accepting)
        except ProcessDied:
            pass
        except Exception:
            if not self._disk_has_refused:
                raise
            self.die(False)  # a process whose disk refuses its start says so and ends
        finally:
            if not starting.done():
                outside_processes(partial(starting.set_result, None))

    async def _end_when_left(self, instance: Instance) -> None:
        await instance.cluster.lifecycle.may_end.wait()
        self.on_left()

    def _processes(self, instance: Instance, process: Process) -> ProcessGroup:
        assert self.disk is not None, "an instance has a disk"
        reading = ReadOnlyApp(
            Reads(self.disk, PATH), self.disk, instance.clock, instance.lease, instance.config.verify_after_s, False
        )
        self.worker = process.part("worker")
        self.process_groups.append(ProcessGroup(instance, reading, process, self.worker))
        return self.process_groups[-1]

    def _config(self) -> Config:
        return make_config(
            listen="127.0.0.1:80",  # operators are on its host, and sign nothing
            site=self.site,
            redis=["simulated"],
            advertise=f"http://{self.name}",
            advertise_site="",
            peer=self.cluster.peers,
            name=[],
            cluster_key=[SecretStr(secret) for secret in self.secrets],
            sparse=False,
            holder_wait_s=5.0,
            listen_internal="",
            **{"verify_after_s": 0.0} | self.cluster.settings,
        )

    def on_commit(self) -> None:
        """See `registry.catalog.change_sink.CommitObserver`."""
        for call in self.cluster.on_commit:
            call(self)

    def _disk_call(self, process: Process, call: str, name: str) -> None:
        process.check()
        self.cluster.trace("disk", process, call)
        try:
            self.on_disk_call(call, name)
        except OSError:
            self._disk_has_refused = True
            raise
        process.check()

    def die(self, power_cut: bool) -> None:
        """End its process now: by a kill, which leaves what was written, or a power cut, which leaves what was
        synced."""
        if self.process is None or not self.process.alive:
            return
        self.cluster.trace("power cut" if power_cut else "kill", self.process)
        assert self.disk is not None, "a living instance has a disk"
        self.image = self.disk.image(power_cut)
        self.disk.discard()
        self._refused = self.refused()
        self.instance = None
        self.process.end()

    def refused(self) -> Counter[str]:
        """Return how many frames and requests were refused since the first start, by reason."""
        if self.instance is None or not self.started:
            return self._refused
        return self._refused + self.instance.cluster.gossip.frames + self.instance.peer_requests.refused

    def backup(self) -> DiskImage:
        """A copy of the disk as it is."""
        return self.disk.image(False) if self.up and self.disk is not None else self.image

    def pause(self, primary_alone: bool = False) -> None:
        """Let all processes stand still, or the primary alone."""
        for process in (self.process,) if primary_alone else (self.process, self.worker):
            if self.up and process is not None and not process.paused:
                self.cluster.trace("pause", process)
                process.paused = True

    def resume(self) -> None:
        for process in (self.process, self.worker):
            if process is not None and process.paused:
                self.cluster.trace("resume", process)
                process.resume(self.cluster.loop)
