"""Which reads are checked, and what is noted of them."""

import asyncio
import threading
from contextlib import suppress

import pytest

from registry.cluster.transfer.blob_reader import BlobReader
from registry.cluster.transfer.transfer import Transfer
from registry.errors import StorageFailed
from registry.oci.names import digest_of
from registry.oci.ranges import ByteRange
from registry.storage.checked import Corrupt
from registry.storage.checks import ContentHashes
from registry.storage.ingest import Ingest
from tests.storage.test_quarantine import MIB, flip
from tests.storage.test_uploads import APP, CONTENT, DIGEST, Site, body

YEAR_S = 365 * 86400
WHOLE = ByteRange(0, len(CONTENT))


@pytest.fixture
async def site(tmp_path):
    opened = await Site(tmp_path / "data").open()
    await opened.uploads.finish("u1", APP, DIGEST, body(CONTENT), None)
    return opened


def contents(site, verify_after_s=3600.0):
    return BlobReader(site.catalog, site.store, None, None, site.clock, verify_after_s)


async def read(contents, part=WHOLE):
    """From this disk, whatever is wrong with it being raised."""
    return b"".join([piece async for piece in contents._held(DIGEST, part)])


def checked_ms(site):
    return site.catalog.database.row("SELECT checked_ms FROM content")[0]


@pytest.mark.parametrize("later_s", [3600, YEAR_S, -1, -YEAR_S])
async def test_a_read_is_checked_when_the_last_check_is_long_ago_or_in_the_future(site, later_s):
    """A clock that was a year ahead for a while must not switch checks off for a year."""
    flip(site, MIB + 5)
    site.clock.at_ms += later_s * 1000
    with pytest.raises(Corrupt):
        await read(contents(site))


async def test_a_read_soon_after_a_check_is_not_checked(site):
    flip(site, MIB + 5)
    site.clock.at_ms += 3599 * 1000
    assert len(await read(contents(site))) == len(CONTENT)


async def test_every_read_is_checked_if_told_so(site):
    flip(site, MIB + 5)
    with pytest.raises(Corrupt):
        await read(contents(site, 0.0))


async def test_a_whole_checked_read_is_noted_and_a_part_is_not(site):
    before = checked_ms(site)
    site.clock.at_ms += 3600 * 1000
    for part in (ByteRange(0, len(CONTENT) - 1), ByteRange(1, len(CONTENT) - 1), ByteRange(MIB, 10)):
        await read(contents(site), part)
        assert checked_ms(site) == before
    assert await read(contents(site)) == CONTENT
    assert checked_ms(site) == site.clock.at_ms


async def test_a_check_made_under_a_clock_that_was_ahead_is_put_right(site):
    site.clock.at_ms -= YEAR_S * 1000
    await read(contents(site))
    assert checked_ms(site) == site.clock.at_ms


async def test_reads_that_are_always_checked_are_not_noted_each_time(site):
    before = checked_ms(site)
    site.clock.at_ms += 60_000
    await read(contents(site, 0.0))
    assert checked_ms(site) == before
    site.clock.at_ms += 3600 * 1000
    await read(contents(site, 0.0))
    assert checked_ms(site) == site.clock.at_ms


async def test_another_instance_is_not_answered_with_what_is_damaged_at_once(site, monkeypatch):
    flip(site, 5)
    asked = contents(site, 0.0)
    monkeypatch.setattr(asked, "_repair", lambda digest, size, quarantined_copy: None)
    assert await asked.open_held(DIGEST, ByteRange(0, 10)) is None
    assert site.store.held_size(DIGEST) is None
    assert asked.quarantine.found == 1


async def test_an_answer_to_another_instance_breaks_off_where_damage_begins(site, monkeypatch):
    flip(site, MIB + 5)
    asked = contents(site, 0.0)
    monkeypatch.setattr(asked, "_repair", lambda digest, size, quarantined_copy: None)
    pieces, received = await asked.open_held(DIGEST, WHOLE), b""
    with pytest.raises(Corrupt):
        async for piece in pieces:
            received += piece
    assert received == CONTENT[:MIB]


