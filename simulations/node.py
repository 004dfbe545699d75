"""A node: the place of one instance over all its starts, with its disk, its clock, and the registry while it runs."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import apsw
from pydantic import SecretStr

from registry.app import http_context
from registry.capabilities import OWN
from registry.cluster.rpc.keys import ClusterKey, channels
from registry.config import Config
from registry.errors import StorageFailed
from registry.http.access.issuer_keys import NoKeySource
from registry.http.app import App
from registry.instance import Instance
from registry.runtime.relay import Relay
from registry.runtime.worker_links import WorkerLinks
from registry.runtime.worker_service import WorkerService
from registry.shared_state import SharedState
from registry.storage.upload_homes import PRIMARY_SLOT
from simulations.bus import RedisServers, SimulatedBus
from simulations.network import Network, SimulatedTransport
from simulations.options import make_config
from simulations.process import PROCESS, Process, ProcessDied, in_process, outside_processes
from simulations.process_group import ProcessGroup
from simulations.process_links import ProcessLinks
from simulations.storage import DiskImage, SimulatedDisk

if TYPE_CHECKING:
    from simulations.cluster import SimulatedCluster

EPOCH_S = 1_700_000_000
WORKER_SLOT = 1
PROCESSES = 2
RESTART_S = 0.2
"""Time after which a worker that its disk has refused is started again."""


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
        self.host: Process | None = None
        """All processes of the present start: they end with it."""
        self.process: Process | None = None
        """The primary."""
        self.worker: Process | None = None
        """The process beside the primary."""
        self.process_groups: list[ProcessGroup] = []
        """One for each start."""
        self.links: ProcessLinks
        self.all_links: list[ProcessLinks] = []
        """Those of all starts."""
        self._shared: SharedState
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
        """Return whether its primary lives."""
        return self.process is not None and self.process.alive

    @property
    def alive(self) -> bool:
        """Return whether its processes live, or are being replaced."""
        return self.host is not None and self.host.alive

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
        """Start processes on the disk as it is. Unconnected, it reaches no other instance, and none reaches it."""
        host = self.host = Process(self.name, self.starts + 1)
        content, databases = self.image
        self.disk = SimulatedDisk(self.cluster.scratch / f"{self.name}-{host.number}", self.rng, content, databases)
        self.cluster.disks.append(self.disk)
        self.disk.on_call = self._disk_call
        self._shared = SharedState.of(PROCESSES, SimulatedClock(self, host))
        self.links = ProcessLinks(self.cluster.loop, random.Random(f"{self.cluster.seed} {host!r} links"), PROCESSES)
        self.all_links.append(self.links)
        self.worker = None
        self.process_groups.append(ProcessGroup(lambda scope: self.cluster.on_request(self, scope)))
        await self._start_primary(host, connected, in_place=False)

    async def replace_primary(self) -> None:
        """Start a primary in place of one that has died, beside the worker."""
        if self.host is not None and self.host.alive and not self.up:
            await self._start_primary(self.host, connected=True, in_place=True)

    async def _start_primary(self, host: Process, connected: bool, in_place: bool) -> None:
        self.starts += 1
        self.begun_s = self.cluster.loop.now
        self.started = self._disk_has_refused = False
        self.recent_ms.clear()
        self.latest_ms = 0
        process = self.process = host.part(number=self.starts)
        self.cluster.trace("start", process)
        starting = self.cluster.loop.create_future()
        self._spawn(process, partial(self._run, host, process, connected, in_place, starting))
        await asyncio.wait([starting], timeout=60)

    def _spawn(self, process: Process, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run work in a process, from its next turn on."""
        loop, context = self.cluster.loop, in_process(process)
        loop.call_soon(lambda: loop.create_task(work(), context=in_process(process)), context=context)

    async def _run(
        self, host: Process, process: Process, connected: bool, in_place: bool, starting: "asyncio.Future[None]"
    ) -> None:
        cluster = self.cluster
        assert self.disk is not None, "a host has a disk"
        try:
            keys = channels([ClusterKey(secret) for secret in self.secrets])
            servers = cluster.redis if connected else RedisServers(cluster.packet_simulator, [])
            bus = SimulatedBus(servers, process, keys, self.site)
            bus.on_publish = lambda frame: cluster.frame_leaves(self, process, frame)
            transport = SimulatedTransport(cluster.network if connected else Network(cluster.packet_simulator), process)
            clock = SimulatedClock(self, process)
            instance = self.instance = Instance(
                self._config(),
                clock,
                self.disk,
                bus,
                transport,
                in_place,
                abilities=self.abilities,
                observers=[self],
                shared=self._shared,
            )
            cluster.born(self, instance)
            await instance.start()
            self._leaving = cluster.loop.create_task(self._end_when_left(instance))
            self.started = True
            application, processes = (
                App(http_context(instance, dict, Relay(self.links), NoKeySource())),
                self.process_groups[-1],
            )
            WorkerLinks(instance, application, self.links.source(PRIMARY_SLOT))
            processes.serve_primary(process, application)
            place = self.name if connected else f"{self.name}-alone"
            cluster.network.serve(place, host, processes, processes.accepting)
            cluster.loop.create_task(self._start_worker_when_answering(host, instance))
        except ProcessDied:
            pass
        except Exception:
            if not self._disk_has_refused:
                raise
            self.die(False)  # a process whose disk refuses its start says so and ends
        finally:
            if not starting.done():
                outside_processes(partial(starting.set_result, None))

    async def _start_worker_when_answering(self, host: Process, instance: Instance) -> None:
        """As the supervisor does."""
        await instance.cluster.answers_clients.wait()
        if self.worker is None:
            outside_processes(partial(self.start_worker, host))

    def start_worker(self, host: Process) -> None:
        """Start the worker, or one in place of a worker that has died."""
        self.starts += 1
        worker = self.worker = host.part("worker", self.starts)
        self.cluster.trace("start", worker)
        self._spawn(worker, partial(self._run_worker, host, worker))

    async def _run_worker(self, host: Process, worker: Process) -> None:
        assert self.disk is not None, "a host has a disk"
        try:
            slot, clock = self._shared.slot(WORKER_SLOT), SimulatedClock(self, worker)
            service = WorkerService(self._config(), slot, self._shared, self.disk, clock, self.links)
            service.start(self.links.source(WORKER_SLOT))
            self.process_groups[-1].serve_worker(worker, service.app)
        except ProcessDied:
            pass
        except (OSError, StorageFailed, apsw.Error):
            if not self._disk_has_refused:
                raise
            outside_processes(lambda: self._replace_refused(host, worker))

    def _replace_refused(self, host: Process, worker: Process) -> None:
        """As the supervisor does with a worker that could not start."""
        if self.worker is worker and host.alive:
            self.die_worker()
            self.cluster.loop.call_later(RESTART_S, self.replace_worker, host)

    def replace_worker(self, host: Process) -> None:
        """Start a worker in place of one that has died, unless all have."""
        if host.alive and self.worker is not None and not self.worker.alive:
            self.start_worker(host)

    async def _end_when_left(self, instance: Instance) -> None:
        await instance.cluster.lifecycle.may_end.wait()
        self.on_left()

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
            bootstrap=True,  # clients come from the first moment on
            sparse=False,
            holder_wait_s=5.0,
            listen_internal="",
            **{"verify_after_s": 0.0} | self.cluster.settings,
        )

    def on_commit(self) -> None:
        """See `registry.catalog.change_sink.CommitObserver`."""
        for call in self.cluster.on_commit:
            call(self)

    def _disk_call(self, call: str, name: str) -> None:
        process = PROCESS.get() or self.process
        assert process is not None, "a disk is that of processes"
        process.check()
        self.cluster.trace("disk", process, call)
        try:
            self.on_disk_call(call, name)
        except OSError:
            self._disk_has_refused = True
            raise
        process.check()

    def die(self, power_cut: bool) -> None:
        """End its processes now: by a kill, which leaves what was written, or a power cut, which leaves what was
        synced."""
        if self.host is None or not self.host.alive:
            return
        self.cluster.trace("power cut" if power_cut else "kill", self.host)
        assert self.disk is not None, "a living instance has a disk"
        self.image = self.disk.image(power_cut)
        self.disk.discard()
        self._refused = self.refused()
        self.instance = None
        self.host.end()

    def die_primary(self) -> None:
        """Kill the primary alone. Not from within a call of its disk."""
        process = self.process
        if process is None or not process.alive or self.disk is None:
            return
        self.cluster.trace("kill of the primary", process)
        self._refused = self.refused()
        self.instance, self.started = None, False
        process.end()
        self.disk.release_process(process)
        self._shared.usage.clear(PRIMARY_SLOT)

    def die_worker(self) -> None:
        """Kill the worker alone. Not from within a call of its disk."""
        worker = self.worker
        if worker is None or not worker.alive or self.disk is None:
            return
        self.cluster.trace("kill of the worker", worker)
        worker.end()
        self.disk.release_process(worker)
        self._shared.usage.clear(WORKER_SLOT)

    def refused(self) -> Counter[str]:
        """Return how many frames and requests were refused since the first start, by reason."""
        if self.instance is None or not self.started:
            return self._refused
        return self._refused + self.instance.cluster.gossip.frames + self.instance.peer_requests.refused

    def backup(self) -> DiskImage:
        """A copy of the disk as it is."""
        return self.disk.image(False) if self.alive and self.disk is not None else self.image

    def pause(self, primary_alone: bool = False, worker_alone: bool = False) -> None:
        """Let all processes stand still, or one alone."""
        for process in (None if worker_alone else self.process, None if primary_alone else self.worker):
            if process is not None and process.alive and not process.paused:
                self.cluster.trace("pause", process)
                process.paused = True

    def resume(self) -> None:
        for process in (self.process, self.worker):
            if process is not None and process.paused:
                self.cluster.trace("resume", process)
                process.resume(self.cluster.loop)
