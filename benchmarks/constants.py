"""What one instance needs for one tag, one change and one heartbeat: the constants of docs/internals/scale.md.

    python -m benchmarks.constants [--tags N] [--repositories N]

One catalog writes that many tags, each with a manifest of its own; a second takes them in as frames.
"""

import argparse
import asyncio
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec

from crdt.change import Change, encode_change
from crdt.fact import blob_fact, manifest_fact, tag_fact
from crdt.frame import CHANGE, HEARTBEAT, Frame, seal
from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.adapters.no_bus import SilentBus
from registry.capabilities import OWN
from registry.catalog.catalog import PATH, Catalog
from registry.catalog.change_sink import Unpublished
from registry.catalog.database import Transaction
from registry.catalog.queries import document_name
from registry.catalog.repository import store_body
from registry.cluster.membership.events import MembershipEvents
from registry.cluster.membership.incarnation import CloneGuard, Incarnation
from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.change_applier import ChangeApplier
from registry.cluster.replication.frame_sender import FrameSender
from registry.cluster.replication.gossip import Gossip
from registry.cluster.replication.recent_frames import RecentFrames
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.messages import Heartbeat
from registry.event_loop.steps import run_to_completion
from registry.oci.manifest import parse_manifest
from registry.oci.names import Repository, digest_of

KEY = ClusterKey("a secret for measuring only")
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
AT_ONCE = 200
SITE_SIZE = 20


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tags", type=int, default=50_000)
    options.add_argument("--repositories", type=int, default=1_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="concord-constants-") as scratch:
        for name in ("first", "second"):
            (Path(scratch) / name).mkdir()
        asyncio.run(measure(Path(scratch), given.tags, given.repositories))


async def measure(scratch: Path, tags: int, repositories: int) -> None:
    first, second = await opened(scratch / "first"), await opened(scratch / "second")
    frames: list[bytes] = []
    first.database.attach(SealedFrames(first, frames))
    second.database.attach(Unpublished())
    await timed(
        "a tag written and its frame sealed, committed in groups", tags, partial(write, first, tags, repositories)
    )
    print(f"{sum(map(len, frames)) / tags:10.0f} bytes    a change's frame")
    size = sum(file.stat().st_size for file in (scratch / "first").iterdir() if file.name.startswith(PATH))
    print(f"{size / tags:10.0f} bytes    of SQLite for a tag with its manifest")
    applier, gossip, members = receiving(second)
    members.receive_heartbeat(first.instance_id, heartbeat(first, 1), 1, on_bus=False)
    await timed("a change received, committed in groups", tags, partial(receive, gossip, applier, frames))
    assert second.replica.root() == first.replica.root(), "all frames were taken in"
    members.receive_heartbeat(first.instance_id, heartbeat(first, 2), 2, on_bus=False)  # live again: that took a while
    beats = [beat(first, number) for number in range(3, 20_003)]
    print(f"{len(beats[0]):10.0f} bytes    a heartbeat at a site of {SITE_SIZE}")
    await timed("a heartbeat received", len(beats), partial(receive, gossip, applier, beats))
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:10.0f} MB       resident at most")


class SealedFrames(Unpublished):
    """Seals a frame for each change, and keeps it."""

    def __init__(self, catalog: Catalog, frames: list[bytes]) -> None:
        self._catalog, self._frames = catalog, frames

    def publish(self, change: Change) -> None:
        self._frames.append(sealed(self._catalog, len(self._frames) + 1, change))


async def opened(path: Path) -> Catalog:
    catalog = Catalog(SystemDisk(path), SystemClock())
    await catalog.start()
    return catalog


async def timed(what: str, count: int, work: Callable[[], Awaitable[None]]) -> None:
    cpu, begun = time.process_time(), time.perf_counter()
    await work()
    cpu, took = time.process_time() - cpu, time.perf_counter() - begun
    print(f"{cpu / count * 1e6:10.1f} µs CPU   {what} ({took / count * 1e6:.1f} µs elapsed)")


