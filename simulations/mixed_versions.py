"""A cluster of mixed versions: its last instance is of a later version, the others are of this one.

The later instance writes critical facts of a kind that the others do not know, marks the frames of those changes with a
critical header field that they do not know, and has a capability more. They keep and pass on everything, and serve
nothing of what depends on it; and once they are upgraded they serve all of it.
"""

import asyncio
import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from crdt.fact import CRITICAL
from registry.capabilities import OWN
from registry.errors import StorageFailed
from registry.instance import Instance
from registry.ports import PeerUnreachable
from registry.telemetry.events import LogEvent
from simulations.checkers import convergence
from simulations.later_version import CAPABILITY, DOCUMENT, LATER, REPOSITORY, later_fact
from simulations.node import Node
from simulations.phases import until_violation
from simulations.process import in_process
from simulations.simulation import CONVERGENCE_S, Simulation
from simulations.workload.client import Answer
from simulations.workload.images import ALL_IMAGES, digest_of

ACCESS = "access"
"""A document on which everything depends."""
TAG = "v1"
IMAGE = ALL_IMAGES[0]
PAUSE_S = 0.2
ANSWER_S = 8.0
WRITE_S = 3.0
REFUSAL = b"is too old for "
REFUSED, ANSWERED = "request refused for want of an upgrade", "request answered in mixed versions"

Identity = tuple[int, int]