async def test_what_the_disk_has_failed_to_make_durable_is_not_read_back(site):
    """All of it had come and was right; after a sync that failed, the file may have something else."""
    transfer = Transfer(DIGEST, len(CONTENT), None)
    transfer.ingest = Ingest(site.disk, site.disk.create("fetch"), ContentHashes(), transfer.moved)
    await transfer.ingest.write(CONTENT)
    await transfer.ingest.flush()
    transfer.verified = True
    pieces = transfer.read(0, len(CONTENT))
    assert await anext(pieces)
    transfer.failure = StorageFailed("the disk failed")
    with pytest.raises(StorageFailed):
        await anext(pieces)


async def test_the_first_bytes_are_read_before_they_are_written(site):
    transfer = Transfer(DIGEST, len(CONTENT), None)
    transfer.ingest = Ingest(site.disk, site.disk.create("fetch"), ContentHashes(), transfer.moved)
    pieces = transfer.read(1, 50)
    waiting = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0)
    transfer.begins(CONTENT[:20])
    assert await waiting == CONTENT[1:20]
    await transfer.ingest.write(CONTENT[:40])
    await transfer.ingest.flush()
    assert await anext(pieces) == CONTENT[20:40]
    transfer.failure = StorageFailed("the disk failed")
    await pieces.aclose()


@pytest.mark.parametrize("part", [ByteRange(0, 1), ByteRange(5, 30)])
async def test_a_range_does_not_end_before_the_whole_is_verified(site, part):
    """It would end cleanly, though the bytes may be wrong."""
    transfer = Transfer(DIGEST, len(CONTENT), None)
    transfer.ingest = Ingest(site.disk, site.disk.create("fetch"), ContentHashes(), transfer.moved)
    await transfer.ingest.write(CONTENT)
    await transfer.ingest.flush()
    received = bytearray()

    async def read():
        async for piece in transfer.read(*part):
            received.extend(piece)

    task = asyncio.ensure_future(read())
    await asyncio.sleep(0.05)
    assert received == CONTENT[part.first : part.end - 1] and not task.done()
    transfer.verified = True
    transfer.moved()
    await task
    assert received == CONTENT[part.first : part.end]
    await transfer.ingest.close()


async def test_first_bytes_that_could_not_be_written_are_hashed(site):
    """They may have been given out: who goes on from another holder could come to a clean end behind wrong bytes."""
    transfer = Transfer(DIGEST, len(CONTENT), None)
    transfer.ingest = Ingest(site.disk, site.disk.create("fetch"), ContentHashes(), transfer.moved)
    transfer.begins(b"wrong bytes")
    hashes = transfer.hashes()
    assert hashes.size == len(b"wrong bytes")
    assert hashes.digest() == digest_of(b"wrong bytes")
    await transfer.ingest.close()


async def test_what_was_read_back_while_a_sync_failed_is_not_given_out(site):
    """The failure was looked at before the read, and not after it."""
    transfer = Transfer(DIGEST, len(CONTENT), None)
    file = site.disk.create("fetch")
    transfer.ingest = Ingest(site.disk, file, ContentHashes(), transfer.moved)
    await transfer.ingest.write(CONTENT)
    await transfer.ingest.flush()
    transfer.verified = True
    reading, goes_on = threading.Event(), threading.Event()

    class Lost:
        """Its pages were dropped when they could not be written back."""

        def pread_nowait(self, offset, size):
            return None

        def pread(self, offset, size):
            reading.set()
            goes_on.wait(5)
            return bytes(size)

        def close(self):
            file.close()

    transfer.ingest.file = Lost()
    received = bytearray()

    async def read():
        async for piece in transfer.read(0, len(CONTENT)):
            received.extend(piece)

    task = asyncio.ensure_future(read())
    await asyncio.to_thread(reading.wait, 5)
    transfer.failure = StorageFailed("the disk failed")
    transfer.moved()
    goes_on.set()
    with suppress(StorageFailed):
        await task
    assert received == b""
