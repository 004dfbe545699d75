"""Instances whose advertised address leads nowhere, or to another instance."""

import pytest

from registry.telemetry.events import LogEvent
from tests.scenarios.test_wrong_key import figure, is_ready
from tests.support.logs import log_lines
from tests.support.server import free_port, running_cluster, wait_until


@pytest.fixture(params=[True, False], ids=["with-redis", "without-redis"])
def three(request, tmp_path):
    with running_cluster(tmp_path, ["eu", "eu", "eu"], with_redis=request.param) as cluster:
        yield cluster


def restart(server, **settings):
    server.stop()
    for name, value in settings.items():
        server.environment[f"CONCORD_{name.upper()}"] = value
    server.start(wait=False)


def address_of(server):
    try:
        return server.status()["address"]
    except OSError:
        return {"problem": "", "site_problem": "", "reachable": None}


def joins_and_is_not_ready(server):
    """Return whether it is not ready for its address, not because it has just started."""
    wait_until(lambda: has_joined(server), 45)
    return is_ready(server) is False


def has_joined(server):
    """Return whether it has joined since its last start."""
    events = [line["event"] for line in log_lines(server.log.read_text()) if "event" in line]
    last_start = len(events) - events[::-1].index(str(LogEvent.INSTANCE_STARTED))
    return str(LogEvent.JOIN_COMPLETED) in events[last_start:]


def shared_at(server):
    return {shared["address"]: set(shared["instances"]) for shared in server.status()["shared_addresses"]}


def test_an_instance_that_nobody_reaches_at_its_address_is_not_ready_and_says_why(three):
    first, second, third = three.servers
    nowhere = f"http://127.0.0.1:{free_port()}"
    restart(third, advertise=nowhere)
    problem = wait_until(lambda: address_of(third)["problem"])
    assert nowhere in problem and joins_and_is_not_ready(third)
    assert third.status()["address"]["reachable"] is False and figure(third, "address_unreachable") == 1
    assert third.logged(LogEvent.ADDRESS_UNREACHABLE, address=nowhere)
    for server in (first, second):
        assert is_ready(server), "one wrong address does not take its neighbours out"
        assert server.status()["address"]["reachable"] is True and figure(server, "address_unreachable") == 0

    restart(third, advertise=third.url)
    third.wait_ready()
    wait_until(lambda: address_of(third)["reachable"])
    assert figure(third, "address_unreachable") == 0


def test_an_instance_that_advertises_the_address_of_another_is_not_ready_and_all_warn(three):
    first, second, third = three.servers
    ids = [server.status()["instance"] for server in three.servers]
    restart(third, advertise=first.url)
    problem = wait_until(lambda: address_of(third)["problem"])
    assert f"another instance than {ids[2]} answers at {first.url}" in problem and joins_and_is_not_ready(third)
    for server in three.servers:
        wait_until(lambda server=server: shared_at(server).get(first.url) == {ids[0], ids[2]})
        assert figure(server, "addresses_shared") == 1
        wait_until(
            lambda server=server: server.logged(LogEvent.SHARED_ADDRESS_DETECTED, address=first.url, count=2), 30
        )
    assert is_ready(first) and is_ready(second)


def test_instances_that_all_advertise_a_wrong_address_are_all_not_ready(tmp_path):
    """They find each other by --peer, and could not fetch anything from each other."""
    with running_cluster(tmp_path, ["eu", "eu"], with_redis=False) as cluster:
        for server in cluster.servers:
            server.stop()
        for server in cluster.servers:
            server.environment["CONCORD_ADVERTISE"] = "http://127.0.0.1:1"
            server.start(wait=False)
        for server in cluster.servers:
            wait_until(lambda server=server: address_of(server)["problem"])
            assert joins_and_is_not_ready(server)


def test_an_instance_alone_is_ready_whatever_it_advertises(tmp_path):
    with running_cluster(tmp_path, ["eu"], advertise="http://127.0.0.1:1") as cluster:
        assert is_ready(cluster[0]) and cluster[0].status()["address"]["reachable"] is None


def test_a_site_address_that_leads_nowhere_is_shown_and_keeps_nobody_from_being_ready(tmp_path):
    """Its balancer may wait for the instance to be ready."""
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        eu, us = cluster.servers
        nowhere = f"http://127.0.0.1:{free_port()}"
        restart(eu, advertise_site=nowhere)
        eu.wait_ready()
        assert nowhere in wait_until(lambda: address_of(eu)["site_problem"])
        assert is_ready(eu) and figure(eu, "site_address_unreachable") == 1
        assert eu.logged(LogEvent.SITE_ADDRESS_UNREACHABLE, address=nowhere)
        assert is_ready(us)


def test_only_instance_of_a_site_with_a_far_peer_becomes_ready_behind_a_balancer_that_waits_for_it(tmp_path):
    """The peer is asked at its own address and comes back through the balancer, which is empty until then."""
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        eu, us = cluster.servers
        nowhere = f"http://127.0.0.1:{free_port()}"
        restart(us, advertise_site=us.url)
        us.wait_ready()
        restart(eu, advertise_site=nowhere, peer=us.url)
        assert nowhere in wait_until(lambda: address_of(eu)["site_problem"])
        eu.wait_ready()
        assert not address_of(eu)["problem"] and figure(eu, "address_unreachable") == 0
        assert not eu.logged(LogEvent.ADDRESS_UNREACHABLE)
