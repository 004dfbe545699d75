"""Key rotation, and outsiders who do not have the key."""

import asyncio
import random

import msgspec

from crdt.change import Change, encode_change
from crdt.delta import decode_delta, encode_delta
from crdt.fact import manifest_fact, tag_fact
from crdt.frame import CHANGE, Frame, seal
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.messages import UpdatesRequest
from registry.cluster.rpc.sessions import hash_of
from registry.ports import PeerUnreachable
from simulations.cluster import SECRET
from simulations.faults.target import FORGED_TAG, FaultTarget
from simulations.workload.client import REPOSITORIES
from simulations.workload.images import OCI_IMAGE, digest_of


async def new_key(target: FaultTarget, rng: random.Random) -> None:
    """The cluster's key is exchanged: the new one is added everywhere, then signs everywhere, then is alone."""
    await _exchange_key(target, rng, 0.2)
    target.disturbances.fired("new key")


async def rolling_key(target: FaultTarget, rng: random.Random) -> None:
    """The same as an operator should do it: one instance after the other, with a pause after each."""
    target.disturbances.fired("rolling key")
    await _exchange_key(target, rng, 1.5)


async def _exchange_key(target: FaultTarget, rng: random.Random, pause_s: float) -> None:
    """One exchange after the other: two operators who exchange it at once leave instances with different keys."""
    new = f"another secret {rng.random()}"
    async with target.cluster.exchanging_keys:
        (old,) = target.cluster.secrets
        for secrets in ([old, new], [new, old], [new]):
            target.cluster.secrets = secrets
            for node in list(target.cluster.nodes):
                node.secrets = secrets
                if node.up:
                    node.die(False)
                    await target.lifecycle.restart(node)
                await asyncio.sleep(pause_s)


async def replayed_requests(target: FaultTarget, rng: random.Random) -> None:
    """An eavesdropper sends instances' requests once more, MAC and all."""
    for _ in range(10):
        await asyncio.sleep(rng.random())
        recorded = list(target.cluster.network.recorded)
        if not recorded:
            continue
        url, headers, body = rng.choice(recorded)
        try:
            async with target.cluster.network.request("outside", None, "POST", url, headers, body) as exchange:
                target.disturbances.fired("replayed requests")
                if exchange.status == 200:
                    target.violations.report(f"a recorded request to {url} was answered once more")
        except PeerUnreachable:
            pass


async def forged_frames(target: FaultTarget, rng: random.Random) -> None:
    """An outsider without the key sends frames that look right."""
    key = ClusterKey("not the cluster's secret").frames._replace(cluster=ClusterKey(SECRET).frames.cluster)
    document, delta, body = _forgery(rng)
    (writer,) = decode_delta(delta).spans
    payload = encode_change(Change(document, writer, 0, {}, delta, bytes(16), 1, (body,)))
    for sequence in range(5):
        target.cluster.redis.inject(seal(Frame(CHANGE, rng.randbytes(16), 1, sequence + 1, payload), key))
        await asyncio.sleep(rng.random() * 0.2)
    target.disturbances.fired("forged frames")


async def mangled_frames(target: FaultTarget, rng: random.Random) -> None:
    """Frames arrive with other bits than were sent."""
    for _ in range(10):
        frame = bytearray(target.cluster.redis.last_frame or b"nothing yet")
        for _ in range(rng.randint(1, 3)):
            bit = rng.randrange(8 * len(frame))
            frame[bit // 8] ^= 1 << bit % 8
        target.cluster.redis.inject(bytes(frame))
        await asyncio.sleep(rng.random() * 0.2)
    target.disturbances.fired("mangled frames")


def _forgery(rng: random.Random) -> tuple[str, bytes, bytes]:
    """A document, a delta that tags something in it, and the manifest's body."""
    writer, body = rng.getrandbits(53), b'{"schemaVersion": 2, "manifests": []}'
    facts = [
        tag_fact(FORGED_TAG, digest_of(body), 1 << 60, writer),
        manifest_fact(digest_of(body), OCI_IMAGE, len(body), 1 << 60, writer),
    ]
    delta = encode_delta(writer, 0, [fact.text() for fact in facts], [])
    return f"repository/{rng.choice(REPOSITORIES)}", delta, body


async def forged_requests(target: FaultTarget, rng: random.Random) -> None:
    """An outsider without the key sends requests to instances."""
    document, delta, body = _forgery(rng)
    bodies = {"updates": msgspec.msgpack.encode(UpdatesRequest([(document, delta)], {}, [body]))}
    for path in ("session", "updates", "facts", "handshake", "upload"):
        node = rng.choice(target.cluster.nodes)
        content = bodies.get(path, b"\x80")
        headers = [
            ("Concord-Session", target.cluster.network.sniffed.get(node.name) or "A" * 160),
            ("Concord-Sequence", str(1_000_000 + rng.randrange(1_000_000))),
            ("Concord-Body", hash_of(content)),
            ("Concord-MAC", "0" * 64),
        ]
        url = f"http://{node.name}/_concord/peer/{path}"
        try:
            async with target.cluster.network.request("outside", None, "POST", url, headers, content):
                pass  # whatever is answered, nothing may come of it
        except PeerUnreachable:
            pass
    target.disturbances.fired("forged requests")
