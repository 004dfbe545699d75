"""One site is one registry: what was acknowledged at one instance is what every other one of its site answers.

Each scenario was found by an attacker, or is what a protection of `registry.cluster.replication.site_lease` stands for.
"""

import http.client
import os
import re
import signal
import time
from contextlib import contextmanager

import pytest

from tests.support import images
from tests.support.client import Client
from tests.support.processes import children, owner_of, standing_still
from tests.support.server import Server, running_cluster, wait_until

OLD, NEW = images.image("old", layer_bytes=1000), images.image("new", layer_bytes=1000)
EXCLUSION_S = 2.5
"""The longest time of a write that excludes a member: a second, and what a busy machine adds."""


def shown(server, tag="live", timeout_s=1.0):
    """The digest that a tag has at a server, or None where it does not answer in time."""
    try:
        answer = Client(server.host, server.port, timeout_s=timeout_s).get(f"/v2/app/manifests/{tag}")
    except OSError:
        return None
    return answer.headers["Docker-Content-Digest"] if answer.status == 200 else answer.status


@contextmanager
def hung(server, workers):
    """The primary stands still; its workers, if it has any, do not."""
    with standing_still(owner_of(server) if workers > 1 else server.process.pid):
        yield


def waits(server):
    """Return the number of reads that have waited for the read lease."""
    said = server.client.get("/metrics").body.decode()
    return float(re.search(r"^concord_read_lease_waits_total (.*)$", said, re.MULTILINE)[1])


@pytest.fixture(params=[1, 2], ids=["one-process", "two-processes"])
def workers(request):
    return request.param


@pytest.fixture
def pair(workers, tmp_path):
    with running_cluster(tmp_path, ["eu", "eu"], workers=str(workers)) as cluster:
        cluster[0].client.push("app", "live", OLD)
        cluster.wait_agreed()
        assert shown(cluster[1], timeout_s=20) == OLD.digest
        yield cluster


def test_a_member_whose_primary_hangs_shows_nothing_that_is_out_of_date(pair, workers):
    """Its workers went on answering from committed rows, without bound."""
    with hung(pair[1], workers):
        begun = time.monotonic()
        pair[0].client.push("app", "live", NEW)
        assert time.monotonic() - begun < EXCLUSION_S
        seen = {shown(pair[1], timeout_s=0.5) for _ in range(6)}
        assert seen == {None}
        begun = time.monotonic()
        pair[0].client.push("app", "other", NEW)
        assert time.monotonic() - begun < EXCLUSION_S / 3, "an exclusion is paid for once"
    assert shown(pair[1], timeout_s=20) == NEW.digest


def test_reads_wait_once_for_a_member_that_hangs(pair, workers):
    """They waited again at each of its leases, for as long as it was taken for live."""
    with hung(pair[1], workers):
        pair[0].client.push("app", "live", NEW)
        begun = time.monotonic()
        while time.monotonic() < begun + 4.0:
            assert shown(pair[0], timeout_s=20) == NEW.digest
        assert waits(pair[0]) <= 2, "once, and once more where this machine stalls for longer than a lease"


def test_a_member_whose_primary_hangs_for_a_moment_answers_who_has_asked_meanwhile(pair, workers):
    with hung(pair[1], workers):
        pair[0].client.push("app", "live", NEW)
        resuming = owner_of(pair[1]) if workers > 1 else pair[1].process.pid
        connection = http.client.HTTPConnection(pair[1].host, pair[1].port, timeout=20)
        connection.request("GET", "/v2/app/manifests/live")
        time.sleep(0.3)
        os.kill(resuming, signal.SIGCONT)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.headers["Docker-Content-Digest"] == NEW.digest
        answer.read()
        connection.request("GET", "/v2/app/manifests/live")
        assert connection.getresponse().headers["Docker-Content-Digest"] == NEW.digest
        connection.close()


def test_a_member_that_stood_still_while_a_dead_neighbour_came_back_asks_it_first(pair, workers):
    """It read alone before, and would go on so."""
    pair[0].kill()
    wait_until(lambda: not any(member["live"] for member in pair[1].status()["members"]))
    assert shown(pair[1], timeout_s=20) == OLD.digest
    with hung(pair[1], workers):
        pair[0].start()
        pair[0].client.push("app", "live", NEW)
    assert shown(pair[1], timeout_s=20) == NEW.digest


def test_a_member_that_was_excluded_is_waited_for_again_once_it_answers_reads(pair, workers):
    with hung(pair[1], workers):
        pair[0].client.push("app", "live", NEW)
    wait_until(lambda: shown(pair[1]) == NEW.digest)
    for image in (OLD, NEW) * 5:
        pair[0].client.push("app", "live", image)
        assert shown(pair[1], timeout_s=20) == image.digest


