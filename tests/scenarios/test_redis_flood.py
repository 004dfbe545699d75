"""An outsider who may publish on the Redis, without the cluster's key, publishes as fast as Redis takes it."""

import socket
import statistics
import threading
import time

import pytest

from crdt.frame import CHANGE, Frame, FrameKey, seal
from registry.cluster.rpc.keys import ClusterKey
from registry.telemetry.events import LogEvent
from tests.support import images
from tests.support.server import KEY, running_cluster, wait_until

OURS = ClusterKey(KEY)
CHANNEL = f"concord:{OURS.cluster}".encode()
FORGED = seal(Frame(CHANGE, bytes(16), 1, 1, bytes(200)), FrameKey(OURS.frames.cluster, bytes(32)))


class Flood:
    """Publishes one message over and over."""

    def __init__(self, redis, payload, at_once):
        parts = (b"PUBLISH", CHANNEL, payload)
        command = b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._redis, self._batch, self._at_once = redis, command * at_once, at_once
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._publish)
        self.published = 0

    def _publish(self):
        with socket.create_connection((self._redis.host, self._redis.port)) as connection:
            while not self._stopping.is_set():
                connection.sendall(self._batch)
                answered = 0
                while answered < self._at_once:
                    answered += connection.recv(65536).count(b"\r\n")
                self.published += self._at_once

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()


def took_s(ask, expected):
    begun = time.monotonic()
    assert ask().status == expected
    return time.monotonic() - begun


@pytest.mark.parametrize(
    ("payload", "at_once"),
    [(b"x", 256), (FORGED, 256), (bytes(8 << 20), 1), (bytes(48 << 20), 1)],
    ids=["malformed", "forged", "large", "larger than Redis keeps for a subscriber"],
)
def test_flood_without_the_key_neither_fills_logs_nor_holds_up_requests(tmp_path, payload, at_once):
    image = images.image("under the flood", layer_bytes=1000)
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        server, other = cluster.servers
        server.client.push("app", "before", image)
        before_bytes = server.log.stat().st_size
        health_s, pushes_s = [], []
        with Flood(cluster.redis, payload, at_once) as flood:
            until = time.monotonic() + 4
            while time.monotonic() < until:
                health_s.append(took_s(lambda: server.client.get("/healthz"), 200))
                manifest = lambda: server.client.put_manifest("app", "v1", image.body, image.media_type)  # noqa: E731
                pushes_s.append(took_s(manifest, 201))
                time.sleep(0.02)
        print(
            f"{flood.published / 4:.0f} messages/s; /healthz median {statistics.median(health_s) * 1000:.1f} ms, worst "
            f"{max(health_s) * 1000:.0f}; pushes median {statistics.median(pushes_s) * 1000:.1f}, worst "
            f"{max(pushes_s) * 1000:.0f}; log +{server.log.stat().st_size - before_bytes} bytes"
        )
        assert flood.published > 1
        assert statistics.median(health_s) < 0.1 and statistics.median(pushes_s) < 0.3
        assert server.log.stat().st_size - before_bytes < 5000
        rejected = server.logged(LogEvent.BUS_MESSAGES_REJECTED) or server.logged(LogEvent.FRAME_REJECTED)
        assert rejected or at_once == 1, "the log says it, once"
        wait_until(lambda: all(one.status()["bus"][cluster.redis.url] for one in cluster.servers), 20)
        heard = other.status()["frames"].get("heartbeat", 0)
        wait_until(lambda: other.status()["frames"].get("heartbeat", 0) > heard)
        server.client.push("app", "after", image)
        wait_until(lambda: "after" in other.client.tags("app"), 10)
