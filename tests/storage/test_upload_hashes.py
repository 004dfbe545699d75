"""Hashing state of uploads: kept while files are closed, taken up again in bounded steps."""

import asyncio
import hashlib
import threading

import pytest

from registry.adapters.disk import SystemFile
from registry.errors import DigestInvalid, StorageFailed
from registry.oci.names import Digest
from registry.storage import upload_hashes
from registry.storage.checks import ContentHashes
from registry.storage.upload_hashes import KeptHashes, OtherHashes
from tests.storage.test_uploads import APP, CONTENT, DIGEST, Site, body

SHA512 = Digest("sha512:" + hashlib.sha512(CONTENT).hexdigest())
WRONG = Digest("sha512:" + "0" * 128)
STEP = 300_000


class Reads:
    """What is read of files, and how many read at once. What is cached is no read, on any file system."""

    def __init__(self, monkeypatch):
        self.sizes, self.at_once, self._now, self._lock = [], 0, 0, threading.Lock()
        pread = SystemFile.pread

        def noted(file, offset, size):
            with self._lock:
                self._now += 1
                self.at_once = max(self.at_once, self._now)
            try:
                data = pread(file, offset, size)
            finally:
                with self._lock:
                    self._now -= 1
            self.sizes.append(len(data))
            return data

        monkeypatch.setattr(SystemFile, "pread", noted)
        monkeypatch.setattr(SystemFile, "pread_nowait", pread)

    def taken(self):
        """What was read since the last time."""
        sizes, self.sizes = self.sizes, []
        return sizes


@pytest.fixture
async def site(tmp_path):
    return await Site(tmp_path / "data").open()


@pytest.fixture
def reads(monkeypatch):
    monkeypatch.setattr(upload_hashes, "STEP_BYTES", STEP)
    return Reads(monkeypatch)


async def let_files_close(site):
    site.clock.at_ms += 100_000
    await site.uploads.tidy()
    assert not site.uploads._sessions


async def test_an_upload_whose_file_was_closed_goes_on_without_being_read(site, reads):
    await site.uploads.append("u1", APP, body(CONTENT[:-20]), None)
    for at in range(20):
        await let_files_close(site)
        assert await site.uploads.append("u1", APP, body(CONTENT[at - 20 : at - 19 or None]), None)
    await let_files_close(site)
    await site.uploads.finish("u1", APP, DIGEST, body(), None)
    assert site.held() and not reads.taken()


async def test_an_upload_after_a_restart_is_read_in_bounded_steps_once(site, reads, tmp_path):
    await site.uploads.append("u1", APP, body(CONTENT[:-2]), None)
    again = await Site(tmp_path / "data").open()
    await again.uploads.append("u1", APP, body(CONTENT[-2:-1]), None)
    sizes = reads.taken()
    assert sum(sizes) == len(CONTENT) - 2 and max(sizes) <= STEP
    await let_files_close(again)
    await again.uploads.finish("u1", APP, DIGEST, body(CONTENT[-1:]), None)
    assert again.held() and not reads.taken()


async def test_many_uploads_after_a_restart_leave_threads_to_others(site, reads, tmp_path):
    for number in range(10):
        await site.uploads.append(f"u{number}", APP, body(CONTENT[:-1]), None)
    again = await Site(tmp_path / "data").open()
    await asyncio.gather(*(again.uploads.append(f"u{n}", APP, body(CONTENT[-1:]), None) for n in range(10)))
    assert 0 < reads.at_once <= upload_hashes.STEPS_AT_ONCE


async def test_a_closed_file_that_is_shorter_than_what_was_acknowledged_is_no_upload_any_more(site):
    await site.uploads.append("u1", APP, body(CONTENT[:-1]), None)
    await let_files_close(site)
    (site.disk.root / "uploads" / "u1").write_bytes(CONTENT[:-2])
    with pytest.raises(StorageFailed):
        await site.uploads.append("u1", APP, body(CONTENT[-1:]), None)


async def test_a_digest_of_another_algorithm_that_is_wrong_again_and_again_is_paid_for_once(site, reads):
    await site.uploads.append("u1", APP, body(CONTENT[:-1000]), None)
    for attempt in range(5):
        with pytest.raises(DigestInvalid):
            await site.uploads.finish("u1", APP, WRONG, body(b"x" * 10), None)
        assert sum(reads.taken()) == (10 if attempt else len(CONTENT) - 1000 + 10)
        await let_files_close(site)
    await site.uploads.append("u1", APP, body(CONTENT[-1000:-1]), None)
    await site.uploads.finish("u1", APP, SHA512, body(CONTENT[-1:]), None)
    assert sum(reads.taken()) == 1000, "what came since is hashed, and no more"
    assert site.catalog.queries.blob(APP, SHA512) is not None


async def test_other_hashes_after_a_request_was_taken_back_go_on_from_before_it(site):
    await site.uploads.append("u1", APP, body(CONTENT[:1000]), None)
    with pytest.raises(DigestInvalid):
        await site.uploads.finish("u1", APP, WRONG, body(b"something else"), None)
    await site.uploads.finish("u1", APP, SHA512, body(CONTENT[1000:]), None)
    assert site.catalog.queries.blob(APP, SHA512) is not None


def test_kept_hashes_are_bounded_and_the_last_ones_stay(monkeypatch):
    monkeypatch.setattr(upload_hashes, "KEPT_BYTES", 10 * upload_hashes.STATE_BYTES)
    kept = KeptHashes()
    for number in range(100):
        kept.keep(f"u{number % 50}", ContentHashes(), OtherHashes())
    assert [kept.take(f"u{number}") is not None for number in range(50)] == [False] * 40 + [True] * 10
    assert kept._bytes == 0 and not kept._kept
