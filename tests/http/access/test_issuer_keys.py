"""The keys of identity providers: when they are fetched, and how long they count."""

import asyncio
import json
from contextlib import suppress

import pytest

from registry.adapters.disk import SystemDisk
from registry.errors import IssuerUnavailable
from registry.http.access import issuer_keys
from registry.http.access.issuer_keys import DIRECTORY, IssuerKeys, NoKeySource
from registry.ports import IssuerUnreachable
from tests.support.issuer import Issuer, key
from tests.support.seams import StillClock, WatchedDisk

HOUR_MS, MINUTE_MS = 3600_000, 60_000


class Source:
    """A source of the keys of one issuer, which counts the fetches."""

    def __init__(self) -> None:
        self.issuer, self.fetched, self.is_down, self.most_at_once = Issuer(), [], False, 0
        self._at_once = 0

    async def fetch(self, issuer):
        self.fetched.append(issuer)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(0.01)
        self._at_once -= 1
        if self.is_down:
            raise IssuerUnreachable("it is down")
        return self.issuer.key_set()


class Setting:
    def __init__(self, directory):
        self.disk, self.clock, self.source = SystemDisk(directory), StillClock(), Source()
        self.restart()

    def restart(self):
        self.keys = IssuerKeys(self.source, self.disk, self.clock)

    async def has(self, key_id="one", issuer="https://issuer.example"):
        return (await self.keys.key_set(issuer, key_id)).has(key_id)

    @property
    def fetches(self):
        return len(self.source.fetched)


@pytest.fixture
def at(tmp_path):
    return Setting(tmp_path)


async def test_keys_are_fetched_once_an_hour(at):
    for minute in range(0, 60, 5):
        assert await at.has() and at.fetches == 1, minute
        at.clock.at_ms += 5 * MINUTE_MS
    assert await at.has() and at.fetches == 2


async def test_a_key_that_its_issuer_withdraws_ends_within_the_hour(at):
    at.source.issuer.keys = [key("one"), key("two")]
    assert await at.has("two")
    at.source.issuer.keys = [key("one")]
    at.clock.at_ms += HOUR_MS
    assert not await at.has("two")


async def test_an_unknown_key_is_asked_for_once_a_minute(at):
    assert await at.has() and at.fetches == 1
    at.source.issuer.keys = [key("two")]
    assert not await at.has("two") and at.fetches == 1, "a minute has not passed"
    at.clock.at_ms += MINUTE_MS
    assert await at.has("two") and at.fetches == 2
    at.clock.at_ms += MINUTE_MS
    for number in range(50):
        assert not await at.has(f"unknown {number}")
    assert at.fetches == 3


async def test_a_failed_attempt_counts_as_one(at):
    at.source.is_down = True
    for _ in range(5):
        with pytest.raises(IssuerUnavailable) as error:
            await at.has()
        assert error.value.retry_after_s == 60
    assert at.fetches == 1
    at.source.is_down = False
    at.clock.at_ms += MINUTE_MS
    assert await at.has() and at.fetches == 2


async def test_cached_keys_count_for_a_day_while_the_issuer_is_down(at):
    assert await at.has()
    at.source.is_down = True
    for _ in range(23):
        at.clock.at_ms += HOUR_MS
        assert await at.has()
    at.clock.at_ms += HOUR_MS - 1
    assert await at.has()
    at.clock.at_ms += 1
    with pytest.raises(IssuerUnavailable):
        await at.has()
    at.clock.at_ms += MINUTE_MS
    at.source.is_down = False
    assert await at.has()


async def test_cached_keys_survive_a_restart(at):
    assert await at.has()
    at.source.is_down = True
    at.restart()
    assert await at.has() and at.fetches == 1
    at.clock.at_ms += 24 * HOUR_MS
    at.restart()
    with pytest.raises(IssuerUnavailable):
        await at.has()


async def test_keys_from_the_future_are_fetched_again(at):
    """A clock that was set back does not make keys count for longer."""
    assert await at.has()
    at.clock.at_ms -= 2 * MINUTE_MS
    at.restart()
    assert await at.has() and at.fetches == 2


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"{}", b'{"issuer": "https://issuer.example", "fetched_ms": 1, "keys": 1}']
)
async def test_a_damaged_file_counts_as_none(at, tmp_path, damage):
    assert await at.has()
    (file,) = (tmp_path / DIRECTORY).iterdir()
    file.write_bytes(damage)
    at.restart()
    assert await at.has() and at.fetches == 2
    assert json.loads(file.read_bytes())["issuer"] == "https://issuer.example"


async def test_the_file_of_another_issuer_does_not_count(at, tmp_path):
    assert await at.has()
    (file,) = (tmp_path / DIRECTORY).iterdir()
    stored = json.loads(file.read_bytes())
    file.write_text(json.dumps(stored | {"issuer": "https://evil.example"}))
    at.restart()
    assert await at.has() and at.fetches == 2


async def test_a_disk_that_takes_no_write_costs_the_cache_alone(tmp_path):
    at = Setting(tmp_path)
    at.disk = WatchedDisk(tmp_path)
    at.disk.failing = {"create": 28}
    at.restart()
    assert await at.has() and at.fetches == 1


async def test_one_fetch_of_an_issuer_is_under_way(at):
    assert all(await asyncio.gather(*(at.has() for _ in range(20))))
    assert at.fetches == 1 and at.source.most_at_once == 1
    at.clock.at_ms += HOUR_MS
    await asyncio.gather(*(at.has(f"unknown {number}") for number in range(20)))
    assert at.fetches == 2 and at.source.most_at_once == 1


async def test_a_client_that_goes_away_ends_no_fetch_of_others(at):
    first, second = asyncio.create_task(at.has()), asyncio.create_task(at.has())
    await asyncio.sleep(0.005)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    assert await second and at.fetches == 1


async def test_a_key_set_that_cannot_be_read_counts_as_a_failure(at, monkeypatch):
    assert await at.has()
    monkeypatch.setattr(at.source.issuer, "key_set", lambda: b"<html>")
    at.clock.at_ms += HOUR_MS
    assert await at.has() and at.fetches == 2


async def test_each_issuer_has_keys_of_its_own(at):
    assert await at.has() and await at.has(issuer="https://another.example")
    assert at.source.fetched == ["https://issuer.example", "https://another.example"]


async def test_without_a_source_no_key_is_there(tmp_path):
    keys = IssuerKeys(NoKeySource(), SystemDisk(tmp_path), StillClock())
    with pytest.raises(IssuerUnavailable):
        await keys.key_set("https://issuer.example", "one")
    assert issuer_keys.STALE_MS == 24 * HOUR_MS
