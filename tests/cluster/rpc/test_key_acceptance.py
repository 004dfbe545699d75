"""Which refusals of the cluster key count, and how often they are logged."""

import logging

import pytest

from registry.cluster.rpc.key_acceptance import LOG_INTERVAL_S, KeyAcceptance
from simulations.loop import VirtualLoop

HERE, THERE = "http://10.0.0.1:5000", "http://10.0.0.2:5000"


@pytest.fixture
def acceptance():
    return KeyAcceptance()


def run(work):
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()


def test_a_key_that_nobody_refused_is_not_wrong(acceptance):
    assert not acceptance.is_wrong


def test_a_key_that_is_refused_and_never_accepted_is_wrong(acceptance):
    async def work():
        acceptance.refused(HERE)
        assert acceptance.is_wrong and acceptance.refusing() == [HERE]
        acceptance.accepted(HERE, "ab")
        assert not acceptance.is_wrong and acceptance.refusing() == []

    run(work)


def test_one_acceptance_outweighs_later_refusals(acceptance):
    async def work():
        acceptance.accepted(HERE, "ab")
        acceptance.refused(THERE)
        acceptance.refused(HERE)
        assert not acceptance.is_wrong and acceptance.refusing() == [HERE, THERE]

    run(work)


def test_refusals_of_addresses_that_are_asked_no_more_do_not_count(acceptance):
    async def work():
        acceptance.refused(HERE)
        acceptance.retain([THERE])
        assert not acceptance.is_wrong

    run(work)


def test_a_refusal_that_goes_on_is_logged_once_a_minute(acceptance, caplog):
    import asyncio

    async def work():
        with caplog.at_level(logging.ERROR):
            for _ in range(10):
                acceptance.refused(HERE)
                acceptance.presented("10.0.0.9")
            assert len(caplog.records) == 2
            await asyncio.sleep(LOG_INTERVAL_S + 1)
            acceptance.refused(HERE)
            acceptance.presented("10.0.0.9")
            assert len(caplog.records) == 4

    run(work)
