"""Short scenarios of access control: what is said on both sides of a partition, what follows a block and a withdrawal,
and what a new instance answers."""

import asyncio
import random
from itertools import permutations

from simulations.node import Node
from simulations.simulation import Simulation
from simulations.workload.access_changes import AccessChanges
from simulations.workload.client import Answer
from simulations.workload.credentials import Credential, NoCredential, TokenCredential
from simulations.workload.images import ALL_IMAGES

AGREED_S = 6.0
AGAIN_S = 0.005


async def begin(simulation: Simulation, is_enforced: bool) -> AccessChanges:
    """Start all instances, and make the accounts of a run."""
    await simulation.start()
    changes = simulation.workload.access_changes()
    await changes.prepare(simulation.nodes[0], simulation.requests, is_enforced)
    await simulation.converge()
    return changes


def part(simulation: Simulation) -> None:
    """Cut all instances off from each other."""
    for one, other in permutations(simulation.nodes, 2):
        simulation.cluster.packet_simulator.block(one.name, other.name)
    simulation.disturbances.fired("partition")


async def join(simulation: Simulation) -> None:
    """Heal the network, wait until all agree, and check what holds then."""
    await simulation.heal()
    simulation.disturbances.note()
    await simulation.converge()
    await asyncio.sleep(AGREED_S)
    simulation.violations.check(simulation.checkers.access.check_end, simulation.nodes)


async def change_on_both_sides(simulation: Simulation) -> None:
    """Say at two sites that are cut off from each other what the conflict rules are about."""
    changes = await begin(simulation, is_enforced=False)
    first, second = simulation.nodes
    for name in ("ci", "ann"):
        await changes.ask(first, "account/block", {"name": name})
    await changes.set_password(first, "cat", "the first password")
    await simulation.converge()
    part(simulation)
    await _first_side(changes, first)
    await asyncio.sleep(1.0)
    await _second_side(changes, second)
    await join(simulation)


async def _first_side(changes: AccessChanges, node: Node) -> None:
    await changes.ask(node, "revoke", {"subject": "bot", "repositories": "*"})
    await changes.ask(node, "account/block", {"name": "ci"})
    await changes.ask(node, "account/remove", {"name": "bob"})
    await changes.ask(node, "account/create", {"name": "bob", "password": "a new account"})
    await changes.set_password(node, "cat", "reset by the operator")


async def _second_side(changes: AccessChanges, node: Node) -> None:
    bob, cat = (changes.credentials_of(name)[0] for name in ("bob", "cat"))
    await changes.grant(node, "bot", "app", ["delete"])
    await changes.ask(node, "account/unblock", {"name": "ci"})
    await changes.grant(node, "group:devs", "scratch", ["push"], bob)
    await changes.set_password(node, "cat", "changed by oneself", cat)


async def block_between_pulls(simulation: Simulation) -> None:
    """Pull by a key, block the account, and pull again."""
    changes = await begin(simulation, is_enforced=True)
    node, client = simulation.nodes[0], simulation.client()
    (client.credential,) = changes.credentials_of("ci")
    for _ in range(2):
        await client.list_tags(node, "app")
        await client.list_tags(node, "app")
        await changes.ask(node, "account/block", {"name": "ci"})


async def ask_until_ready(simulation: Simulation, node: Node, credential: Credential) -> set[int]:
    """List tags at an instance that has just started, again and again, until it is ready. Return the statuses of all
    answers."""
    asking: list[asyncio.Task[Answer | None]] = []
    while node.instance is None or not node.started or not node.instance.ready:
        client = simulation.client(f"client {len(asking)}")
        client.credential = credential
        ask = client.ask("tags", node, "GET", "/v2/app/tags/list", repository="app")
        asking.append(asyncio.ensure_future(ask))
        await asyncio.sleep(AGAIN_S)
    return {answer.status for answer in await asyncio.gather(*asking) if answer is not None}


async def ask_a_new_instance(simulation: Simulation) -> None:
    """Send requests without a credential to a new instance, which has no facts yet."""
    await begin(simulation, is_enforced=True)
    new = simulation.cluster.add_node(simulation.nodes[0].site)
    starting = asyncio.ensure_future(simulation.lifecycle.restart(new))
    await ask_until_ready(simulation, new, NoCredential())
    await starting


async def push_after_a_revocation(simulation: Simulation) -> None:
    """Revoke rights at one site, and push there, while the other site hears its frames and reaches it by no request."""
    changes = await begin(simulation, is_enforced=True)
    first, client = simulation.nodes[0], simulation.client()
    client.credential = changes.steady
    part(simulation)
    await changes.ask(first, "revoke", {"subject": "ci", "repositories": "*"})
    await client.push(first, "app", "v1", ALL_IMAGES[0])
    await asyncio.sleep(1.0)
    await join(simulation)


async def withdraw_between_pulls(simulation: Simulation) -> None:
    """Pull by a token, withdraw the key that it was got by, and pull again by the same token."""
    changes = await begin(simulation, is_enforced=True)
    node, client = simulation.nodes[0], simulation.client()
    (key,) = changes.credentials_of("ci")
    client.credential = TokenCredential(simulation.cluster.network, key, random.Random(0))  # it is not got again
    await client.list_tags(node, "app")
    await changes.ask(node, "key/revoke", {"id": key.id})
    await client.list_tags(node, "app")
