"""Every kind of fault, each drawn from a randomness of its own, so that leaving one out leaves the others as they are.

A fault is a coroutine that does its harm, and undoes it after a while if it lasts; what it needs of a run is in
`Stage`. Whatever it does is counted as fired when it strikes, not when it is planned.
"""

import asyncio
import errno
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from crdt.change import Change, encode_change
from crdt.delta import decode_delta, encode_delta
from crdt.fact import manifest_fact, tag_fact
from crdt.frame import CHANGE, Frame, seal
from registry.cluster.keys import ClusterKey
from registry.cluster.messages import Updates
from registry.cluster.sessions import hash_of
from registry.seams import PeerUnreachable
from simulations.history import Operation
from simulations.images import OCI_IMAGE, digest_of
from simulations.lost import Lost
from simulations.workload import REPOSITORIES
from simulations.world import SECRET, Node, World

FORGED_TAG = "forged"
BUS_CUT = "bus cut"
BODY_BROKEN = "reset in a body"


class Stage(Protocol):
    """What faults need of a run."""

    world: World
    lost: Lost
    conditions: tuple[str, ...]
    """Of the plan."""
    on_answer: list[Callable[[Node, Operation], None]]
    """Told the instance when its answer to a client's write leaves."""

    def fired(self, kind: str) -> None:
        """Count that a fault struck."""

    def living(self) -> list[Node]:
        """Instances that run."""

    async def restart(self, node: Node) -> None:
        """Start a dead instance, after it has been checked alone."""

    def disturb(self) -> None:
        """The world is not calm."""

    def put_back(self, node: Node) -> None:
        """A disk is about to be put back to an earlier state: what only it had is lost."""


Fault = Callable[[Stage, random.Random], Awaitable[None]]


def _one(stage: Stage, drawn: random.Random) -> Node | None:
    """An instance to strike, unless it is the last one."""
    living = stage.living()
    return drawn.choice(living) if len(living) > 1 else None


async def _die_and_return(stage: Stage, node: Node, drawn: random.Random, power_cut: bool, kind: str) -> None:
    stage.fired(kind)
    node.die(power_cut)
    await asyncio.sleep(0.2 + 4 * drawn.random())
    await stage.restart(node)


async def kill(stage: Stage, drawn: random.Random) -> None:
    """A process is killed at any moment; its disk keeps what was written."""
    if node := _one(stage, drawn):
        await _die_and_return(stage, node, drawn, False, "kill")


async def power_cut(stage: Stage, drawn: random.Random) -> None:
    """A machine loses its power at any moment, and with it any part of what was not synced."""
    if node := _one(stage, drawn):
        await _die_and_return(stage, node, drawn, True, "power cut")


async def power_cut_at_an_answer(stage: Stage, drawn: random.Random) -> None:
    """The power goes as the answer to a write leaves."""
    await _at_effect(stage, drawn, stage.on_answer, "power cut at an answer")


async def power_cut_at_a_frame(stage: Stage, drawn: random.Random) -> None:
    """The power goes as a frame leaves."""
    await _at_effect(stage, drawn, stage.world.on_frame, "power cut at a frame")


async def _at_effect(stage: Stage, drawn: random.Random, told: list[Callable[..., None]], kind: str) -> None:
    node = _one(stage, drawn)
    if node is None:
        return
    struck: asyncio.Future[None] = stage.world.loop.create_future()

    def strike(at: Node, *_: object) -> None:
        if at is node and not struck.done():
            node.die(True)
            struck.set_result(None)

    told.append(strike)
    try:
        await asyncio.wait([struck], timeout=8)
    finally:
        told.remove(strike)
    if struck.done():
        stage.fired(kind)
        await asyncio.sleep(0.2 + 3 * drawn.random())
        await stage.restart(node)


def _at_call(power_cut: bool, kind: str) -> Fault:
    async def die_at_a_call(stage: Stage, drawn: random.Random) -> None:
        """An instance dies at the n-th call of its disk."""
        node = _one(stage, drawn)
        if node is None:
            return
        if await _nth_call(node, drawn, lambda: node.die(power_cut)):
            stage.fired(kind)
            await asyncio.sleep(0.2 + 3 * drawn.random())
            await stage.restart(node)

    return die_at_a_call


