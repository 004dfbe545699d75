"""Uploads on a disk that is watched, and that fails."""

import asyncio
import errno
import hashlib
import random
import tracemalloc

import pytest

from registry.catalog.catalog import Catalog
from registry.catalog.change_sink import Unpublished
from registry.errors import (
    BlobUploadUnknown,
    ChunkOutOfOrder,
    DigestInvalid,
    DiskBudgetUsed,
    DiskFull,
    SizeInvalid,
    StorageFailed,
    TooManyUploads,
)
from registry.oci.names import Digest, Repository
from registry.oci.ranges import ByteRange
from registry.storage.ingest import RESERVE_BYTES
from registry.storage.shared_usage import SharedUsage
from registry.storage.store import BlobStore, content_path
from registry.storage.uploads import ClientGone
from tests.support.seams import StillClock, WatchedDisk
from tests.support.uploads import uploads_alone

APP = Repository("app")
MOST = 20
CONTENT = random.Random(1).randbytes(2_500_000)
DIGEST = Digest("sha256:" + hashlib.sha256(CONTENT).hexdigest())


async def body(*parts: bytes, gone: bool = False):
    for part in parts:
        yield part
    if gone:
        raise ClientGone


async def bytes_of(content: bytes):
    for byte in content:
        yield bytes((byte,))


class Site:
    """A catalog, a store and uploads on a watched disk."""

    def __init__(self, root):
        self.disk, self.clock = WatchedDisk(root), StillClock()

    async def open(self) -> "Site":
        self.catalog = Catalog(self.disk, self.clock)
        await self.catalog.start()
        self.catalog.database.attach(Unpublished())
        self.store = BlobStore(self.disk, self.catalog.database)
        self.store.prepare()
        self.usage = SharedUsage()
        self.uploads = uploads_alone(self.catalog, self.store, self.clock, MOST, self.usage)
        self.uploads.prepare()
        self.disk.calls.clear()
        self.catalog.database._writing.set_commit_hook(lambda: self.disk.note("commit", "") or False)
        return self

    def held(self) -> bool:
        return self.catalog.queries.blob(APP, DIGEST) is not None


@pytest.fixture
async def site(tmp_path):
    return await Site(tmp_path / "data").open()


@pytest.mark.slow
async def test_a_body_that_comes_byte_by_byte_takes_little_more_than_its_size(site):
    tracemalloc.start()
    try:
        await site.uploads.append("u1", APP, bytes_of(CONTENT[:300_000]), None)
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()
    await site.uploads.finish("u1", APP, DIGEST, body(CONTENT[300_000:]), None)
    assert site.held()


async def test_content_is_durable_before_its_name_and_its_name_before_the_catalog_says_so(site):
    await site.uploads.finish("u1", APP, DIGEST, body(CONTENT), None)
    calls = [call for call, _ in site.disk.calls]
    assert calls[0] == "create"
    assert calls[-4:] == ["sync", "rename", "sync_directory", "commit"]
    assert site.disk.calls[-2] == ("sync_directory", content_path(DIGEST).rpartition("/")[0])
    assert site.catalog.database.row("SELECT size, LENGTH(chunk_digests) FROM content") == (len(CONTENT), 3 * 32)


async def test_a_chunk_is_durable_before_it_is_acknowledged(site):
    """An acknowledged chunk's file might have had no durable name."""
    await site.uploads.append("u1", APP, body(CONTENT[:1000]), None)
    assert [call for call, _ in site.disk.calls] == ["create", "append", "sync", "sync_directory", "commit"]
    site.disk.calls.clear()
    await site.uploads.append("u1", APP, body(CONTENT[1000:]), None)
    assert [call for call, _ in site.disk.calls] == ["append", "sync", "commit"], "its name is durable already"


async def test_an_upload_whose_first_body_was_refused_can_be_tried_again_later(site, tmp_path):
    """Its file was left without a row, and blocked its own upload."""
    with pytest.raises(DigestInvalid):
        await site.uploads.finish("u1", APP, DIGEST, body(b"something else"), None)
    site.clock.at_ms += 100_000
    await site.uploads.tidy()
    await site.uploads.finish("u1", APP, DIGEST, body(CONTENT), None)
    assert site.held()


