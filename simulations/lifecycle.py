"""The lifecycle of instances: starts, restores, losses, decommissions and removals, as faults and tests cause them.

Each of them tells the checkers what they must no longer demand. What only one disk had is lost with it, and nothing
else is.
"""

import asyncio
from collections.abc import Callable, Iterable

from registry.catalog.membership import DOCUMENT as MEMBERS
from registry.cluster.membership.join import CLIENTS_WAIT_IN_PLACE_S, CLIENTS_WAIT_S
from simulations.checkers import restarts
from simulations.checkers.suite import Checkers
from simulations.cluster import SimulatedCluster
from simulations.disturbances import Disturbances
from simulations.history import DocumentState
from simulations.lost_content import LostContent
from simulations.node import Node
from simulations.plan import Plan
from simulations.storage import DiskImage
from simulations.violations import Violations

START_AGAIN_S = 0.2


class Lifecycle:
    """Starts and ends the instances of a run."""

    def __init__(
        self,
        plan: Plan,
        cluster: SimulatedCluster,
        checkers: Checkers,
        observe: Callable[[Node], None],
        disturbances: Disturbances,
        violations: Violations,
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._checkers = checkers
        self._observe = observe
        self._disturbances = disturbances
        self._violations = violations
        self._starting: set[Node] = set()

    @property
    def lost(self) -> LostContent:
        return self._checkers.lost

    async def restart(self, node: Node) -> None:
        """Start a dead instance: first where it reaches no other instance, to check what its disk has kept."""
        if node.up or node in self._starting or node not in self._cluster.nodes:
            return
        self._starting.add(node)
        node.on_disk_call = lambda call, name: None
        while not node.up:
            if node.starts:
                await node.start(connected=False)
                if node.up and node.instance is not None:
                    self._violations.check(restarts.check_alone, node, node.instance, self._checkers.history)
                    node.die(False)
            await node.start()
            if not node.up:  # struck again at once, or refused by its disk
                await asyncio.sleep(START_AGAIN_S)
        self._starting.discard(node)
        self._observe(node)
        self._checkers.readiness.started(node, CLIENTS_WAIT_S)
        self._checkers.stamps.started(node)
        self._disturbances.note()

    async def replace_primary(self, node: Node, after_s: float) -> None:
        """Start a primary in place of one that has just died, as the supervisor does."""
        if node in self._starting or node not in self._cluster.nodes:
            return
        self._starting.add(node)
        await asyncio.sleep(after_s)
        await node.replace_primary()
        self._starting.discard(node)
        if node.up:
            self._observe(node)
            self._checkers.readiness.started(node, CLIENTS_WAIT_IN_PLACE_S)
            self._checkers.stamps.started(node)
            self._disturbances.note()
        elif not node.alive:  # killed meanwhile, or refused by its disk
            await self.restart(node)

    async def restore(self, node: Node, image: DiskImage) -> None:
        """Kill an instance, put its disk back to an earlier image, and start it again."""
        node.die(False)
        self.expect_disk_loss(node)
        node.image = image
        await self.restart(node)

    def expect_content_loss(self, node: Node, but_manifests: bool = False) -> None:
        """Expect a disk to be lost: what only it has is gone, but for what the write concern promised to be at two."""
        promised: set[str] = set()
        if "two-copies" in self._plan.conditions and not self.lost.digests:
            promised = self._checkers.acknowledged.pushed()
        self._checkers.holders.disk_lost(node)
        self.lost.disk_of(node, promised, but_manifests)

    def expect_disk_loss(self, node: Node) -> None:
        """Expect a disk to be put back or destroyed: its content, and its share of the documents, are gone with it."""
        self.expect_content_loss(node)
        self._checkers.acknowledged.excuse(node.name)
        self._checkers.access.excuse(node.name)
        others = [other for other in self._cluster.nodes if other is not node]
        self._checkers.identities.excuse(self.known_to_be_gone(others), self.known_to_be_gone([node]))
        self._checkers.history.forget(node.name)
        self._checkers.winners.forget(node.name, self._cluster.loop.now)

    def expect_clone(self, node: Node, clone: Node) -> None:
        """Expect another instance to start on a copy of a disk, or from a backup of it."""
        clone.abilities = node.abilities
        self._checkers.history.copied(node, clone)

    def known_to_be_gone(self, nodes: Iterable[Node]) -> set[str]:
        """Return the ids of removed members that instances know of, but for their own."""
        return {
            fact.key[1]
            for node in nodes
            for fact in self._checkers.history.of(node.name).get(MEMBERS, DocumentState()).facts.values()
            if node.instance is None or fact.key[1] != node.instance.catalog.instance_id
        }

    def decommissioned(self, node: Node) -> None:
        """End an instance that has decommissioned itself: nothing may be lost with it."""
        assert node.instance is not None, "it has just said so"
        self._observe(node)
        self._violations.check(self._checkers.holders.check_left, node)
        self._checkers.identities.left(node.instance.catalog.instance_id, f"({node.name}) has left")
        self.end(node)

    def destroy(self, node: Node) -> None:
        """End an instance for good, and destroy its disk: what only it had is lost."""
        self._observe(node)
        self.expect_disk_loss(node)
        self.end(node, power_cut=True)

    def destroy_copies(self, node: Node) -> None:
        """End an instance for good, and destroy its disk: content may be lost with it, and no manifest."""
        self._observe(node)
        self.expect_content_loss(node, but_manifests=True)
        self.end(node, power_cut=True)

    def end(self, node: Node, power_cut: bool = False) -> None:
        """End an instance for good."""
        self._cluster.nodes.remove(node)
        self._cluster.gone.append(node)
        node.die(power_cut)

    def removed(self, node: Node, instance: str) -> None:
        """Expect all to know that an operator has removed a member for good."""
        self._checkers.identities.gone[instance] = f"({node.name}) was removed"
        self.lost.relied_on_by(node, self._checkers.history)
