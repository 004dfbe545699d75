"""The bus of a simulated cluster: Redis servers that deliver frames late, twice, or not at all."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from simulations.packet_simulator import PacketSimulator
from simulations.process import Process, outside_processes


class RedisServers:
    """Redis servers, each of which delivers to its subscribers: late, not always, sometimes twice."""

    def __init__(self, packet_simulator: PacketSimulator, names: Sequence[str]) -> None:
        self._packet_simulator = packet_simulator
        self.names = list(names)
        self.stalled: set[str] = set()
        self.absent = False
        """True while no server exists at all."""
        self._listeners: dict[str, list[tuple[Process, frozenset[str], asyncio.Queue[bytes]]]] = {n: [] for n in names}
        self._last_due: dict[tuple[str, str], float] = {}
        self.last_frame = b""
        self.on_publish: list[Callable[[bytes, int], None]] = []
        """Called with every frame that is published, and the number of its subscribers."""

    def stall(self) -> None:
        """Have all servers deliver nothing until `resume`."""
        self.stalled |= set(self.names)

    def resume(self) -> None:
        self.stalled.clear()

    def publish(self, process: Process, channel: str, frame: bytes) -> None:
        packet_simulator, loop = self._packet_simulator, asyncio.get_running_loop()
        self.last_frame = frame
        for call in self.on_publish:
            call(frame, sum(channel in channels for name in self.names for _, channels, _ in self._listeners[name]))
        for server in self.names:
            if self.absent or server in self.stalled:
                packet_simulator.count("stalled Redis")
                continue
            for listener, channels, queue in self._listeners[server]:
                if channel not in channels or packet_simulator.is_blocked(process.name, server):
                    continue
                if packet_simulator.is_blocked(server, listener.name) or packet_simulator.strikes(
                    "lost frame", packet_simulator.loss
                ):
                    continue
                for _ in range(1 + packet_simulator.strikes("frame twice", packet_simulator.duplication)):
                    delay_s = packet_simulator.latency_s(process.name, server) + packet_simulator.latency_s(
                        server, listener.name
                    )
                    due = loop.time() + delay_s
                    if due < self._last_due.get((process.name, listener.name), 0.0):
                        packet_simulator.count("frames out of order")
                    self._last_due[process.name, listener.name] = due
                    outside_processes(partial(loop.call_later, delay_s, queue.put_nowait, frame))

    def inject(self, frame: bytes) -> None:
        """Publish what no instance has sent, everywhere."""
        for listeners in self._listeners.values():
            for _, _, queue in listeners:
                queue.put_nowait(frame)

    def subscribe(self, process: Process, channels: Sequence[str], queue: "asyncio.Queue[bytes]") -> None:
        for server in self.names:
            self._listeners[server].append((process, frozenset(channels), queue))
        process.on_death.append(lambda: self._leave(process))

    def _leave(self, process: Process) -> None:
        for server in self.names:
            self._listeners[server] = [entry for entry in self._listeners[server] if entry[0] is not process]


class SimulatedBus:
    """See `registry.ports.Bus`."""

    def __init__(self, servers: RedisServers, process: Process, clusters: Sequence[str], site: str) -> None:
        self._servers, self._process = servers, process
        self._cluster = clusters[0]
        self._channels = [name for cluster in clusters for name in (cluster, f"{cluster}:{site}")]
        self.on_publish: Callable[[bytes], None] = lambda frame: None
        self.refused: Counter[str] = Counter()

    def publish(self, frame: bytes, site: str | None = None, cluster: str | None = None) -> None:
        self._process.check()
        self.on_publish(frame)
        self._process.check()
        name = cluster or self._cluster
        channel = name if site is None else f"{name}:{site}"
        self._servers.publish(self._process, channel, frame)

    def servers(self) -> dict[str, bool]:
        return {name: name not in self._servers.stalled for name in self._servers.names}

    async def listen(self) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._servers.subscribe(self._process, self._channels, queue)
        while True:
            yield await queue.get()
