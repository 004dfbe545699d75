"""The end of a run: everything is listed and pulled everywhere, and compared with the facts."""

import json
import random
from typing import TYPE_CHECKING

from registry.catalog.queries import KIND
from simulations.checkers import Violation, lists
from simulations.checkers.winners import winners
from simulations.faults import MEMBER_FAULTS
from simulations.history import DocumentState
from simulations.node import Node
from simulations.workload.client import Answer
from simulations.workload.images import ALL_IMAGES, PARTS, digest_of

if TYPE_CHECKING:
    from simulations.simulation import Simulation

SUBJECT = digest_of(ALL_IMAGES[0].body)


class FinalReads:
    """The last reads of a run."""

    def __init__(self, simulation: "Simulation") -> None:
        self._plan = simulation.plan
        self._nodes = simulation.nodes
        self._history = simulation.checkers.history
        self._lost = simulation.checkers.lost
        self._violations = simulation.violations
        self._client = simulation.workload.client("client-last", "sweep")
        self._rng = random.Random(f"{self._plan.seed} sweep lists")

    async def carry_out(self) -> None:
        """Every list and every tag at every instance, and every blob that a tag stands on at one; where content is
        copied or collected, every blob of every manifest."""
        shown = self._history.of(self._nodes[0].name)
        documents = {name: seen for name, seen in shown.items() if name.startswith(KIND)}
        blobs: set[tuple[str, str]] = set()
        for node in self._nodes:
            await self._check_lists(node)
            for name, seen in sorted(documents.items()):
                for tag in sorted(winners(seen)):
                    blobs |= await self._pull(node, name.removeprefix(KIND), tag)
        for name, seen in documents.items():
            blobs |= {(name.removeprefix(KIND), blob) for blob in self._named(name.removeprefix(KIND), seen)}
        for repository, digest in sorted(blobs):
            await self._pull_blob(documents[KIND + repository], repository, digest)

    async def _pull(self, node: Node, repository: str, tag: str) -> set[tuple[str, str]]:
        """The content that a tag stands on."""
        body = await self._client.pull_manifest(node, repository, tag)
        if body is None:
            if not self._lost.manifests:
                self._violations.report(f"tag {tag} of {repository} cannot be pulled at {node.name} in the end")
            return set()
        return {(repository, layer) for layer in self._client.layers(body)}

    def _named(self, repository: str, seen: DocumentState) -> set[str]:
        """Return what live manifests name. It is linked, unless a client has deleted it."""
        manifests = {fact.key[1] for fact in seen.facts.values() if fact.key[0] == "m"} & PARTS.keys()
        named = {blob for digest in manifests for blob in PARTS[digest].blobs}
        linked = {fact.key[1] for fact in seen.facts.values() if fact.key[0] == "b"}
        asked = self._history.operations
        deleted = {o.digest for o in asked if o.kind == "delete blob" and o.repository == repository}
        for digest in sorted(named - linked - deleted):
            self._violations.report(
                f"a manifest of {repository} names {digest}, which is not there, and no client has deleted it"
            )
        plan = self._plan
        is_moved = {"collect", "two-copies", "everywhere", "evict"} & set(plan.conditions)
        return named if is_moved or MEMBER_FAULTS & set(plan.faults) else set()

    async def _pull_blob(self, seen: DocumentState, repository: str, digest: str) -> None:
        if not any(fact.key == ("b", digest) for fact in seen.facts.values()):
            return  # it was deleted, which is allowed
        answer = await self._client.pull_blob(self._rng.choice(self._nodes), repository, digest)
        if (answer is None or answer.status != 200) and digest not in self._lost.digests:
            self._violations.report(f"blob {digest} of {repository} cannot be pulled in the end")

    # Lists

    async def _check_lists(self, node: Node) -> None:
        documents = self._history.of(node.name)
        names = lists.repositories_of({name: seen for name, seen in documents.items() if name.startswith(KIND)})
        await self._check_list(node, "catalog", "/v2/_catalog", "", "repositories", names)
        for name in names:
            seen = documents[KIND + name]
            tags, path = lists.tags_of(seen), f"/v2/{name}/tags/list"
            await self._check_list(node, "tags", path, name, "tags", tags)
            path, nowhere = f"/v2/{name}/referrers/{SUBJECT}", self._lost.nowhere()
            referrers = [one for one in lists.referrers_of(seen, SUBJECT) if one not in nowhere]  # its body names it
            await self._check_list(node, "referrers", path, name, "manifests", referrers)

    async def _check_list(
        self, node: Node, kind: str, path: str, repository: str, key: str, expected: list[str]
    ) -> None:
        """A list as a whole or in pages, which is drawn."""
        count = self._rng.choice((0, 1, 2)) if kind != "referrers" else 0
        begun: str | None = f"{path}?n={count}" if count else path
        listed: list[str] = []
        while begun is not None:
            answer = await self._client.ask(kind, node, "GET", begun, repository=repository)
            if answer is None or answer.status != 200:
                return
            entries = json.loads(answer.body)[key]
            if count and len(entries) > count:
                self._violations.check(_refuse, f"{kind} of {repository} at {node.name}: a page of {len(entries)}")
            listed += [entry["digest"] if isinstance(entry, dict) else entry for entry in entries]
            begun = _next(answer)
        if kind == "referrers":
            listed.sort()  # the newest come first
        what = f"{kind} of {repository} at {node.name}"
        self._violations.check(lists.check_list, what, listed, expected)


def _refuse(what: str) -> None:
    raise Violation(what)


def _next(answer: Answer) -> str | None:
    """Where the next page is (RFC 8288)."""
    link = answer.headers.get("link")
    return link[1 : link.index(">")] if link is not None else None
