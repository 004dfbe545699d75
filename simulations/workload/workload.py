"""The workload of a run: makes its clients, and has them do what the plan asks for."""

import asyncio
import random
from collections.abc import Callable
from functools import partial

from simulations.cluster import SimulatedCluster
from simulations.faults import LAG_FAULTS
from simulations.node import Node
from simulations.plan import Plan
from simulations.workload.access_changes import AccessChanges
from simulations.workload.client import Client, RequestRecorder
from simulations.workload.cold_ranges import ColdRanges
from simulations.workload.credentials import ClusterKeyCredential, Credential, NoCredential
from simulations.workload.long_upload import LongUpload, keep_on, may_be_lost
from simulations.workload.mix import run_mix
from simulations.workload.pipeline import Pipeline


class Workload:
    """The clients of one run. Each draws from a randomness of its own, so that one more changes nothing for others."""

    def __init__(
        self, plan: Plan, cluster: SimulatedCluster, recorder: RequestRecorder, report: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._recorder = recorder
        self._report = report
        self._access: AccessChanges | None = None
        self.operator: Credential = NoCredential()
        """The proof of operators: none, unless there are administrators."""
        if "access" in plan.conditions:
            self.operator = ClusterKeyCredential(cluster.network, random.Random(f"{plan.seed} operator"))

    def client(self, name: str, seed: str = "", places: Callable[[], list[Node]] | None = None) -> Client:
        """Return a client of that name. `seed` is its name unless it is given, `places` are all nodes."""
        network, seed = self._cluster.network, f"{self._plan.seed} {seed or name}"
        client = Client(name, network, places or self._places, self._recorder, seed)
        if "enforced" in self._plan.conditions and self._access is not None:
            client.credential = self._access.steady
        return client

    def access_changes(self) -> AccessChanges:
        """Return what changes access control in this run."""
        if self._access is None:
            clients = self.client("access", "access"), self.client("access too", "access too")
            rng, network = random.Random(f"{self._plan.seed} access"), self._cluster.network
            self._access = AccessChanges(clients, self.operator, network, rng)
        return self._access

    async def change_access(self, phase: str, operations: int, seconds: float) -> None:
        """Have access control changed so many times in about so long."""
        if self._access is None:
            return
        rng = random.Random(f"{self._plan.seed} access {phase}")
        for _ in range(operations):
            await asyncio.sleep(2 * rng.random() * seconds / operations)
            await self._access.draw()

    async def load(self, operations: int, phase: str) -> None:
        """Have the plan's number of clients do so many operations each."""
        clients = [self.client(f"client{number}", f"{phase} client {number}") for number in range(self._plan.clients)]
        pause_s = self._plan.fault_s / max(operations, 1) / 2 if phase != "calm" else 0.2
        for number, client in enumerate(clients):
            client.collects = "collect" in self._plan.conditions
            if "enforced" in self._plan.conditions and self._access is not None:
                rng = random.Random(f"{self._plan.seed} {phase} credentials {number}")
                client.choose_credential = partial(self._access.choose, rng)
        await asyncio.gather(*(run_mix(client, operations, pause_s) for client in clients))

    async def run_pipelines(self) -> None:
        """Push and pull again and again, beside faults that make an instance lag its site."""
        if not LAG_FAULTS & set(self._plan.faults):
            return
        pipelines = [Pipeline(self.client, f"pipeline {site}", site) for site in sorted(set(self._plan.sites))]
        until = self._cluster.loop.now + self._plan.fault_s
        await asyncio.gather(*(pipeline.run_until(until) for pipeline in pipelines))

    async def pull_cold_ranges(self, phase: str, seconds: float) -> None:
        """Pull ranges of content that is elsewhere, for so long; only where a content has more than one MiB."""
        name, until = f"cold ranges {phase}", self._cluster.loop.now + seconds
        rng = random.Random(f"{self._plan.seed} {name}")
        cold = ColdRanges(self.client(name), rng, self._report)
        while "small" in self._plan.conditions and self._cluster.loop.now < until:
            await cold.one_blob()
            await asyncio.sleep(rng.random())

    async def collect(self, phase: str, seconds: float) -> None:
        """Have unreferenced content collected, at one instance or another, for so long."""
        name, until = f"collector {phase}", self._cluster.loop.now + seconds
        rng = random.Random(f"{self._plan.seed} {name}")
        client = self.client(name)
        client.credential = self.operator
        while "collect" in self._plan.conditions and self._cluster.loop.now < until:
            await client.collect(rng.choice(self._cluster.nodes))

    def begin_long_upload(self) -> "tuple[LongUpload, asyncio.Task[None]]":
        rng = random.Random(f"{self._plan.seed} slow upload")
        client = self.client("client-slow", "slow client")
        upload = LongUpload(client, rng, self._report, may_be_lost(self._plan))
        return upload, asyncio.ensure_future(keep_on(upload, rng, self._places))

    def _places(self) -> list[Node]:
        return self._cluster.nodes
