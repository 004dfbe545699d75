"""A restarted instance has everything that it had committed, before a peer can heal it, and nothing half-written.

Commits are observed after they returned, so all that was ever observed is durable.
"""

from registry.instance import Instance
from registry.oci.names import Digest
from registry.storage.store import content_path
from simulations.checkers import Violation
from simulations.history import DocumentState, History, read_document
from simulations.node import Node


def check_alone(node: Node, instance: Instance, history: History) -> None:
    """Compare an instance that has just been started, and has reached no other instance, with what was seen of it."""
    database = instance.catalog.database
    ids = dict(database.rows("SELECT name, id FROM documents"))
    for name, seen in history.of(node.name).items():
        found = read_document(instance, ids[name]) if name in ids else DocumentState()
        for writer, clock in seen.vector.items():
            if found.vector.get(writer, 0) < clock:
                raise Violation(f"{node.name} has lost what it had committed of {name}")
        if found.vector == seen.vector and found.facts != seen.facts:
            raise Violation(f"{node.name} has other facts of {name} than it had committed")
    check_content(node, instance)


def check_content(node: Node, instance: Instance) -> None:
    """Content that the catalog says is here is here, whole."""
    disk = node.disk
    assert disk is not None, "it has been started"
    there = set(disk.content_names())  # looked at from outside: what strikes the disk's calls is not to strike this
    for digest, size in instance.catalog.database.rows("SELECT digest, size FROM content"):
        path = content_path(Digest(digest))
        found = disk.content_size(path) if path in there else -1
        if found != size:
            raise Violation(f"{node.name} has {found} of {size} bytes of {digest}")