@pytest.mark.parametrize("call", ["create", "append", "sync", "rename", "sync_directory"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
async def test_a_disk_that_fails_fails_the_upload_and_nothing_else(site, call, error):
    other = Digest("sha256:" + hashlib.sha256(b"other").hexdigest())
    await site.uploads.finish("u0", APP, other, body(b"other"), None)
    site.disk.failing[call] = error
    with pytest.raises(StorageFailed):
        await site.uploads.finish("u1", APP, DIGEST, body(CONTENT), None)
    assert not site.held()
    site.disk.failing.clear()
    file = site.store.open(other)
    assert file.pread(0, 10) == b"other"
    await site.uploads.finish("u2", APP, DIGEST, body(CONTENT), None)
    assert site.held()


async def test_a_failed_fsync_is_never_taken_for_good_later(site):
    """The kernel may have dropped the pages: the upload is over, and its bytes are not used again."""
    site.disk.failing["sync"] = errno.EIO
    with pytest.raises(StorageFailed):
        await site.uploads.append("u1", APP, body(CONTENT), None)
    site.disk.failing.clear()
    with pytest.raises(BlobUploadUnknown):
        await site.uploads.finish("u1", APP, DIGEST, body(), None)
    assert not site.held()


async def test_a_wrong_digest_takes_back_what_the_request_brought(site):
    await site.uploads.append("u1", APP, body(CONTENT[:1000]), None)
    with pytest.raises(DigestInvalid):
        await site.uploads.finish("u1", APP, DIGEST, body(b"wrong"), None)
    assert site.uploads.size("u1", APP) == 1000
    await site.uploads.finish("u1", APP, DIGEST, body(CONTENT[1000:]), None)
    assert site.held()


async def test_a_body_of_another_length_than_its_span_is_taken_back(site):
    await site.uploads.append("u1", APP, body(CONTENT[:1000]), None)
    for length in (10, 5000):
        with pytest.raises(SizeInvalid):
            await site.uploads.append("u1", APP, body(CONTENT[1000:3000]), ByteRange(1000, length))
        assert site.uploads.size("u1", APP) == 1000
    await site.uploads.finish("u1", APP, DIGEST, body(CONTENT[1000:]), None)
    assert site.held()


async def test_what_arrived_before_the_client_left_is_kept(site):
    with pytest.raises(ClientGone):
        await site.uploads.append("u1", APP, body(CONTENT[:1_200_000], gone=True), None)
    assert site.uploads.size("u1", APP) == 1_200_000


async def test_an_upload_goes_on_after_a_restart(site, tmp_path):
    await site.uploads.append("u1", APP, body(CONTENT[:1_200_000]), None)
    await site.catalog.database.close()
    again = await Site(tmp_path / "data").open()
    assert again.uploads.size("u1", APP) == 1_200_000
    await again.uploads.finish("u1", APP, DIGEST, body(CONTENT[1_200_000:]), None)
    assert again.held()
    checks = again.catalog.database.row("SELECT chunk_digests FROM content")[0]
    fresh = await Site(tmp_path / "fresh").open()
    await fresh.uploads.finish("u1", APP, DIGEST, body(CONTENT), None)
    assert checks == fresh.catalog.database.row("SELECT chunk_digests FROM content")[0]


async def test_bytes_after_what_was_acknowledged_are_cut_off_at_a_restart(site, tmp_path):
    await site.uploads.append("u1", APP, body(CONTENT[:1000]), None)
    await site.catalog.database.close()
    with (tmp_path / "data" / "uploads" / "u1").open("ab") as file:
        file.write(b"never acknowledged")
    again = await Site(tmp_path / "data").open()
    await again.uploads.finish("u1", APP, DIGEST, body(CONTENT[1000:]), None)
    assert again.held()


async def test_uploads_that_do_not_grow_for_a_day_are_given_up(site):
    for number in range(5):
        await site.uploads.append(f"u{number}", APP, body(b"x"), None)
    site.clock.at_ms += 23 * 3600 * 1000
    await site.uploads.append("u0", APP, body(b"y"), None)
    await site.uploads.tidy()
    assert len(site.disk.names("uploads")) == 5
    for _ in range(2):
        site.clock.at_ms += 2 * 3600 * 1000
        await site.uploads.tidy()
    assert site.disk.names("uploads") == ["u0"]
    with pytest.raises(BlobUploadUnknown):
        site.uploads.size("u1", APP)


async def test_tidy_beside_a_request_at_work_on_an_old_upload_keeps_what_it_brings_and_does_not_wait(site):
    """The row is of the last save: a request of hours looked too old, and what it was answered for was discarded."""
    await site.uploads.append("u1", APP, body(CONTENT[:1000]), None)
    gate = asyncio.Event()

    async def slow():
        yield CONTENT[1000:2000]
        await gate.wait()
        yield CONTENT[2000:3000]

    site.clock.at_ms += int(23.5 * 3600 * 1000)
    patch = asyncio.create_task(site.uploads.append("u1", APP, slow(), None))
    while site.uploads.size("u1", APP) < 2000:
        await asyncio.sleep(0)
    for hours in (1, 2):
        site.clock.at_ms += hours * 3600 * 1000
        await asyncio.wait_for(site.uploads.tidy(), 10)
    gate.set()
    assert await patch == 3000
    await site.uploads.tidy()
    assert site.uploads.has_bytes("u1")
    await site.uploads.finish("u1", APP, DIGEST, body(CONTENT[3000:]), None)
    assert site.held()


async def test_tidy_beside_a_request_that_was_promised_its_turn_does_not_wait_for_it(site):
    """Between two requests the lock is free for a turn of the loop, and already promised."""
    await site.uploads.append("u1", APP, body(CONTENT[:1000]), None)
    session, gate = site.uploads._sessions["u1"], asyncio.Event()

    async def slow():
        await gate.wait()
        yield CONTENT[1000:]

    for hours in (25, 2):
        await session.lock.acquire()
        patch = asyncio.create_task(site.uploads.append("u1", APP, slow(), None))
        await asyncio.sleep(0)
        site.clock.at_ms += hours * 3600 * 1000
        session.lock.release()
        assert not session.lock.locked()
        await asyncio.wait_for(site.uploads.tidy(), 10)
        if hours == 25:
            patch.cancel()
            await asyncio.gather(patch, return_exceptions=True)
            session = site.uploads._sessions.setdefault("u1", site.uploads._found("u1", APP))
    gate.set()
    assert await patch == len(CONTENT)


async def test_a_clock_that_jumps_ends_no_upload_that_goes_on(site, monkeypatch):
    """A wall clock that jumped ahead by more than a day expired all uploads at once. They must now have looked too old
    for an hour of running time as well."""
    started_ms = site.clock.at_ms
    monkeypatch.setattr(site.clock, "steady_s", lambda: steady_s)
    steady_s = 0.0
    for upload in ("goes on", "does not"):
        await site.uploads.append(upload, APP, body(CONTENT[:1000]), None)
    site.clock.at_ms = started_ms + 10 * 365 * 24 * 3600 * 1000
    for size in (1000, 1001):
        await site.uploads.tidy()
        assert site.uploads.size("goes on", APP) == size and site.uploads.has_bytes("does not")
        await site.uploads.append("goes on", APP, body(CONTENT[size : size + 1]), None)
        steady_s += 1800.0
    await site.uploads.tidy()
    assert site.uploads.has_bytes("goes on") and not site.uploads.has_bytes("does not")


async def test_files_nobody_writes_to_are_closed_and_go_on_later(site):
    await site.uploads.append("u1", APP, body(CONTENT[:1000]), None)
    site.clock.at_ms += 120_000
    await site.uploads.tidy()
    assert site.uploads._sessions == {}
    await site.uploads.finish("u1", APP, DIGEST, body(CONTENT[1000:]), None)
    assert site.held()


@pytest.mark.parametrize("harm", ["damaged", "gone"])
async def test_pushing_again_heals_content_that_is_damaged_or_gone(site, harm):
    await site.uploads.finish("u1", APP, DIGEST, body(CONTENT), None)
    file = site.disk.root / content_path(DIGEST)
    file.write_bytes(b"something else") if harm == "damaged" else file.unlink()
    await site.uploads.finish("u2", APP, DIGEST, body(CONTENT), None)
    assert file.read_bytes() == CONTENT
    assert site.disk.names("uploads") == []


async def test_a_commit_that_fails_ends_the_upload_and_links_nothing(site):
    site.disk.failing["commit"] = errno.EIO
    with pytest.raises(StorageFailed):
        await site.uploads.finish("u1", APP, DIGEST, body(CONTENT), None)
    site.disk.failing.clear()
    assert not site.held()
    await site.uploads.finish("u2", APP, DIGEST, body(CONTENT), None)
    assert site.held()


async def test_few_files_stay_open_however_many_uploads_were_begun(site, monkeypatch):
    monkeypatch.setattr("registry.storage.uploads.MAX_IDLE_FILES", 5)
    for number in range(20):
        site.clock.at_ms += 1
        await site.uploads.append(f"u{number:02}", APP, body(b"x"), None)
    assert sum(session.is_open for session in site.uploads._sessions.values()) <= 6
    assert site.usage.upload_bytes == 20, "those that are closed are counted too"
    assert await site.uploads.append("u00", APP, body(b"y"), None) == 2, "a closed one goes on"


async def fill(site, name="u"):
    for number in range(MOST):
        await site.uploads.append(f"{name}{number}", APP, body(CONTENT[:1000]), None)
    assert site.usage.upload_bytes == MOST * 1000


async def test_uploads_when_there_are_as_many_as_there_may_be_preempt_the_one_idle_for_longest(site):
    await fill(site)
    await site.uploads.append("u0", APP, body(b"x"), None)
    await site.uploads.append("more", APP, body(CONTENT), None)
    assert site.usage.uploads == MOST and site.usage.preempted == 1
    assert len(site.disk.names("uploads")) == MOST, "the file of the other one is gone"
    with pytest.raises(BlobUploadUnknown):
        await site.uploads.append("u1", APP, body(b"x"), None)
    assert site.uploads.size("u0", APP) == 1001 and site.uploads.size("u2", APP) == 1000
    await site.uploads.finish("more", APP, DIGEST, body(), None)
    assert site.usage.upload_bytes == (MOST - 1) * 1000 + 1


async def test_uploads_of_the_network_with_the_most_are_preempted_first(site):
    """A client of few uploads loses none of them to one of many, though they are older."""
    await site.uploads.append("victim", APP, body(CONTENT[:1000]), None, "10.0.0.0/24")
    for number in range(3 * MOST):
        site.clock.at_ms += 10
        await site.uploads.append(f"u{number}", APP, body(b"x"), None, "192.0.2.0/24")
    await site.uploads.finish("victim", APP, DIGEST, body(CONTENT[1000:]), None, "10.0.0.0/24")
    assert site.held()


async def test_an_upload_when_all_others_are_at_work_is_refused_and_no_longer_when_they_stall(site):
    """Each holds its place by a request that does not end; a byte now and then is progress."""
    stalled, progress = asyncio.Event(), asyncio.Event()

    async def slow(is_awake):
        yield CONTENT[:1000]
        if is_awake:
            await progress.wait()
            yield CONTENT[1000:]
        await stalled.wait()

    tasks = [
        asyncio.create_task(site.uploads.append(f"u{number}", APP, slow(number == 0), None)) for number in range(MOST)
    ]
    while site.usage.upload_bytes < MOST * 1000:
        await asyncio.sleep(0)
    for _ in range(2):
        with pytest.raises(TooManyUploads) as refused:
            await site.uploads.append("more", APP, body(CONTENT), None)
        with pytest.raises(TooManyUploads):
            site.uploads.check_number()
    error = refused.value
    assert (error.status, error.code, error.retry_after_s) == (429, "TOOMANYREQUESTS", 30)
    assert len(site.disk.names("uploads")) == MOST, "nothing was begun"
    site.clock.at_ms += 10_000
    progress.set()
    while site.usage.upload_bytes < MOST * 1000 + len(CONTENT) - 1000:
        await asyncio.sleep(0)
    site.uploads.check_number()
    await site.uploads.finish("more", APP, DIGEST, body(CONTENT), None)
    with pytest.raises(TooManyUploads) as preempted:
        await tasks[1]
    assert site.usage.preempted == 1, "those at work are counted too"
    assert preempted.value.breaks_off
    stalled.set()
    assert await tasks[0] == len(CONTENT), "what makes progress is not preempted"
    assert [await task for task in tasks[2:]] == [1000] * (MOST - 2)
    assert len(site.disk.names("uploads")) == MOST - 1


async def test_many_new_uploads_at_once_preempt_one_each(site):
    await fill(site)
    await asyncio.gather(*(site.uploads.append(f"new{n}", APP, body(b"x"), None) for n in range(MOST // 2)))
    assert site.usage.uploads == MOST and site.usage.preempted == MOST // 2
    assert all(site.uploads.has_bytes(f"new{n}") for n in range(MOST // 2))


async def test_what_has_ended_or_is_of_another_repository_preempts_nothing(site):
    await site.uploads.append("ended", APP, body(b"x"), None)
    await site.uploads.cancel("ended", APP)
    await fill(site)
    with pytest.raises(BlobUploadUnknown):
        await site.uploads.append("ended", APP, body(b"x"), None)
    await site.uploads.cancel("never begun", APP)
    assert site.usage.uploads == MOST and site.usage.preempted == 0


async def test_uploads_are_counted_again_after_a_restart_and_end_when_they_expire(site, tmp_path):
    await fill(site)
    again = await Site(tmp_path / "data").open()
    again.clock.at_ms = site.clock.at_ms
    assert again.usage.upload_bytes == MOST * 1000
    await again.uploads.append("more", APP, body(CONTENT), None)
    assert again.usage.uploads == MOST
    for hours in (25, 1):
        again.clock.at_ms += hours * 3600 * 1000
        await again.uploads.tidy()
    assert again.usage.upload_bytes == 0 and not again.disk.names("uploads")
    await fill(again, "later")


async def test_asking_about_uploads_takes_no_place(site):
    await fill(site)
    for number in range(10):
        assert site.uploads.size(f"unheard-of-{number}", APP) == 0
    assert site.usage.uploads == MOST and site.usage.preempted == 0


async def test_what_was_refused_or_broken_off_gives_its_place_back(site):
    for number in range(MOST):
        with pytest.raises(DigestInvalid):
            await site.uploads.finish(f"u{number}", APP, DIGEST, body(b"something else"), None)
    site.clock.at_ms += 100_000
    await site.uploads.tidy()
    assert not site.disk.names("uploads"), "nothing of them was acknowledged"
    site.disk.failing["append"] = errno.ENOSPC
    for number in range(2 * MOST):
        with pytest.raises(StorageFailed):
            await site.uploads.append(f"failing-{number}", APP, body(CONTENT), None)
    site.disk.failing.clear()
    assert site.usage.upload_bytes == 0
    await fill(site)


async def test_a_request_that_brings_no_byte_keeps_nothing_and_no_place(site):
    """A row, a file and a place for a day, for each request that was cut before its first byte."""
    for number in range(3):
        with pytest.raises(ClientGone):
            await site.uploads.append(f"cut-{number}", APP, body(gone=True), None)
        with pytest.raises(ChunkOutOfOrder):
            await site.uploads.append(f"misplaced-{number}", APP, body(b"x"), ByteRange(5, 1))
        with pytest.raises(SizeInvalid):
            await site.uploads.append(f"short-{number}", APP, body(), ByteRange(0, 1))
    assert site.usage.uploads == 0 and not site.disk.names("uploads")
    assert site.catalog.database.row("SELECT COUNT(*) FROM uploads") == (0,)
    await site.uploads.finish("cut-0", APP, DIGEST, body(CONTENT), None)
    assert site.held()


async def test_a_client_that_leaves_keeps_the_place_of_what_it_brought(site):
    with pytest.raises(ClientGone):
        await site.uploads.append("u0", APP, body(CONTENT[:1000], gone=True), None)
    assert site.usage.upload_bytes == 1000
    site.clock.at_ms += 100_000
    await site.uploads.tidy()
    assert site.usage.upload_bytes == 1000, "closed, and still there"
    await site.uploads.finish("u0", APP, DIGEST, body(CONTENT[1000:]), None)
    assert site.usage.upload_bytes == 0


async def test_a_body_that_takes_the_last_room_ends_its_upload(site):
    site.uploads._budget.limit_bytes = 1_000_000
    with pytest.raises(DiskBudgetUsed):
        await site.uploads.append("u0", APP, body(*[CONTENT[:100_000]] * 20), None)
    assert site.usage.upload_bytes == 0 and not site.disk.names("uploads")
    await site.uploads.append("u1", APP, body(CONTENT[:100_000]), None)


async def test_a_full_disk_refuses_new_uploads_before_their_first_byte(site, monkeypatch):
    """Clients and balancers go on to another instance where a POST is refused, and no more once it was taken."""
    monkeypatch.setattr(site.disk, "free", lambda: RESERVE_BYTES + 1000)
    site.uploads.check_disk()
    site.uploads.check_disk(1000)
    with pytest.raises(StorageFailed) as refused:
        site.uploads.check_disk(1001)
    assert (refused.value.status, refused.value.detail["free_bytes"]) == (503, RESERVE_BYTES + 1000)
    monkeypatch.setattr(site.disk, "free", lambda: RESERVE_BYTES - 1)
    with pytest.raises(DiskFull):
        site.uploads.check_disk()