async def _nth_call(node: Node, drawn: random.Random, strike: Callable[[], None], only: str = "") -> bool:
    """Strike at a drawn call of an instance's disk. Answers whether there was one."""
    left, struck = drawn.randint(1, 60 if not only else 6), node.world.loop.create_future()

    def count(call: str, name: str) -> None:
        nonlocal left
        if only and call != only:
            return
        left -= 1
        if left == 0 and not struck.done():
            node.on_disk_call = lambda call, name: None
            struck.set_result(None)
            strike()

    node.on_disk_call = count
    await asyncio.wait([struck], timeout=8)
    if not struck.done():
        node.on_disk_call = lambda call, name: None
    return bool(struck.done())


async def hang(stage: Stage, drawn: random.Random) -> None:
    """A process stands still for a while: swapped out, stopped, or its machine is."""
    if node := _one(stage, drawn):
        stage.fired("hang")
        node.pause()
        await asyncio.sleep(0.1 + 6 * drawn.random())
        node.resume()


async def hang_in_a_commit(stage: Stage, drawn: random.Random) -> None:
    """A process stands still between its check and its commit."""
    node = _one(stage, drawn)
    if node is not None and await _nth_call(node, drawn, node.pause, "sqlite sync"):
        stage.fired("hang in a commit")
        await asyncio.sleep(0.1 + 4 * drawn.random())
        node.resume()


def _failing(code: int, kind: str) -> Fault:
    async def fail(stage: Stage, drawn: random.Random) -> None:
        """The disk refuses writes, once or for a while."""
        node = _one(stage, drawn)
        if node is None:
            return
        writing = {"append", "create", "sync", "rename", "sync_directory", "sqlite write", "sqlite sync"}
        until = stage.world.loop.now + drawn.choice((0.0, 0.5, 2.0))
        rate, failed = drawn.choice((0.2, 1.0)), 0

        def call(name: str, path: str) -> None:
            nonlocal failed
            over = failed > 0 and stage.world.loop.now >= until
            if name in writing and not over and drawn.random() < rate:
                failed += 1
                stage.disturb()
                raise OSError(code, errno.errorcode[code], path)

        node.on_disk_call = call
        await asyncio.sleep(3.0)
        node.on_disk_call = lambda name, path: None
        if failed:
            stage.fired(kind)

    return fail


async def failed_commit_during_sync(stage: Stage, drawn: random.Random) -> None:
    """A commit fails while another instance is being told what this one has."""
    node = _one(stage, drawn)
    if node is None:
        return
    network, struck = stage.world.network, False

    def fail_once(call: str, name: str) -> None:
        nonlocal struck
        if call == "sqlite sync":
            node.on_disk_call = lambda call, name: None
            struck = True
            raise OSError(errno.EIO, "EIO", name)

    def asked(source: str, target: str, path: str) -> None:
        if target == node.name and path.startswith(("/_concord/peer/diffs", "/_concord/peer/changes")):
            node.on_disk_call = fail_once

    network.on_request.append(asked)
    await asyncio.sleep(6)
    network.on_request.remove(asked)
    node.on_disk_call = lambda call, name: None
    if struck:
        stage.fired("failed commit during sync")


async def flipped_bit(stage: Stage, drawn: random.Random) -> None:
    """A bit of a content file on the disk is another one; and for a while, bits of content between instances."""
    node = _one(stage, drawn)
    if node is None or node.disk is None:
        return
    names = [name for name in node.disk.content_names() if node.disk.content_size(name)]
    if names:
        name = drawn.choice(names)
        stage.lost.digests.add(f"sha256:{name.rpartition('/')[2]}")
        node.disk.flip_bit(name, drawn.randrange(8 * node.disk.content_size(name)))
        stage.fired("flipped bit")
    await _rate("flips", "flipped bit on the way", 1.0)(stage, drawn)


async def partition(stage: Stage, drawn: random.Random) -> None:
    """The network falls apart in two."""
    nodes = [node.name for node in stage.world.nodes]
    places = nodes + (stage.world.redis.names if drawn.random() < 0.5 else [])
    one = {place for place in places if drawn.random() < 0.5}
    pairs = [(a, b) for a in places for b in places if (a in one) != (b in one)]
    await _blocked(stage, drawn, pairs, "partition")