async def write(catalog: Catalog, tags: int, repositories: int) -> None:
    for at in range(0, tags, AT_ONCE):
        numbers = range(at, min(at + AT_ONCE, tags))
        operations = (partial(push, catalog, number, f"r{number % repositories}") for number in numbers)
        await asyncio.gather(*(catalog.database.write(operation) for operation in operations))


def push(catalog: Catalog, number: int, repository: str, tx: Transaction) -> Change:
    """Push a manifest of its own to the tag of a number."""
    body = (
        f'{{"schemaVersion":2,"mediaType":"{MEDIA_TYPE}","config":{{"mediaType":"application/vnd.oci.empty.v1+json",'
        f'"digest":"sha256:{number:064x}","size":2}},"layers":[],"annotations":{{"text":"{"x" * 700}"}}}}'
    ).encode()
    digest, writer, documents = digest_of(body), catalog.documents.writer, catalog.documents
    facts = (
        tag_fact(f"v{number}", digest, number + 1, writer),
        manifest_fact(digest, MEDIA_TYPE, len(body), number + 1, writer),
        blob_fact(f"sha256:{number:064x}", 2, number + 1, writer),
    )
    run_to_completion(store_body(tx, digest, body, parse_manifest(body, MEDIA_TYPE)))
    return documents.write(tx, document_name(Repository(repository)), [], facts, (body,))


def sealed(catalog: Catalog, sequence: int, change: Change) -> bytes:
    sender = bytes.fromhex(catalog.instance_id)
    return seal(Frame(CHANGE, sender, catalog.incarnation, sequence, encode_change(change)), KEY.frames)


def heartbeat(catalog: Catalog, number: int) -> Heartbeat:
    applied = {os.urandom(16).hex(): (catalog.incarnation, number) for _ in range(SITE_SIZE)}
    return Heartbeat("here", "http://10.0.0.1:5000", "", "1.0", catalog.incarnation, number, number, bytes(16), applied)


def beat(catalog: Catalog, number: int) -> bytes:
    sender = bytes.fromhex(catalog.instance_id)
    payload = msgspec.msgpack.encode(heartbeat(catalog, number))
    return seal(Frame(HEARTBEAT, sender, catalog.incarnation, number, payload), KEY.frames)


class Unheard:
    """Listens to the members and to diffs, and does nothing."""

    def on_heard(self, member: Member) -> None:
        pass

    def request(self, member: Member) -> None:
        pass

    def on_stale_incarnation(self, member: Member, beat: Heartbeat) -> None:
        pass

    def on_removed_member_returned(self, instance: str, beat: Heartbeat) -> None:
        pass

    def request_diff(self, instance: str, document: str) -> None:
        pass


def receiving(catalog: Catalog) -> tuple[ChangeApplier, Gossip, Members]:
    """Return the parts that take in frames, alone."""
    events, bus, keys = MembershipEvents(), SilentBus(), [KEY]
    events.connect(heard=[Unheard()], proof=Unheard(), stale=Unheard())
    members = Members(catalog.instance_id, "there", events)
    acknowledgements, recent_frames, outcomes = Acknowledgements(members), RecentFrames(), Counter[str]()
    incarnation = Incarnation(catalog.incarnation, acknowledgements, recent_frames)
    sender = FrameSender(bus, keys, members, incarnation, recent_frames, acknowledgements, OWN, catalog.access)
    applier = ChangeApplier(catalog, members, sender, Unheard(), outcomes)
    clones = CloneGuard(catalog, incarnation)
    gossip = Gossip(
        bus, SystemClock(), keys, OWN, members, incarnation, clones, acknowledgements, applier, outcomes, catalog.access
    )  # fmt: skip
    return applier, gossip, members


async def receive(gossip: Gossip, applier: ChangeApplier, frames: list[bytes]) -> None:
    for frame in frames:
        await gossip.receive(frame)
    while applier._tasks:
        await asyncio.gather(*applier._tasks)


if __name__ == "__main__":
    main()
