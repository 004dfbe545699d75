"""The code of `concord access recover` on the disk of an instance that does not run."""

from functools import partial

from registry.access import changes
from registry.access.passwords import SALT_SIZE, hash_password
from registry.cli.access_offline import commit_offline
from simulations.node import Node, SimulatedClock
from simulations.process import Process
from simulations.storage import SimulatedDisk


async def recover(node: Node, name: str, password: str) -> str:
    """Make an administrator in the data directory of an instance that is down. Return the account's id."""
    content, databases = node.image
    scratch = node.cluster.scratch / f"{node.name}-recovered-{node.starts}"
    disk = SimulatedDisk(scratch, node.rng, content, databases)
    node.cluster.disks.append(disk)
    clock = SimulatedClock(node, Process(node.name, node.starts))
    hashed = hash_password(password, clock.entropy(SALT_SIZE))
    plan = partial(changes.recover, name=name, password_hash=hashed)
    account = await commit_offline(disk, clock, plan, recovers=True)
    node.image = disk.image(power_cut=False)
    disk.discard()
    return account