async def one_way_partition(stage: Stage, drawn: random.Random) -> None:
    """Nothing gets from some places to others, while the way back is open."""
    places = [node.name for node in stage.world.nodes] + stage.world.redis.names
    pairs = [(a, b) for a in places for b in places if a != b and drawn.random() < 0.3]
    await _blocked(stage, drawn, pairs, "one-way partition")


async def _blocked(stage: Stage, drawn: random.Random, pairs: list[tuple[str, str]], kind: str) -> None:
    weather = stage.world.weather
    for pair in pairs:
        weather.block(*pair)
    before = weather.fired.get("partition", 0)
    await asyncio.sleep(0.5 + 8 * drawn.random())
    for pair in pairs:
        weather.unblock(*pair)
    if weather.fired.get("partition", 0) > before:
        stage.fired(kind)


def _rate(attribute: str, counted: str, highest: float) -> Fault:
    async def strike(stage: Stage, drawn: random.Random) -> None:
        """For a while, something happens to a part of what is sent."""
        weather = stage.world.weather
        setattr(weather, attribute, highest * drawn.random())
        before = weather.fired.get(counted, 0)
        await asyncio.sleep(2 + 6 * drawn.random())
        setattr(weather, attribute, 0.0)
        if weather.fired.get(counted, 0) > before:
            stage.fired(counted)

    return strike


async def slow_place(stage: Stage, drawn: random.Random) -> None:
    """One instance or Redis server answers late."""
    weather = stage.world.weather
    place = drawn.choice([node.name for node in stage.world.nodes] + stage.world.redis.names)
    weather.slow[place] = drawn.choice((0.05, 0.5, 3.0))
    await asyncio.sleep(2 + 5 * drawn.random())
    weather.slow.pop(place, None)
    stage.fired("slow place")


async def stalled_redis(stage: Stage, drawn: random.Random) -> None:
    """One Redis server, or all of them, says nothing for a while."""
    redis = stage.world.redis
    stalled = set(redis.names if drawn.random() < 0.4 else drawn.sample(redis.names, 1))
    redis.stalled |= stalled
    stage.fired("every Redis stalled" if len(stalled) == len(redis.names) else "one Redis of several stalled")
    await asyncio.sleep(1 + 7 * drawn.random())
    redis.stalled -= stalled


async def bus_cut(stage: Stage, drawn: random.Random) -> None:
    """Nobody hears anybody on the bus for a while, and requests get through."""
    redis = stage.world.redis
    await asyncio.sleep(3 * drawn.random())
    redis.stalled |= set(redis.names)
    await asyncio.sleep(4 + 8 * drawn.random())
    redis.stalled.clear()
    stage.fired(BUS_CUT)


async def clock_jump(stage: Stage, drawn: random.Random) -> None:
    """A wall clock shows another time: seconds, hours or ten years off."""
    if node := _one(stage, drawn):
        node.clock_offset_s += drawn.choice((-1, 1)) * drawn.choice((5, 3600, 10 * 365 * 86400))
        stage.fired("clock jump")


async def clock_drift(stage: Stage, drawn: random.Random) -> None:
    """A wall clock goes too fast or too slow."""
    if node := _one(stage, drawn):
        node.clock_rate = drawn.choice((0.5, 0.99, 1.01, 3.0))
        stage.fired("clock drift")


async def clock_stands_still(stage: Stage, drawn: random.Random) -> None:
    """A wall clock does not move for a while."""
    if node := _one(stage, drawn):
        node.stop_clock(True)
        await asyncio.sleep(2 + 5 * drawn.random())
        node.stop_clock(False)
        stage.fired("clock stands still")


async def restored_backup(stage: Stage, drawn: random.Random) -> None:
    """An instance's disk is put back to what it was a while ago."""
    node = _one(stage, drawn)
    if node is None:
        return
    backup = node.backup()
    await asyncio.sleep(1 + 5 * drawn.random())
    if not node.up or len(stage.living()) < 2:
        return
    node.die(False)
    stage.put_back(node)
    node.image = backup
    await asyncio.sleep(0.2 + drawn.random())
    await stage.restart(node)
    stage.fired("restored backup")


