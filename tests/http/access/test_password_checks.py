"""Checks of passwords: few at once, fair, cached, and throttled by account and network."""

import asyncio
import os
import sys
import threading
import time

import pytest

from registry.access.passwords import hash_password
from registry.access.rights import Credential, CredentialKind
from registry.adapters.hashing_threads import NICENESS, hashing_threads
from registry.errors import TooManyLogins
from registry.http.access import fair_turns, password_checks
from registry.http.access.fair_turns import AT_ONCE, FairTurns
from registry.http.access.password_checks import BURST, FAILURE_S, REFILL_S, Attempt, LocalPasswordChecks
from registry.http.access.verified import BUCKETS, WAYS, SharedTable, VerifiedPasswords
from tests.support.seams import StillClock

RIGHT = Credential("c1", "account", CredentialKind.PASSWORD, hash_password("right"), None)
NETWORK = "192.0.2.0/24"


class Checks:
    """Checks over a clock that stands still, which count the hashes that are computed."""

    def __init__(self, monkeypatch) -> None:
        self.clock, self.revision, self.hashed, self.most_at_once = StillClock(), 1, [], 0
        self._at_once = 0
        self.keys = [b"k" * 32]
        self.table = SharedTable()
        self.verified = VerifiedPasswords(self.table, lambda: self.keys)
        self.local = LocalPasswordChecks(self.clock, self.verified, lambda: self.revision, None)
        monkeypatch.setattr(password_checks, "verify_password", self._verify)

    def _verify(self, hashed, password):
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(0.002)
        self.hashed.append((hashed, password))
        self._at_once -= 1
        return hashed == RIGHT.secret and password == "right"

    async def check(self, password, network=NETWORK, name="alice", credentials=(RIGHT,)):
        return await self.local.check(Attempt(name, password, network), credentials)


@pytest.fixture
def checks(monkeypatch):
    return Checks(monkeypatch)


async def test_a_right_password_is_hashed_once(checks):
    for _ in range(3):
        assert await checks.check("right") == RIGHT
    assert len(checks.hashed) == 1


async def test_requests_that_bring_the_same_password_at_once_share_one_hash(checks):
    assert await asyncio.gather(*(checks.check("right") for _ in range(50))) == [RIGHT] * 50
    assert await asyncio.gather(*(checks.check("wrong") for _ in range(50))) == [None] * 50
    assert len(checks.hashed) == 2


