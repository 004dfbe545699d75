"""Disks with a budget: what others hold makes room, and never a last copy."""

import contextlib

import pytest

from registry.errors import DiskBudgetUsed
from registry.telemetry.events import LogEvent
from tests.scenarios.test_copies import path_of
from tests.support.client import sha256
from tests.support.server import Cluster, wait_until

MIB = 1024 * 1024
PIECES = [bytes([number]) * MIB for number in range(12)]
DIGESTS = [sha256(piece) for piece in PIECES]


@contextlib.contextmanager
def budgeted(directory, *budgets_mib, **settings):
    """A site for each instance, each with a budget in MiB (0: none)."""
    cluster = Cluster(directory, [f"s{number}" for number in range(len(budgets_mib))], **settings)
    for server, budget in zip(cluster.servers, budgets_mib, strict=True):
        server.environment["CONCORD_DISK_BUDGET_GIB"] = str(budget / 1024)
        server._constants = {"registry.cluster.placement.eviction.CHECK_INTERVAL_S": 0.2}
    try:
        yield cluster.start()
    finally:
        cluster.stop()


def held(server):
    return [digest for digest in DIGESTS if path_of(server, digest).exists()]


def get(server, digest):
    answer = server.client.get(f"/v2/app/blobs/{digest}")
    assert answer.status == 200 and sha256(answer.body) == digest


def test_a_proxy_instance_keeps_what_is_used_and_evicts_the_rest(tmp_path):
    with budgeted(tmp_path, 0, 4) as cluster:
        origin, front = cluster.servers
        front.kill()
        front.environment["CONCORD_PROXY_INSTANCE"] = "true"
        front.start()
        for piece in PIECES:
            origin.client.push_blob("app", piece)
        cluster.wait_agreed()
        for digest in DIGESTS:
            get(front, DIGESTS[0])
            get(front, digest)
        wait_until(lambda: len(held(front)) <= 3, 10)
        assert DIGESTS[0] in held(front), "it was used all the time"
        assert len(held(origin)) == len(DIGESTS)
        for digest in DIGESTS:
            get(front, digest)
        status = front.status()["evicted"]
        assert status["bytes"] == status["blobs"] * MIB > 0


def test_two_that_make_room_at_once_never_give_up_the_same_content(tmp_path):
    with budgeted(tmp_path, 0, 0) as cluster:
        one, other = cluster.servers
        for piece in PIECES:
            one.client.push_blob("app", piece)
        cluster.wait_agreed()
        for digest in DIGESTS:
            get(other, digest)
        for server in cluster.servers:
            server.stop()
            server.environment["CONCORD_DISK_BUDGET_GIB"] = str(1 / 1024)
            server.start(wait=False)
        for server in cluster.servers:
            server.wait_ready()
        wait_until(lambda: len(held(one)) + len(held(other)) == len(DIGESTS), 15)
        assert sorted(held(one) + held(other)) == sorted(DIGESTS)
        for digest in DIGESTS:
            get(one, digest)


def test_last_copies_stay_and_pushes_are_refused_instead(tmp_path):
    with budgeted(tmp_path, 3, 0) as cluster:
        small, other = cluster.servers
        for piece in PIECES[:3]:
            small.client.push_blob("app", piece)
        with pytest.raises(AssertionError, match=DiskBudgetUsed.reason):
            small.client.push_blob("app", PIECES[3])
        assert held(small) == DIGESTS[:3]
        for digest in DIGESTS[:3]:
            get(small, digest)
        wait_until(lambda: small.logged(LogEvent.EVICTION_EXHAUSTED))
        other.client.push_blob("app", PIECES[4])
        cluster.wait_agreed()
        get(small, DIGESTS[4])
        assert held(small) == DIGESTS[:3], "it was passed through"
        assert other.client.push_blob("app", PIECES[5])


def test_copies_that_the_policy_asks_for_are_not_evicted(tmp_path):
    with budgeted(tmp_path, 1, 1, copies="2") as cluster:
        for piece in PIECES[:3]:
            for server in cluster.servers:
                with contextlib.suppress(AssertionError):
                    server.client.push_blob("app", piece)
        for digest in held(cluster.servers[0]):
            wait_until(lambda digest=digest: digest in held(cluster.servers[1]), 10)
        with pytest.raises(AssertionError):
            wait_until(lambda: any(server.status()["evicted"]["blobs"] for server in cluster.servers), 2)
