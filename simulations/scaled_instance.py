"""One instance among very many: the registry's own cluster node and its requests between instances, over a catalog in
memory. It serves no clients and has no content.
"""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from crdt.fact import blob_fact, manifest_fact, tag_fact
from registry.capabilities import OWN
from registry.catalog.catalog import Catalog
from registry.cluster.node import Cluster
from registry.cluster.replication.read_lease import ReadLease
from registry.cluster.rpc.client import PREFIX
from registry.cluster.rpc.keys import ClusterKey, channels
from registry.cluster.rpc.sessions import SeenRequests
from registry.event_loop.ending import end
from registry.http.peer.context import AccessContext, DocumentContext, PeerContext
from registry.http.peer.handlers import answer
from registry.ports import Clock
from registry.storage.disk_budget import DiskBudget
from registry.storage.shared_usage import SharedUsage
from registry.telemetry.counters import PeerRequests
from registry.telemetry.refusals import Refusals
from simulations.bus import RedisServers, SimulatedBus
from simulations.network import Network, SimulatedTransport
from simulations.options import make_config
from simulations.process import Process
from simulations.shared_catalog import SharedCatalog

KEY = ClusterKey("the simulated cluster's secret")
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
BODY = b"m" * 1500

NOT_PLAYED: Any = None
"""Stands for content, uploads and what else serves clients: no request of these runs comes to it."""


class ScaledInstance:
    """One instance: its gossip, its members, its anti-entropy."""

    def __init__(
        self,
        name: str,
        site: str,
        catalog: SharedCatalog,
        clock: Clock,
        network: Network,
        redis: RedisServers,
        note: Callable[[str, int], None],
    ) -> None:
        """`note` is called with path and size of every request that is answered, body and answer together."""
        self.name = name
        self.catalog = catalog
        self._note = note
        process = Process(name, 1)
        config = make_config(
            listen=f"{name}:80", site=site, redis=redis.names, advertise=f"http://{name}", advertise_site="", peer=[],
            holder_wait_s=5.0,
        )  # fmt: skip
        transport = SimulatedTransport(network, process)
        self.cluster = Cluster(
            config,
            cast(Catalog, catalog),
            cast(Any, SimpleNamespace(disk=None)),
            DiskBudget(0, SharedUsage()),
            clock,
            SimulatedBus(redis, process, channels([KEY]), site),
            transport,
            [KEY],
            ReadLease(clock.steady_s),
        )
        self._context = self._make_context(clock, transport)
        self._tasks: list[asyncio.Task[None]] = []
        catalog.attach(self.cluster.frame_sender.publish)
        network.serve(name, process, self._serve)

    def _make_context(self, clock: Clock, transport: SimulatedTransport) -> PeerContext:
        """Return the collaborators of requests between instances, see `registry.app`."""
        cluster, catalog = self.cluster, cast(Catalog, self.catalog)
        access = AccessContext(
            catalog=catalog,
            rights=catalog.access,
            clock=clock,
            keys=cluster.keys,
            incarnation=cluster.incarnation,
            seen_requests=SeenRequests(),
            acceptance=cluster.peers.acceptance,
            capabilities=OWN.capabilities,
            members=cluster.members,
            transport=transport,
            requests=PeerRequests(),
            requires_certificate=False,
        )
        documents = DocumentContext(
            catalog=catalog,
            rights=catalog.access,
            replica=catalog.replica,
            queries=catalog.queries,
            database=catalog.database,
            discovery=cluster.discovery,
            advances=cluster.advances,
            gossip=cluster.gossip,
            diff_requests=cluster.diff_requests,
            members=cluster.members,
            site_lease=cluster.site_lease,
            reachability=cluster.reachability,
        )
        return PeerContext(
            access, documents, NOT_PLAYED, NOT_PLAYED, catalog.database, cluster.decommission, Refusals(clock)
        )

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await answer(self._context, request)
        size = int(request.headers.get("content-length", "0")) + len(response.body)
        self._note(scope["path"].removeprefix(PREFIX), size)
        await response(scope, receive, send)

    def start(self) -> None:
        """Begin the tasks that gossip and anti-entropy consist of."""
        cluster = self.cluster
        for work in (
            cluster.gossip.run, cluster.applier.run, cluster.anti_entropy.run, cluster.heartbeats.run, cluster.join.run
        ):  # fmt: skip
            self._tasks.append(asyncio.create_task(work()))

    async def close(self) -> None:
        await end(self._tasks)
        await self.cluster.close()

    def push(self, repository: str, tag: str, number: int) -> None:
        """Write what a push of a tag with one layer writes."""
        held, writer, digest = self.catalog.replica.held(repository), self.catalog.writer, f"sha256:{number:064x}"
        ended = [identity for identity, text in held.facts.items() if text.startswith(f"t\0{tag}\0")]
        facts = (
            tag_fact(tag, digest, number, writer),
            manifest_fact(digest, MEDIA_TYPE, len(BODY), number, writer),
            blob_fact(digest, 1_000_000, number, writer),
        )
        self.catalog.write(repository, [fact.text() for fact in facts], ended, (BODY,))
