"""Reachability: which instances one can ask now, and which answers it must therefore know."""

from collections.abc import Mapping

from simulations.checkers.misses import HEARD_S, TOLD_BY_HTTP_S
from simulations.cluster import SimulatedCluster
from simulations.disturbances import Disturbances
from simulations.node import Node

AT_ONCE_S = 0.02
"""The longest latency between sites within which a miss or a delete still waits for an answer."""


class Reachability:
    """Computes from the members that an instance knows, and from the disturbances, which ones it can ask."""

    def __init__(self, cluster: SimulatedCluster, disturbances: Disturbances) -> None:
        self._cluster = cluster
        self._disturbances = disturbances

    def asked_at_once(self, node: Node) -> list[str]:
        """Return the other nodes that one can ask and will hear from at once, while requests get through."""
        if node.instance is None or not node.started or not self._disturbances.requests_get_through:
            return []
        members = node.instance.cluster.members
        found = []
        for other in self._cluster.running():
            near = other.site == node.site or self._cluster.packet_simulator.between_sites_s <= AT_ONCE_S
            if other is not node and near and other.instance is not None and other.started:
                member = members.get(other.instance.catalog.instance_id)
                # One that is presumed dead could be asked all the same: that is no reason not to.
                if member is not None and (member.prompt or not member.live):
                    found.append(other.name)
        return found

    def asked_by(self, name: str) -> list[str]:
        """Return the running nodes whose instances one knows as members."""
        found = []
        for node in self._cluster.running():
            if node.name == name and node.instance is not None and node.started:
                known = {member.instance for member in node.instance.cluster.members.all()}
                others = (o for o in self._cluster.running() if o.instance is not None and o.started)
                found = [o.name for o in others if o.instance and o.instance.catalog.instance_id in known]
        return found

    def informants(self, node: Node) -> Mapping[str, float]:
        """Return the nodes that can tell an instance of a tag, and how long they must have had it for that."""
        bounds = {node.name: 0.0}
        site_of = self._cluster.packet_simulator.site_of
        for other in self.asked_at_once(node):
            heard_s = HEARD_S if self._disturbances.calm else TOLD_BY_HTTP_S
            bounds[other] = 0.0 if site_of[other] == node.site else heard_s
        return bounds
