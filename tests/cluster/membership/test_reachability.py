"""When peers' attempts to reach an instance take its readiness away, and which addresses are shared."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from registry.cluster.membership.members import HEARTBEAT_S, Members
from registry.cluster.membership.reachability import FIRST_CHECK_S, FORGET_S, GRACE_S, LOG_INTERVAL_S, Reachability
from registry.cluster.rpc.messages import Heartbeat, LocateResponse, ReachRequest, ReachResponse
from registry.ports import PeerUnreachable
from simulations.loop import VirtualLoop
from tests.support.stand_ins import RecordedMembership

OWN, NEAR, OTHER, FAR = ("0" * 31 + digit for digit in "1234")
HERE = "http://10.0.0.1:5000"
FAR_URL = "http://10.2.0.1:5000"


def beat(site, advertise, advertise_site="", incarnation=1):
    return Heartbeat(site, advertise, advertise_site, "1", incarnation, 0, 0, bytes(16), {})


class Asked:
    """Peers that answer as they are told to: whether they reach the asker, or None for no answer."""

    def __init__(self):
        self.answers = {}
        self.asked = []

    async def ask_url(self, url, path, question, answer, instance=""):
        assert path == "/reach"
        self.asked.append(instance or url)
        reached = self.answers.get(instance or url)
        if reached is None:
            raise PeerUnreachable("no answer")
        by = instance or OWN if reached != "other" else OTHER
        if url == FAR_URL:
            by = FAR
        via_site = by == FAR and bool(question.advertise_site)
        return ReachResponse(by, reached is True, "" if reached is True else "nobody is there", via_site)


class Bench:
    """An instance that advertises itself, and members that are live."""

    def __init__(self, advertise_site="", addresses=()):
        events = RecordedMembership()
        self.members = Members(OWN, "eu", events)
        self.peers = Asked()
        self._sequence = 0
        self.reachability = Reachability(
            self.members, self.peers, SimpleNamespace(make=lambda: beat("eu", HERE, advertise_site)), list(addresses)
        )
        events.listeners.append(self.reachability)

    def hear(self, *members):
        self._sequence += 1
        for number, (instance, site, *addresses) in enumerate(members):
            at = addresses or [f"http://10.0.1.{number}:5000"]
            self.members.receive_heartbeat(instance, beat(site, *at), self._sequence, on_bus=False)


def virtually(test):
    def run():
        loop = VirtualLoop()
        try:
            loop.run_until_complete(test())
        finally:
            loop.close()

    run.__name__ = test.__name__
    return run


async def check_for(bench, seconds, *members):
    for _ in range(int(seconds / HEARTBEAT_S)):
        bench.hear(*members)
        await bench.reachability.check()
        await asyncio.sleep(HEARTBEAT_S)


@virtually
async def test_an_instance_alone_is_in_no_doubt():
    bench = Bench()
    await bench.reachability.check()
    assert not bench.reachability.is_in_doubt and not bench.reachability.is_unreached


@virtually
async def test_a_start_that_finds_peers_waits_for_their_first_answer_and_not_for_ever():
    bench = Bench()
    bench.hear((NEAR, "eu"))
    assert bench.reachability.is_in_doubt
    bench.peers.answers[NEAR] = True
    await bench.reachability.check()
    assert not bench.reachability.is_in_doubt and bench.reachability.reached_from == NEAR

    silent = Bench()
    silent.hear((NEAR, "eu"))
    await asyncio.sleep(FIRST_CHECK_S + 0.1)
    assert not silent.reachability.is_in_doubt


@virtually
async def test_an_address_that_was_never_reached_is_in_doubt_at_once():
    bench = Bench()
    bench.peers.answers[NEAR] = False
    bench.hear((NEAR, "eu"))
    await bench.reachability.check()
    assert bench.reachability.is_in_doubt and bench.reachability.problem == "nobody is there"


@virtually
async def test_one_peer_that_reaches_it_outweighs_those_that_do_not():
    bench = Bench()
    bench.peers.answers |= {NEAR: False, OTHER: True}
    for _ in range(4):
        bench.hear((NEAR, "eu"), (OTHER, "eu"))
        await bench.reachability.check()
        assert not bench.reachability.is_in_doubt and not bench.reachability.problem


@virtually
async def test_an_address_that_was_reached_may_fail_for_the_grace():
    bench = Bench()
    bench.peers.answers[NEAR] = True
    await check_for(bench, 2, (NEAR, "eu"))
    bench.peers.answers[NEAR] = False
    await check_for(bench, GRACE_S - 2, (NEAR, "eu"))
    assert bench.reachability.is_unreached and not bench.reachability.is_in_doubt
    await check_for(bench, 4, (NEAR, "eu"))
    assert bench.reachability.is_in_doubt
    bench.peers.answers[NEAR] = True
    await check_for(bench, 2, (NEAR, "eu"))
    assert not bench.reachability.is_in_doubt and not bench.reachability.is_unreached


@virtually
async def test_peers_that_answer_no_more_leave_it_ready_as_one_that_is_alone():
    bench = Bench()
    bench.peers.answers[NEAR] = False
    await check_for(bench, 2, (NEAR, "eu"))
    bench.peers.answers[NEAR] = None
    await check_for(bench, FORGET_S - 4, (NEAR, "eu"))
    assert bench.reachability.is_in_doubt
    await check_for(bench, 8, (NEAR, "eu"))
    assert not bench.reachability.is_in_doubt


@virtually
async def test_what_the_instance_says_of_itself_does_not_count():
    bench = Bench(addresses=["http://10.0.0.9:5000"])
    bench.peers.answers |= {NEAR: False, "http://10.0.0.9:5000": True}
    bench.hear((NEAR, "eu"))
    await bench.reachability.check()
    assert bench.reachability.is_in_doubt


@virtually
async def test_an_address_where_members_may_be_is_asked_too():
    bench = Bench(addresses=["http://10.0.0.9:5000"])
    bench.peers.answers["http://10.0.0.9:5000"] = "other"
    await bench.reachability.check()
    assert bench.reachability.is_in_doubt and bench.reachability.problem


@virtually
async def test_what_comes_through_the_site_address_takes_no_readiness_away():
    bench = Bench(advertise_site="http://eu.example")
    bench.peers.answers[FAR] = False
    await check_for(bench, 30, (FAR, "us"))
    assert not bench.reachability.is_in_doubt and bench.reachability.site_problem == "nobody is there"
    bench.peers.answers[FAR] = True
    await check_for(bench, 2, (FAR, "us"))
    assert not bench.reachability.site_problem


@virtually
async def test_another_site_without_site_address_counts():
    bench = Bench()
    bench.peers.answers[FAR] = False
    await check_for(bench, 2, (FAR, "us"))
    assert bench.reachability.is_in_doubt


@virtually
async def test_reachability_far_instance_at_a_configured_address_takes_no_readiness_away():
    """`--peer` at an instance of another site, whose way back is the site's balancer, which waits for readiness."""
    bench = Bench(advertise_site="http://eu.example", addresses=[FAR_URL])
    bench.peers.answers[FAR_URL] = False
    for members in [(), ((FAR, "us", "http://us-1:5000", "http://us.example"),)]:
        await check_for(bench, GRACE_S + 2, *members)
        assert not bench.reachability.is_in_doubt and not bench.reachability.problem
        assert bench.reachability.site_problem == "nobody is there"


