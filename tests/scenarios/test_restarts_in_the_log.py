"""The logs of the other instances after an ordinary restart: that a peer is back, in words, and no exceptions."""

import re

import pytest

from registry.telemetry.events import LogEvent
from tests.support import images
from tests.support.server import running_cluster, wait_until

RAW = re.compile(r"Traceback|\b\w*(?:Error|Exception)\b|errno|\[Errno|<class")


def is_back(server, name):
    return server.logged(LogEvent.MEMBER_RESTARTED, member=name) or server.logged(
        LogEvent.MEMBER_RECOVERED, member=name
    )


@pytest.mark.parametrize("kill", [False, True])
def test_an_ordinary_restart_logs_that_the_peer_is_back_and_no_exceptions(tmp_path, kill):
    with running_cluster(tmp_path, ["eu", "eu", "us"]) as cluster:
        restarted = cluster[1]
        cluster[0].client.push("app", "v1", images.image("before"))
        cluster.wait_agreed()
        name = restarted.status()["instance"]
        restarted.kill() if kill else restarted.stop()
        cluster[0].client.push("app", "v2", images.image("meanwhile"))
        restarted.start()
        cluster.wait_agreed()
        others = [cluster[0], cluster[2]]
        for other in others:
            # On a busy machine a start may take so long that it is presumed dead meanwhile.
            wait_until(lambda other=other: is_back(other, name), 60)
        for server in cluster.servers:
            raw = [line for line in server.log.read_text().splitlines() if RAW.search(line)]
            assert raw == []


def test_a_peer_that_was_away_is_said_to_be_silent_and_to_be_back(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"], with_redis=False) as cluster:
        name = cluster[1].status()["instance"]
        cluster[1].pause()
        (silent,) = wait_until(lambda: cluster[0].logged(LogEvent.MEMBER_PRESUMED_DEAD, member=name), 30)
        cluster[1].resume()
        (back,) = wait_until(lambda: cluster[0].logged(LogEvent.MEMBER_RECOVERED, member=name))
        assert back["silent_s"] >= silent["silent_s"] > 0


def test_a_redis_that_is_away_is_said_in_words(tmp_path):
    with running_cluster(tmp_path, ["eu"]) as cluster:
        cluster.redis.kill()
        (line,) = wait_until(lambda: cluster[0].logged(LogEvent.BUS_DISCONNECTED), 60)
        assert line["error"]
        cluster.redis.start()
        wait_until(lambda: all(cluster[0].status()["bus"].values()), 60)
        assert [line for line in cluster[0].log.read_text().splitlines() if RAW.search(line)] == []