async def cloned_directory(stage: Stage, drawn: random.Random) -> None:
    """A copy of an instance's directory is started beside it for a while."""
    node = _one(stage, drawn)
    if node is None:
        return
    stage.lost.doubled = True
    twin = stage.world.add_node(node.site)
    twin.image = node.backup()
    twin.drawn = random.Random(f"{stage.world.seed} {twin.name} twin")
    await twin.start()
    stage.fired("cloned directory")
    await asyncio.sleep(2 + 5 * drawn.random())
    twin.die(False)
    stage.world.nodes.remove(twin)
    stage.world.gone.append(twin)
    stage.put_back(twin)


async def disk_destroyed(stage: Stage, drawn: random.Random) -> None:
    """A machine and its disk are gone as its answer to a push leaves; another one comes in its place. It strikes only
    where pushes are answered when two instances hold them."""
    node = _one(stage, drawn)
    if node is None or "two-copies" not in stage.conditions:
        return
    struck: asyncio.Future[None] = stage.world.loop.create_future()

    def strike(at: Node, operation: Operation) -> None:
        if at is node and operation.kind == "push" and not struck.done():
            operation.status = 201
            stage.put_back(node)
            node.die(True)
            node.image = ({}, dict(stage.world.template))
            struck.set_result(None)

    stage.on_answer.append(strike)
    await asyncio.wait([struck], timeout=10)
    stage.on_answer.remove(strike)
    if struck.done():
        stage.fired("disk destroyed")
        await asyncio.sleep(0.2 + 3 * drawn.random())
        await stage.restart(node)


async def new_instance(stage: Stage, drawn: random.Random) -> None:
    """An instance joins in the middle of everything."""
    if len(stage.world.nodes) < 5:
        node = stage.world.add_node(drawn.choice(stage.world.nodes).site)
        await stage.restart(node)
        stage.fired("new instance")


async def long_absence(stage: Stage, drawn: random.Random) -> None:
    """An instance leaves and comes back when much has happened."""
    node = _one(stage, drawn)
    if node is None:
        return
    node.die(False)
    await asyncio.sleep(12 + 4 * drawn.random())
    await stage.restart(node)
    stage.fired("long absence")


async def new_key(stage: Stage, drawn: random.Random) -> None:
    """The cluster's key is exchanged: the new one is added everywhere, then signs everywhere, then is alone."""
    new = f"another secret {drawn.random()}"
    for secrets in ([SECRET, new], [new, SECRET], [new]):
        stage.world.secrets = secrets
        for node in list(stage.world.nodes):
            node.secrets = secrets
            if node.up:
                node.die(False)
                await stage.restart(node)
            await asyncio.sleep(0.2)
    stage.fired("new key")


async def forged_frames(stage: Stage, drawn: random.Random) -> None:
    """Somebody without the key sends frames that look right."""
    key = ClusterKey("not the cluster's secret").frames._replace(cluster=ClusterKey(SECRET).frames.cluster)
    document, delta, body = _forgery(drawn)
    (writer,) = decode_delta(delta).spans
    payload = encode_change(Change(document, writer, 0, {}, delta, bytes(16), 1, (body,)))
    for sequence in range(5):
        stage.world.redis.inject(seal(Frame(CHANGE, drawn.randbytes(16), 1, sequence + 1, payload), key))
        await asyncio.sleep(drawn.random() * 0.2)
    stage.fired("forged frames")


