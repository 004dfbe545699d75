"""Reading content that is checked, and taking damaged content out of use, on a disk that is watched and fails."""

import asyncio
import errno

import pytest

from registry.catalog.content import find_content
from registry.errors import StorageFailed
from registry.storage import quarantine as quarantine_module
from registry.storage.checked import Corrupt, VerifiedFile
from registry.storage.quarantine import Quarantine
from registry.storage.store import content_path
from tests.storage.test_uploads import APP, CONTENT, DIGEST, Site, body

MIB = 1024 * 1024


@pytest.fixture
async def site(tmp_path):
    opened = await Site(tmp_path / "data").open()
    await opened.uploads.finish("u1", APP, DIGEST, body(CONTENT), None)
    opened.disk.calls.clear()
    return opened


def path(site):
    return site.disk.root / content_path(DIGEST)


def flip(site, at):
    content = bytearray(path(site).read_bytes())
    content[at] ^= 1
    path(site).write_bytes(content)


def kept(site):
    return sorted((site.disk.root / "quarantine").iterdir())


async def checked(site, offset, size):
    file = VerifiedFile(site.store.open(DIGEST), find_content(site.catalog.database, DIGEST))
    return b"".join([piece async for piece in file.read(offset, size)])


@pytest.mark.parametrize(
    ("offset", "size"), [(0, len(CONTENT)), (0, 1), (MIB - 1, 2), (MIB, MIB), (2_400_000, 100_000)]
)
async def test_checked_reads_answer_what_is_asked_for(site, offset, size):
    assert await checked(site, offset, size) == CONTENT[offset : offset + size]


async def test_a_range_is_checked_where_it_touches_and_nowhere_else(site):
    flip(site, MIB + 5)
    assert await checked(site, 0, MIB) == CONTENT[:MIB]
    assert await checked(site, 2 * MIB, 10) == CONTENT[2 * MIB : 2 * MIB + 10]
    for offset, size in [(0, MIB + 1), (MIB + 100, 1), (2 * MIB - 1, 2)]:
        with pytest.raises(Corrupt) as damage:
            await checked(site, offset, size)
        assert damage.value.offset == MIB


async def test_a_file_that_is_too_short_or_cannot_be_read_is_damaged(site, monkeypatch):
    path(site).write_bytes(CONTENT[:-1])
    with pytest.raises(Corrupt):
        await checked(site, 0, len(CONTENT))

    def failing(*arguments):
        raise OSError(errno.EIO, "EIO")

    file = VerifiedFile(site.store.open(DIGEST), find_content(site.catalog.database, DIGEST))
    monkeypatch.setattr(file._file, "pread", failing)
    with pytest.raises(Corrupt):
        file.span(0)


async def test_what_is_damaged_is_moved_aside_and_its_row_goes_first(site):
    flip(site, 5)
    aside = await Quarantine(site.store, site.catalog.database).add(DIGEST, Corrupt(5, "seen"))
    assert aside.row.size == len(CONTENT)
    assert aside.quarantined_copy.span(MIB) == CONTENT[MIB : 2 * MIB], "what is right in it can still be read"
    assert [call for call, _ in site.disk.calls] == ["commit", "rename", "sync_directory"]
    assert not path(site).exists()
    assert site.store.held_size(DIGEST) is None
    assert [file.name for file in kept(site)] == [f"00000001-{DIGEST.replace(':', '-')}"]


async def test_what_is_right_at_a_second_look_stays(site):
    quarantine = Quarantine(site.store, site.catalog.database)
    assert await quarantine.add(DIGEST, Corrupt(5, "seen before it was pushed again")) is None
    assert path(site).read_bytes() == CONTENT
    assert site.store.held_size(DIGEST) == len(CONTENT)
    assert (kept(site), quarantine.found) == ([], 0)


async def test_content_whose_file_is_gone_is_not_here(site):
    path(site).unlink()
    aside = await Quarantine(site.store, site.catalog.database).add(DIGEST, Corrupt(0, "missing"))
    assert aside.quarantined_copy is None
    assert site.store.held_size(DIGEST) is None


async def test_a_push_and_putting_aside_never_mix(site):
    """The pushed file would be moved away, or its row be dropped, if one began between the two steps of the other."""
    for turn in range(6):
        flip(site, 5)
        quarantine = Quarantine(site.store, site.catalog.database)
        pushing = site.uploads.finish(f"again{turn}", APP, DIGEST, body(CONTENT), None)
        aside = quarantine.add(DIGEST, Corrupt(5, "seen"))
        await asyncio.gather(*((pushing, aside) if turn % 2 else (aside, pushing)))
        assert path(site).read_bytes() == CONTENT
        assert site.store.held_size(DIGEST) == len(CONTENT)


async def test_whoever_puts_aside_holds_the_lock_under_which_files_come_to_their_place(site):
    flip(site, 5)
    async with site.store.changing(DIGEST):
        aside = asyncio.create_task(Quarantine(site.store, site.catalog.database).add(DIGEST, Corrupt(5, "seen")))
        pushing = asyncio.create_task(site.uploads.finish("again", APP, DIGEST, body(CONTENT), None))
        await asyncio.wait([aside, pushing], timeout=0.3)
        assert not aside.done() and not pushing.done()
        assert "rename" not in [call for call, _ in site.disk.calls]
    await asyncio.gather(aside, pushing)


async def test_damaged_content_is_not_here_even_when_the_catalog_cannot_be_told(site):
    flip(site, 5)
    site.disk.failing["commit"] = errno.EIO
    with pytest.raises(StorageFailed):
        await Quarantine(site.store, site.catalog.database).add(DIGEST, Corrupt(5, "seen"))
    assert path(site).exists()
    assert site.store.held_size(DIGEST) is None
    site.disk.failing.clear()
    await site.uploads.finish("again", APP, DIGEST, body(CONTENT), None)
    assert site.store.held_size(DIGEST) == len(CONTENT)


async def test_quarantine_keeps_the_newest_files_up_to_a_number_and_a_size(site, monkeypatch):
    monkeypatch.setattr(quarantine_module, "MAX_FILES", 4)
    quarantine = Quarantine(site.store, site.catalog.database)

    async def put_aside_again(turn):
        flip(site, 5)
        (await quarantine.add(DIGEST, Corrupt(5, "seen"))).quarantined_copy.close()
        await site.uploads.finish(f"again{turn}", APP, DIGEST, body(CONTENT), None)

    for turn in range(6):
        await put_aside_again(turn)
    assert [file.name[:8] for file in kept(site)] == ["00000003", "00000004", "00000005", "00000006"]
    monkeypatch.setattr(quarantine_module, "MAX_BYTES", 2 * len(CONTENT))
    await put_aside_again(6)
    assert [file.name[:8] for file in kept(site)] == ["00000006", "00000007"]
