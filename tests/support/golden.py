"""Makes what later versions must still understand: `python -m tests.support.golden` writes tests/golden/VERSION anew.

    data/           the data directory of an instance that was stopped in order
    golden.json     the frames that two instances of a site sent, the questions they asked each other and the answers,
                    what the directory holds, and which fields each message cannot be without

To be run once for each release, with the code of that release, and kept for ever. Never run it for an older one: what
was written then is what counts.
"""

import inspect
import json
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import msgspec
import redis as library

from crdt.frame import HEARTBEAT, unseal
from registry import __version__
from registry.cluster.rpc import messages
from registry.cluster.rpc.client import PeerClient
from registry.cluster.rpc.keys import ClusterKey
from tests.support import images
from tests.support.client import Client
from tests.support.server import KEY, Redis, running_cluster, wait_until

GOLDEN = Path(__file__).parents[1] / "golden"
APP = images.image("golden", layer_bytes=3000)
LIST = images.index(images.image("golden one", layer_bytes=500), images.image("golden two", layer_bytes=500))
SIGNATURE = images.artifact(b"a signature", "application/vnd.example.signature", APP)
GONE = images.image("golden gone", layer_bytes=700)
HALF = b"the first half of an upload"
recorded = None
"""Set in the processes of instances, by `record`."""


def record(path: str) -> bool:
    """Within an instance's process: note every question that it asks, and the answer, in a file."""
    exchange = PeerClient._exchange

    async def recording(self, url, session, asked, parameters, body, answer):
        decoded = await exchange(self, url, session, asked, parameters, body, answer)
        if isinstance(body, bytes):
            entry = {"path": asked, "question": body.hex(), "answer": msgspec.msgpack.encode(decoded).hex()}
            _append(path, json.dumps(entry))
        return decoded

    PeerClient._exchange = recording
    return True


def _append(path: str, line: str) -> None:
    with open(path, "a") as file:
        print(line, file=file)


def classes() -> dict[str, type[msgspec.Struct]]:
    """All messages, by name."""
    found = inspect.getmembers(messages, lambda one: inspect.isclass(one) and issubclass(one, msgspec.Struct))
    return {name: one for name, one in found if one.__module__ == messages.__name__}


def required(message: type[msgspec.Struct]) -> list[str]:
    """The fields that a message cannot be without."""
    return [field.encode_name for field in msgspec.structs.fields(message) if field.required]


class Listener:
    """Collects the frames that go through a Redis."""

    def __init__(self, redis: Redis, site: str) -> None:
        self.frames: list[bytes] = []
        channel = f"concord:{ClusterKey(KEY).cluster}"
        self._subscription = library.Redis.from_url(redis.url).pubsub(ignore_subscribe_messages=True)
        self._subscription.subscribe(channel, f"{channel}:{site}")
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for message in self._subscription.listen():
                self.frames.append(message["data"])
        except library.RedisError:  # the server is killed at the end
            pass

    def has_heartbeats_of(self, instances: int) -> bool:
        frames = [unseal(frame, [ClusterKey(KEY).frames]) for frame in self.frames]
        return len({frame.sender for frame in frames if frame.kind == HEARTBEAT}) == instances


def push_all(client: Client) -> dict:
    """Fill an instance. Return what it holds then."""
    for tag, image in (("v1", APP), ("list", LIST), ("signature", SIGNATURE), ("gone", GONE)):
        client.push("app", tag, image)
    client.push("team/other", "v1", APP)
    assert client.delete(f"/v2/app/manifests/{GONE.digest}").status == 202
    location = client.request("PATCH", client.begin_upload("app"), iter([HALF])).headers["Location"]
    tags = {"app": ["list", "signature", "v1"], "team/other": ["v1"]}
    return {"tags": tags, "gone": GONE.digest, "signed": APP.digest, "upload": location, "half": HALF.decode()}


def make(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        exchanges = Path(scratch) / "exchanges"
        constants = {"tests.support.golden.recorded": f"tests.support.golden.record({str(exchanges)!r})"}
        settings = {"copies": "2", "acknowledge": "2", "constants": constants}
        with running_cluster(Path(scratch), ["eu", "eu"], **settings) as cluster:
            listener = Listener(cluster.redis, "eu")
            first, second = cluster.servers
            said = push_all(first.client)
            first.client.get("/_concord/replication/app/v1")
            cluster.wait_agreed()
            wait_until(lambda: listener.has_heartbeats_of(2))
            cluster.redis.kill()
            second.client.push("app", "without-redis", APP)  # comes by questions alone
            cluster.wait_agreed()
            wait_until(lambda: '"/handshake"' in exchanges.read_text())  # that is not before heartbeats are missed
            said["tags"]["app"].append("without-redis")
            said["root"] = first.root()
            assert first.stop() == 0
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(first.data, target / "data", ignore=shutil.ignore_patterns("lock"))
        entries = [json.loads(line) for line in exchanges.read_text().splitlines()]
        said |= {
            "version": __version__,
            "key": KEY,
            "frames": [frame.hex() for frame in listener.frames],
            "exchanges": list({entry["path"]: entry for entry in entries}.values()),
            "required": {name: required(one) for name, one in classes().items()},
        }
        (target / "golden.json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN / __version__)
