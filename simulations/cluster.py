"""The simulated cluster: instances of the registry on one virtual clock, one network and one bus.

The cluster owns everything that exists in a run: the event loop, the packet simulator, the network, the Redis servers
and the nodes. It knows no promise of the registry; the checkers do.
"""

import asyncio
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3
from starlette.types import Scope

from registry.catalog.catalog import PATH
from registry.catalog.database import Database
from registry.catalog.wrong_sizes import WrongSizes
from registry.instance import Instance
from simulations.bus import RedisServers
from simulations.loop import VirtualLoop
from simulations.network import Network
from simulations.node import Node
from simulations.packet_simulator import PacketSimulator
from simulations.process import Process
from simulations.process_group import OnStatus
from simulations.storage import SimulatedDisk

SECRET = "the simulated cluster's secret"
SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


class SimulatedCluster:
    """A seed, its instances, its network and its time."""

    def __init__(self, seed: int, sites: list[str]) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.loop = VirtualLoop()
        self.scratch = Path(tempfile.mkdtemp(prefix="concord-simulation-", dir=SCRATCH))
        self.template = _template()
        self.packet_simulator = PacketSimulator(random.Random(f"{seed} weather"))
        self.network = Network(self.packet_simulator)
        self.packet_simulator.site_of = {f"redis-{site}": site for site in dict.fromkeys(sites)}
        self.redis = RedisServers(self.packet_simulator, list(self.packet_simulator.site_of))
        self.secrets = [SECRET]
        self.exchanging_keys = asyncio.Lock()
        self.nodes: list[Node] = []
        self.peers: list[str] = []
        """Addresses by which instances find each other without the bus."""
        self.settings: dict[str, Any] = {}
        """Options that an operator has set everywhere."""
        self.gone: list[Node] = []
        """Nodes that are gone for good."""
        for site in sites:
            self.add_node(site)
        self.disks: list[SimulatedDisk] = []
        """One for each start."""
        self._trace = blake3()
        self.on_event: Callable[[str], None] = lambda line: None
        """Called with a line for each event that the trace counts."""
        self.on_frame: list[Callable[[Node], None]] = []
        self.on_commit: list[Callable[[Node], None]] = []
        """Called when a commit of an instance is durable, before anything follows from it."""
        self.on_request: Callable[[Node, Scope], OnStatus | None] = lambda node, scope: None
        """Called with each request that reaches a process of an instance."""
        self.on_born: list[Callable[[Node, Instance], None]] = []
        """Called with an instance before it starts."""

    def add_node(self, site: str) -> Node:
        """A place for another instance, with an empty disk."""
        node = Node(self, f"i{len(self.nodes) + len(self.gone)}", site)
        self.packet_simulator.site_of[node.name] = site
        self.nodes.append(node)
        return node

    def running(self) -> list[Node]:
        """Return the nodes whose primary runs."""
        return [node for node in self.nodes if node.up and node.process is not None and not node.process.paused]

    def trace(self, kind: str, *details: object) -> None:
        """Note an event. The hash of all events identifies a run: equal seeds have equal traces."""
        line = f"{self.loop.now:.6f} {kind} {details}"
        self._trace.update(f"{line}\n".encode())
        self.on_event(line)

    def trace_hash(self) -> str:
        return self._trace.hexdigest()[:16]

    def frame_leaves(self, node: Node, process: Process, frame: bytes) -> None:
        self.trace("frame", process, len(frame))
        for call in self.on_frame:
            call(node)

    def born(self, node: Node, instance: Instance) -> None:
        for call in self.on_born:
            call(node, instance)

    def close(self) -> None:
        for node in self.nodes:
            if node.host is not None and node.host.alive:
                node.host.end()
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
        database = Database(disk, PATH, WrongSizes(lambda writer: None))
        database._writing.pragma("wal_checkpoint", "truncate")
        _TEMPLATES.update({name: data for name, data in disk.image(False)[1].items() if data})
        database.reading.close()
        database._writing.close()
        disk.discard()
        shutil.rmtree(scratch, ignore_errors=True)
    return _TEMPLATES