class MixedVersions:
    """One run of a cluster of mixed versions."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._nodes = simulation.nodes
        self._violations = simulation.violations
        self._rng = random.Random(f"{simulation.plan.seed} mixed versions")
        self._later = simulation.cluster.nodes[-1]
        self._make_later(self._later)
        self._client = simulation.workload.client("client-later", "later", lambda: [self._later])
        simulation.log_events.listen(LogEvent.FRAME_APPLIED, self._check_frame)

    @staticmethod
    def _make_later(node: Node) -> None:
        node.abilities = LATER

    async def phases(self) -> None:
        simulation = self._simulation
        await simulation.start()
        await self._have_content_everywhere()
        busy = (
            self._write_and_probe(simulation.plan.fault_s),
            simulation.workload.load(simulation.plan.operations, "busy"),
        )
        await asyncio.gather(*busy, *map(simulation.strike, simulation.plan.faults))
        await simulation.heal()
        await simulation.converge()
        await self._write(DOCUMENT, "the last")
        await self._agree()
        await self._client.push(self._later, REPOSITORY, TAG, IMAGE)
        await self._agree()
        await self._probe_all()
        self._check_capabilities()
        await self._check_all_stopped()
        await self._upgrade()
        simulation.violations.check(convergence.check_agreement, simulation.cluster.nodes)

    async def _have_content_everywhere(self) -> None:
        """Have all instances hold content of the repository before the first critical fact, so that workers have it."""
        await self._client.push(self._later, REPOSITORY, TAG, IMAGE)
        await self._agree()
        for node in self._nodes:
            await self._ask(node, "GET", f"/v2/{REPOSITORY}/blobs/{digest_of(IMAGE.blobs[0])}", DOCUMENT)

    # What the later instance does

    async def _write_and_probe(self, seconds: float) -> None:
        until = self._simulation.cluster.loop.now + seconds
        number = 0
        while self._simulation.cluster.loop.now < until:
            rng = self._rng.random()
            if rng < 0.15:
                await self._write(DOCUMENT, f"fact {number}")
            elif rng < 0.25:
                await self._write(DOCUMENT, None)
            elif rng < 0.35:
                await self._client.push(self._later, REPOSITORY, TAG, self._rng.choice(ALL_IMAGES[:3]))
            else:
                await self._probe(self._rng.choice(self._nodes))
            number += 1
            await asyncio.sleep(PAUSE_S * self._rng.random())

    async def _write(self, document: str, said: str | None) -> None:
        """Have the later instance say a critical fact, or without one delete those that are there."""
        node = self._later
        if node.instance is None or node.process is None or not node.up or not node.started:
            return
        history, now = self._simulation.checkers.history, self._simulation.cluster.loop.now
        asked = history.begin("unmark", node.name, document.removeprefix("repository/"), now, "", "")
        writing = asyncio.get_running_loop().create_task(
            self._say(node.instance, document, said), context=in_process(node.process)
        )
        await asyncio.wait([writing], timeout=WRITE_S)
        if writing.done():
            asked.ended_s, asked.status = self._simulation.cluster.loop.now, 202

    @staticmethod
    async def _say(instance: Instance, document: str, said: str | None) -> None:
        documents = instance.catalog.documents

        def operation(tx: Any) -> None:
            number, writer = documents.document_id(tx, document), documents.begin(tx)
            sql = "SELECT writer, clock FROM facts WHERE document = ? AND kind >= ? AND kind < ?"
            live = tx.rows(sql, (number, CRITICAL, chr(ord(CRITICAL) + 1)))
            if said is not None:
                time = documents.clock.tick(instance.clock.now_ms())
                documents.write(tx, document, [], [later_fact(said, time, writer)])
            elif live:
                documents.write(tx, document, live, [])

        with suppress(StorageFailed):
            await instance.catalog.database.write(operation)

    # What is judged

    def _check_frame(self, name: str, fields: Mapping[str, Any]) -> None:
        """No instance applies a frame that it was not to apply."""
        is_too_old = any(node.name == name and node.abilities is OWN for node in self._nodes)
        if fields["document"] == DOCUMENT and is_too_old:
            self._violations.report(f"{name} has applied a frame with a critical field unknown to it")

    def _marks(self, node: Node, document: str) -> set[Identity]:
        """The live facts of a document that an instance must understand and does not; read from their texts."""
        if node.instance is None or not node.started or node.abilities is LATER:
            return set()
        _, facts = node.instance.catalog.facts(document)
        return {(writer, clock) for writer, clock, text in facts if text.startswith("!")}

    def _requests(self) -> Iterator[tuple[str, str, str]]:
        """Requests that depend on the repository, each with the document that is between it and its answer."""
        manifests, blobs = f"/v2/{REPOSITORY}/manifests", f"/v2/{REPOSITORY}/blobs"
        for method in ("GET", "HEAD"):
            yield method, f"{manifests}/{TAG}", DOCUMENT
            yield method, f"{manifests}/{digest_of(IMAGE.body)}", DOCUMENT
            yield method, f"{blobs}/{digest_of(IMAGE.blobs[0])}", DOCUMENT
            yield method, f"/v2/{REPOSITORY}/tags/list?n=10", DOCUMENT
            yield method, f"/v2/{REPOSITORY}/tags/list", DOCUMENT
        yield "GET", f"/v2/{REPOSITORY}/referrers/{digest_of(IMAGE.body)}", DOCUMENT
        yield "GET", "/v2/_catalog?n=100", DOCUMENT
        yield "GET", "/v2/_catalog", DOCUMENT
        yield "POST", f"{blobs}/uploads/", DOCUMENT
        yield "GET", "/v2/", ACCESS
        yield "GET", "/readyz", ACCESS
        yield "GET", "/v2/app/tags/list?n=10", ACCESS
        yield "POST", "/v2/app/blobs/uploads/", ACCESS

    async def _probe(self, node: Node) -> None:
        await self._ask(node, *self._rng.choice(list(self._requests())))

    async def _ask(self, node: Node, method: str, path: str, document: str) -> Answer | None:
        """Ask an instance, and see that it refuses if a fact stands against it from beginning to end."""
        process, before = node.process, self._marks(node, document) | self._marks(node, ACCESS)
        answer = await self._exchange(node, method, path)
        after = self._marks(node, document) | self._marks(node, ACCESS)
        if answer is None or node.process is not process:
            return None
        self._simulation.marks.reached[REFUSED if REFUSAL in answer.body else ANSWERED] += 1
        told = f"{node.name} answers {method} {path} with {answer.status}"
        if before & after and answer.status != 503:
            self._violations.report(f"{told}, and does not understand what that depends on")
        elif not before | after and REFUSAL in answer.body:
            self._violations.report(f"{told}, and understands everything: {answer.body!r}")
        return answer

    async def _exchange(self, node: Node, method: str, path: str) -> Answer | None:
        url = f"http://{node.name}{path}"
        with suppress(PeerUnreachable, TimeoutError):
            async with (
                asyncio.timeout(ANSWER_S),
                self._simulation.cluster.network.request("mixed", None, method, url, [], b"") as exchange,
            ):
                body = b"".join([chunk async for chunk in exchange.chunks()]) if method != "HEAD" else b""
                return Answer(exchange.status, exchange.headers, body)
        return None

    async def _agree(self) -> None:
        """Wait until all digests agree, also where not all are ready."""
        loop, begun = asyncio.get_running_loop(), self._simulation.cluster.loop.now
        while len({node.instance.catalog.replica.root() for node in self._nodes if node.instance}) > 1:
            if loop.time() - begun > CONVERGENCE_S:
                self._violations.report("instances of two versions do not agree")
                return
            await asyncio.sleep(0.1)

    async def _probe_all(self) -> None:
        """In calm weather every request is refused at each old instance, and answered at the later one."""
        for node in self._nodes:
            for request in self._requests():
                is_known = request[-1] == DOCUMENT  # of other repositories there may be none
                for _ in range(2):  # at either process
                    answer = await self._ask(node, *request)
                    if answer is None:
                        self._violations.report(f"{node.name} does not answer {request} in calm weather")
                    elif node.abilities is LATER and answer.status >= (400 if is_known else 500):
                        self._violations.report(f"{node.name} understands everything, and answers {request}: {answer}")

    def _check_capabilities(self) -> None:
        instance = self._later.instance
        assert instance is not None, "all are up in calm weather"
        for node in self._nodes:
            if node is not self._later and node.instance is not None:
                member = node.instance.cluster.members.get(instance.catalog.instance_id)
                if member is None or CAPABILITY not in member.capabilities:
                    self._violations.report(f"{node.name} does not know what the later instance can do")

    async def _check_all_stopped(self) -> None:
        """A document on which everything depends stops old instances altogether, until its fact is deleted."""
        await self._write(ACCESS, "everything")
        await self._agree()
        for node in self._nodes:
            if node is not self._later and not self._marks(node, ACCESS):
                self._violations.report(f"{node.name} has not taken in the fact on which everything depends")
        await self._probe_all()
        await self._write(ACCESS, None)
        await self._agree()
        await self._probe_all()
        await self._write(ACCESS, "everything again")
        await self._agree()

    async def _upgrade(self) -> None:
        """Each instance is started anew as one of the later version."""
        for node in self._nodes:
            if node.abilities is OWN:
                node.die(False)
                self._make_later(node)
                await self._simulation.lifecycle.restart(node)
        await self._agree()
        await asyncio.sleep(3.0)
        await self._probe_all()


async def mixed_versions(simulation: Simulation) -> None:
    """Play the phases of mixed versions, a scenario for `run`."""
    versions = MixedVersions(simulation)
    await until_violation(simulation, lambda _: versions.phases())