async def test_a_request_that_is_cancelled_leaves_the_hash_to_the_others(checks):
    first, second = (asyncio.create_task(checks.check("right")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == RIGHT


async def test_a_changed_credential_is_hashed_again(checks):
    await checks.check("right")
    checks.revision += 1
    changed = RIGHT._replace(secret=hash_password("other"))
    assert await checks.check("right", credentials=[changed]) is None
    checks.revision += 1
    assert await checks.check("right", credentials=[RIGHT._replace(id="c2")]) is not None
    assert len(checks.hashed) == 3


async def test_a_wrong_password_is_remembered_for_a_while_and_for_one_revision(checks):
    for _ in range(3):
        assert await checks.check("wrong") is None
    assert len(checks.hashed) == 1
    checks.revision += 1
    assert await checks.check("wrong") is None
    assert len(checks.hashed) == 2
    checks.clock.at_ms += int(FAILURE_S * 1000)
    assert await checks.check("wrong") is None
    assert len(checks.hashed) == 3


async def test_an_unknown_account_costs_a_hash_and_matches_nothing(checks):
    assert await checks.check("right", name="stranger", credentials=[]) is None
    assert len(checks.hashed) == 1


async def test_few_hashes_are_computed_at_once(checks):
    await asyncio.gather(*(checks.check(f"wrong {n}", f"10.{n}.0.0/24") for n in range(20)))
    assert checks.most_at_once == AT_ONCE


async def test_guesses_are_throttled_by_account_and_network(checks):
    for number in range(BURST):
        assert await checks.check(f"wrong {number}") is None
    with pytest.raises(TooManyLogins) as refused:
        await checks.check("wrong again")
    assert refused.value.retry_after_s is not None and 1 <= refused.value.retry_after_s <= REFILL_S + 1
    assert await checks.check("right", "198.51.100.0/24") == RIGHT, "the account is not locked"
    with pytest.raises(TooManyLogins):
        await checks.check("right")  # though it is known by now: else guesses would go on there, and the right one show
    assert await checks.check("wrong", name="bob") is None, "another account in that network"
    checks.clock.at_ms += int(REFILL_S * 1000)
    assert await checks.check("wrong again") is None


async def test_guesses_that_are_made_at_once_are_throttled_too(checks):
    outcomes = await asyncio.gather(*(checks.check(f"wrong {n}") for n in range(100)), return_exceptions=True)
    assert len(checks.hashed) == BURST
    assert sum(isinstance(outcome, TooManyLogins) for outcome in outcomes) == 100 - BURST


async def test_right_passwords_are_no_guesses(checks, monkeypatch):
    for number in range(3 * BURST):
        checks.revision += 1
        credential = RIGHT._replace(id=f"c{number}")
        assert await checks.check("right", credentials=[credential]) == credential
    assert len(checks.hashed) == 3 * BURST


async def test_what_is_remembered_is_bounded(checks, monkeypatch):
    monkeypatch.setattr(password_checks, "MAX_FAILURES", 5)
    monkeypatch.setattr(password_checks, "MAX_THROTTLED", 5)
    for number in range(20):
        await checks.check("wrong", name=f"name {number}", credentials=[])
    assert len(checks.local._failures) == len(checks.local._guesses) == 5
    assert not checks.local._under_way


async def test_a_very_long_password_is_not_hashed(checks):
    assert await checks.check("x" * 5000) is None
    assert not checks.hashed


# Turns


async def test_turns_rotate_over_networks(monkeypatch):
    turns, order = FairTurns(), []

    async def take(network, number):
        async with turns.turn(network):
            order.append((network, number))
            await asyncio.sleep(0)

    flood = [asyncio.create_task(take("flood", number)) for number in range(50)]
    await asyncio.sleep(0)
    other = asyncio.create_task(take("other", 0))
    await asyncio.gather(*flood, other)
    assert order.index(("other", 0)) <= 2 * AT_ONCE + 1
    assert [number for network, number in order if network == "flood"] == list(range(50))


async def test_a_client_that_gets_no_turn_is_told_when_to_come_back(monkeypatch):
    monkeypatch.setattr(fair_turns, "WAIT_S", 0.02)
    turns, release = FairTurns(), asyncio.Event()

    async def hold():
        async with turns.turn("a"):
            await release.wait()

    holding = [asyncio.create_task(hold()) for _ in range(AT_ONCE)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyLogins):
        async with turns.turn("b"):
            pass
    cancelled = asyncio.create_task(hold())
    await asyncio.sleep(0)
    cancelled.cancel()
    release.set()
    await asyncio.gather(*holding)
    for _ in range(3):  # no turn is lost
        async with turns.turn("a"), turns.turn("b"):
            pass
    assert not turns._waiting


async def test_waiting_is_bounded(monkeypatch):
    monkeypatch.setattr(fair_turns, "MAX_WAITING", 3)
    turns = FairTurns()
    async with turns.turn("a"), turns.turn("a"):
        waiting = [asyncio.create_task(turns._take("a")) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyLogins):
            await turns._take("a")
        for task in waiting:
            task.cancel()


# The table of verified passwords


def test_the_table_is_shared_and_holds_what_was_added(checks):
    other = VerifiedPasswords(checks.table, lambda: checks.keys)
    assert not other.holds(RIGHT, "right")
    checks.verified.add(RIGHT, "right")
    assert other.holds(RIGHT, "right")
    assert not other.holds(RIGHT, "wrong") and not other.holds(RIGHT._replace(secret="other"), "right")


def test_the_table_forgets_under_another_key(checks):
    checks.verified.add(RIGHT, "right")
    checks.keys = [b"n" * 32]
    assert not checks.verified.holds(RIGHT, "right")


def test_the_table_keeps_thousands_and_forgets_the_oldest(checks):
    for number in range(1000):
        checks.verified.add(RIGHT, f"password {number}")
    assert all(checks.verified.holds(RIGHT, f"password {number}") for number in range(1000))
    for number in range(BUCKETS * WAYS * 3):
        checks.verified.add(RIGHT, f"other {number}")
    assert sum(checks.verified.holds(RIGHT, f"password {number}") for number in range(1000)) < 100
    assert checks.verified.holds(RIGHT, f"other {BUCKETS * WAYS * 3 - 1}")


def test_the_table_holds_no_password_as_it_is(checks):
    checks.verified.add(RIGHT, "a very secret password")
    assert b"secret" not in bytes(checks.table.memory)


def test_threads_that_hash_have_a_low_priority():
    if sys.platform != "linux":
        pytest.skip("threads have priorities of their own on Linux alone")
    with hashing_threads(1) as threads:
        found = threads.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result()
    assert found >= min(os.getpriority(os.PRIO_PROCESS, 0) + 1, NICENESS)