@pytest.fixture
def quiet(workers, tmp_path):
    """Three instances that tell each other of no change: what one lacks it has to ask for."""
    settings = {
        "workers": str(workers),
        "constants": {"registry.cluster.replication.acknowledgements.DIRECT_PUSH_AFTER_S": 600.0},
    }
    with running_cluster(tmp_path, ["eu", "eu", "eu"], with_redis=False, **settings) as cluster:
        cluster[0].client.push("app", "live", OLD)
        cluster.wait_agreed()
        assert [shown(server, timeout_s=20) for server in cluster.servers] == [OLD.digest] * 3
        yield cluster


def test_who_was_excluded_by_an_instance_that_has_restarted_since_catches_up_with_it_first(quiet, workers):
    """The new incarnation does not know which members the last one excluded."""
    with hung(quiet[1], workers):
        quiet[2].kill()
        quiet[0].client.push("app", "live", NEW)
        quiet[0].kill()
        quiet[0].start(wait=False)
        wait_until(lambda: shown(quiet[0]) == NEW.digest)
    assert shown(quiet[1], timeout_s=20) == NEW.digest


def test_who_was_excluded_by_an_instance_that_is_gone_asks_the_others_first(quiet, workers):
    with hung(quiet[1], workers):
        quiet[0].client.push("app", "live", NEW)
        assert shown(quiet[2], timeout_s=20) == NEW.digest
        quiet[0].kill()
    assert shown(quiet[1], timeout_s=20) == NEW.digest


def test_reads_go_on_a_moment_after_a_member_has_died(pair):
    for server, pids in [(server, children(server)) for server in pair.servers]:
        assert shown(server, timeout_s=20) == OLD.digest, pids
    pair[0].kill()
    begun = time.monotonic()
    while shown(pair[1], timeout_s=10) != OLD.digest:
        pass
    assert time.monotonic() - begun < 4.0


@pytest.fixture
def without_redis(workers, tmp_path):
    with running_cluster(tmp_path, ["eu", "eu", "eu"], with_redis=False, workers=str(workers)) as cluster:
        yield cluster


def test_without_redis_every_write_is_seen_by_the_next_read_at_a_neighbour(without_redis):
    """It was seen seconds later, when a round of anti-entropy brought it."""
    cluster, took_s = without_redis, []
    for turn in range(30):
        image, writer = (OLD, NEW)[turn % 2], cluster[turn % 3]
        begun = time.monotonic()
        writer.client.push("app", "live", image)
        took_s.append(time.monotonic() - begun)
        assert [shown(server, timeout_s=20) for server in cluster.servers] == [image.digest] * 3
    cluster[0].client.delete("/v2/app/manifests/live")
    assert [shown(server, timeout_s=20) for server in cluster.servers] == [404] * 3
    assert sorted(took_s)[15] < 0.5, "a write does not wait for a round of anything"


def test_with_redis_gone_for_good_everybody_stays_ready_while_clients_push(workers, tmp_path):
    """All three were not ready most of the time: they learned of each other's changes by heartbeats, and got them by
    rounds of anti-entropy."""
    with running_cluster(tmp_path, ["eu", "eu", "eu"], workers=str(workers)) as cluster:
        cluster[0].client.push("app", "live", OLD)
        cluster.wait_agreed()
        cluster.redis.kill()
        until, answers, turn = time.monotonic() + 12, [], 0
        while time.monotonic() < until:
            turn += 1
            cluster[turn % 3].client.push("app", f"t{turn % 7}", (OLD, NEW)[turn % 2])
            if turn % 5 == 0:
                answers += [server.client.get("/readyz").status for server in cluster.servers]
        assert answers.count(200) >= 0.8 * len(answers) and len(answers) >= 9


def test_an_idle_site_asks_for_no_leases(pair):
    time.sleep(2.0)  # a lease that was just asked for may still be renewed
    before = [server.status()["peer_requests"] for server in pair.servers]
    time.sleep(4.0)
    after = [server.status()["peer_requests"] for server in pair.servers]
    assert sum(after) - sum(before) <= 4, "a message a second at most"


def test_a_newcomer_that_was_told_of_one_member_meets_the_others_before_it_answers_clients(tmp_path):
    """It acknowledged what the members that it had not met did not show."""
    with running_cluster(tmp_path, ["eu", "eu"], with_redis=False) as cluster:
        newcomer = Server(tmp_path / "new", "eu", peers=[cluster[0].url])
        try:
            newcomer.start()
            for turn in range(20):
                newcomer.client.push("app", f"t{turn}", OLD)
                assert [shown(server, f"t{turn}", timeout_s=20) for server in cluster.servers] == [OLD.digest] * 2
        finally:
            newcomer.kill()


def test_who_stood_still_while_a_newcomer_joined_meets_it_before_it_answers_reads(pair, workers, tmp_path):
    newcomer = Server(tmp_path / "new", "eu", redis=[pair.redis.url], workers="1")
    try:
        with hung(pair[1], workers):
            newcomer.start()
            newcomer.client.push("app", "live", NEW)
        assert shown(pair[1], timeout_s=20) == NEW.digest
    finally:
        newcomer.kill()