@virtually
async def test_reachability_site_address_reached_does_not_stand_for_the_own_address():
    bench = Bench(advertise_site="http://eu.example", addresses=[FAR_URL, "http://10.0.0.9:5000"])
    bench.peers.answers |= {FAR_URL: True, "http://10.0.0.9:5000": "other"}
    await bench.reachability.check()
    assert bench.reachability.is_in_doubt and not bench.reachability.site_problem


@virtually
async def test_reachability_far_members_alone_keep_no_start_waiting():
    bench = Bench(advertise_site="http://eu.example")
    bench.hear((FAR, "us"))
    assert not bench.reachability.is_in_doubt
    bench.hear((FAR, "us"), (NEAR, "eu"))
    assert bench.reachability.is_in_doubt


@pytest.mark.parametrize("leads", [True, False], ids=["reached", "unreached"])
@pytest.mark.parametrize(
    ("site", "advertise_site", "tried"),
    [("us", "http://us.example", "http://us.example"), ("us", "", HERE), ("eu", "http://eu.example", HERE)],
)
def test_attempt_answer_says_which_address_was_tried(site, advertise_site, tried, leads):
    asked = []

    async def ask_url(url, path, question, answer, instance=""):
        asked.append(url)
        if not leads:
            raise PeerUnreachable("nobody is there")
        return LocateResponse(None)

    @virtually
    async def test():
        bench = Bench()
        bench.peers.ask_url = ask_url
        answer = await bench.reachability.attempt(FAR, ReachRequest(site, HERE, advertise_site))
        assert asked == [tried]
        assert (answer.reached, answer.via_site) == (leads, tried != HERE)

    test()


@virtually
async def test_a_reached_address_costs_one_request_a_check():
    bench = Bench()
    bench.peers.answers |= dict.fromkeys((NEAR, OTHER), True)
    for _ in range(4):
        bench.hear((NEAR, "eu"), (OTHER, "eu"))
        await bench.reachability.check()
    assert sorted(bench.peers.asked) == [NEAR, NEAR, OTHER, OTHER]


def test_an_unreached_address_is_logged_once_a_minute(caplog):
    @virtually
    async def test():
        bench = Bench()
        bench.peers.answers[NEAR] = False
        await check_for(bench, LOG_INTERVAL_S - 10, (NEAR, "eu"))
        assert len(caplog.records) == 1
        await check_for(bench, 20, (NEAR, "eu"))
        assert len(caplog.records) == 2

    with caplog.at_level(logging.ERROR):
        test()


# Shared addresses


SHARED = {
    "two members": [(NEAR, "eu", "http://a"), (OTHER, "eu", "http://a")],
    "the own one": [(NEAR, "eu", HERE)],
    "sites without site addresses": [(NEAR, "eu", "http://a"), (FAR, "us", "http://a")],
    "two behind one site address": [(OTHER, "us", "http://a", "http://us"), (FAR, "us", "http://a", "http://us")],
}
APART = {
    "private addresses of two sites": [(NEAR, "eu", "http://a"), (FAR, "us", "http://a", "http://us")],
    "one site address": [(OTHER, "us", "http://a", "http://us"), (FAR, "us", "http://b", "http://us")],
    "different ones": [(NEAR, "eu", "http://a"), (OTHER, "eu", "http://b")],
}


@pytest.mark.parametrize("members", SHARED.values(), ids=SHARED)
def test_addresses_of_several_instances_are_found_and_logged_once_when_they_last(members, caplog):
    @virtually
    async def test():
        bench = Bench()
        bench.hear(*members)
        bench.reachability.shared.look()
        assert len(bench.reachability.shared.found) == 1 and not caplog.records
        for _ in range(3):
            bench.reachability.shared.look()
        assert len(caplog.records) == 1

    test()


@pytest.mark.parametrize("members", APART.values(), ids=APART)
def test_addresses_that_lead_to_one_instance_each_are_not_shared(members):
    @virtually
    async def test():
        bench = Bench()
        bench.hear(*members)
        bench.reachability.shared.look()
        assert bench.reachability.shared.found == {}

    test()