async def mangled_frames(stage: Stage, drawn: random.Random) -> None:
    """Frames arrive with other bits than were sent."""
    for _ in range(10):
        frame = bytearray(stage.world.redis.last_frame or b"nothing yet")
        for _ in range(drawn.randint(1, 3)):
            bit = drawn.randrange(8 * len(frame))
            frame[bit // 8] ^= 1 << bit % 8
        stage.world.redis.inject(bytes(frame))
        await asyncio.sleep(drawn.random() * 0.2)
    stage.fired("mangled frames")


def _forgery(drawn: random.Random) -> tuple[str, bytes, bytes]:
    """A document, a delta that tags something in it, and the manifest's body."""
    writer, body = drawn.getrandbits(53), b'{"schemaVersion": 2, "manifests": []}'
    facts = [
        tag_fact(FORGED_TAG, digest_of(body), 1 << 60, writer),
        manifest_fact(digest_of(body), OCI_IMAGE, len(body), 1 << 60, writer),
    ]
    delta = encode_delta(writer, 0, [fact.text() for fact in facts], [])
    return f"repository/{drawn.choice(REPOSITORIES)}", delta, body


async def forged_requests(stage: Stage, drawn: random.Random) -> None:
    """Somebody without the key asks instances, and tells them things."""
    document, delta, body = _forgery(drawn)
    bodies = {"updates": msgspec.msgpack.encode(Updates([(document, delta)], {}, [body]))}
    for path in ("session", "updates", "facts", "hello", "upload"):
        node = drawn.choice(stage.world.nodes)
        content = bodies.get(path, b"\x80")
        headers = [
            ("Concord-Session", stage.world.network.sniffed.get(node.name) or "A" * 160),
            ("Concord-Sequence", str(1_000_000 + drawn.randrange(1_000_000))),
            ("Concord-Body", hash_of(content)),
            ("Concord-MAC", "0" * 64),
        ]
        url = f"http://{node.name}/_concord/peer/{path}"
        try:
            async with stage.world.network.request("outside", None, "POST", url, headers, content):
                pass  # whatever is answered, nothing may come of it
        except PeerUnreachable:
            pass
    stage.fired("forged requests")


FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "kill": (kill, ("kill",)),
    "power-cut": (power_cut, ("power cut",)),
    "power-cut-at-answer": (power_cut_at_an_answer, ("power cut at an answer",)),
    "power-cut-at-frame": (power_cut_at_a_frame, ("power cut at a frame",)),
    "power-cut-at-call": (_at_call(True, "power cut at a disk call"), ("power cut at a disk call",)),
    "kill-at-call": (_at_call(False, "kill at a disk call"), ("kill at a disk call",)),
    "hang": (hang, ("hang",)),
    "hang-in-commit": (hang_in_a_commit, ("hang in a commit",)),
    "eio": (_failing(errno.EIO, "EIO"), ("EIO",)),
    "enospc": (_failing(errno.ENOSPC, "ENOSPC"), ("ENOSPC",)),
    "edquot": (_failing(errno.EDQUOT, "EDQUOT"), ("EDQUOT",)),
    "failed-commit": (failed_commit_during_sync, ("failed commit during sync",)),
    "flipped-bit": (flipped_bit, ("flipped bit", "flipped bit on the way")),
    "partition": (partition, ("partition",)),
    "one-way": (one_way_partition, ("one-way partition",)),
    "loss": (_rate("loss", "lost frame", 0.5), ("lost frame",)),
    "duplication": (_rate("duplication", "frame twice", 0.5), ("frame twice",)),
    "reorder": (_rate("jitter_s", "frames out of order", 0.3), ("frames out of order",)),
    "reset": (_rate("resets", "refused connection", 0.2), ("refused connection",)),
    "reset-in-body": (_rate("body_resets", BODY_BROKEN, 1.0), (BODY_BROKEN,)),
    "slow": (slow_place, ("slow place",)),
    "stalled-redis": (stalled_redis, ("every Redis stalled", "one Redis of several stalled")),
    "bus-cut": (bus_cut, (BUS_CUT,)),
    "clock-jump": (clock_jump, ("clock jump",)),
    "clock-drift": (clock_drift, ("clock drift",)),
    "clock-still": (clock_stands_still, ("clock stands still",)),
    "backup": (restored_backup, ("restored backup",)),
    "disk-destroyed": (disk_destroyed, ("disk destroyed",)),
    "clone": (cloned_directory, ("cloned directory",)),
    "join": (new_instance, ("new instance",)),
    "absence": (long_absence, ("long absence",)),
    "new-key": (new_key, ("new key",)),
    "forged-frames": (forged_frames, ("forged frames",)),
    "mangled-frames": (mangled_frames, ("mangled frames",)),
    "forged-requests": (forged_requests, ("forged requests",)),
}
"""By the name given on the command line: the fault, and the kinds it counts as."""

BUS_FAULTS = {"loss", "duplication", "stalled-redis", "bus-cut", "forged-frames", "mangled-frames", "forged-requests"}
"""Faults that leave requests alone."""
BUS_KINDS = {kind for name in BUS_FAULTS for kind in FAULTS[name][1]}
