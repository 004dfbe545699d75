"""Content files without rows are removed, and no other: beside pushes, after failures, with a catalog that is new."""

import asyncio
import errno
import hashlib
import threading

import pytest

from registry.catalog.catalog import Catalog
from registry.errors import StorageFailed
from registry.oci.names import Digest
from registry.storage import content_mark, leftovers
from registry.storage.leftovers import Leftovers, Swept
from registry.storage.shared_usage import SharedUsage
from registry.storage.store import BlobStore, content_path
from registry.telemetry.events import LogEvent
from tests.storage.test_uploads import APP, CONTENT, DIGEST, MOST, body
from tests.support.logs import recorded
from tests.support.seams import StillClock, WatchedDisk
from tests.support.stand_ins import MarkedOnly
from tests.support.uploads import uploads_alone


class Site:
    """A directory with a catalog that has known it from its beginning, unless files are there already."""

    def __init__(self, root):
        self.root, self.disk, self.clock = root, WatchedDisk(root), StillClock()

    async def open(self):
        self.catalog = Catalog(self.disk, self.clock)
        self.store = BlobStore(self.disk, self.catalog.database)
        self.store.prepare()
        self.leftovers = Leftovers(self.store, self.catalog.database)
        await self.leftovers.begin()
        await self.catalog.start()
        self.catalog.database.attach(MarkedOnly(self.leftovers.mark))
        self.uploads = uploads_alone(self.catalog, self.store, self.clock, MOST, SharedUsage())
        return self

    def leave(self, content):
        """A file without a row."""
        path = self.root / content_path(Digest("sha256:" + hashlib.sha256(content).hexdigest()))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture
async def site(tmp_path):
    return await Site(tmp_path / "data").open()


async def test_a_sweep_removes_files_without_rows_and_nothing_else(site):
    await site.uploads.finish("u1", APP, DIGEST, body(CONTENT), None)
    left = [site.leave(b"%d" % number) for number in range(50)]
    others = [left[0].parent / "lost+found", left[0].parent / ("zz" + left[0].name[2:]), left[0].parent.parent / "note"]
    for path in others:
        path.write_bytes(b"of an operator")
    wrong_place = left[0].parent.parent / ("00" if left[0].name[:2] != "00" else "01") / left[0].name
    wrong_place.write_bytes(b"x")
    assert await site.leftovers.sweep() == Swept(50, sum(len(b"%d" % number) for number in range(50)))
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in (*others, wrong_place))
    assert site.store.open(DIGEST).size() == len(CONTENT)
    assert await site.leftovers.sweep() == Swept(0, 0)


async def test_a_sweep_spares_a_file_whose_row_is_on_its_way(site, monkeypatch):
    published, go_on = asyncio.Event(), asyncio.Event()
    publish = site.store.publish

    async def slow(path, digest):
        await publish(path, digest)
        published.set()
        await go_on.wait()

    monkeypatch.setattr(site.store, "publish", slow)
    push = asyncio.create_task(site.uploads.finish("u1", APP, DIGEST, body(CONTENT), None))
    await published.wait()
    sweep = asyncio.create_task(site.leftovers.sweep())
    while not site.store.changing(DIGEST)._waiters:
        await asyncio.sleep(0.001)
    go_on.set()
    await push
    assert await sweep == Swept(0, 0)
    assert site.store.open(DIGEST).size() == len(CONTENT)


async def test_a_sweep_spares_a_file_whose_row_a_cancelled_request_has_left_in_the_queue(site):
    release = threading.Event()
    site.catalog.database._commits.submit(release.wait)
    push = asyncio.create_task(site.uploads.finish("u1", APP, DIGEST, body(CONTENT), None))
    path = site.root / content_path(DIGEST)
    while not path.exists() or not site.catalog.database._committing or site.catalog.database._committing.done():
        await asyncio.sleep(0.001)
    push.cancel()
    await asyncio.sleep(0.01)
    sweep = asyncio.create_task(site.leftovers.sweep())
    await asyncio.sleep(0.3)
    release.set()
    assert await sweep == Swept(0, 0)
    assert site.catalog.queries.blob(APP, DIGEST) is not None and path.exists()
    await asyncio.gather(push, return_exceptions=True)


async def test_what_a_failed_commit_left_is_removed_after_the_next_start_only(site):
    """Its row may be found by the next start, and must not be without its file then."""
    left = site.leave(b"left")
    site.catalog.database._writing.set_commit_hook(lambda: True)
    with pytest.raises(StorageFailed):
        await site.uploads.finish("u1", APP, DIGEST, body(CONTENT), None)
    site.catalog.database._writing.set_commit_hook(None)
    assert await site.leftovers.sweep() == Swept(0, 0) and left.exists()
    await site.catalog.database.close()
    again = await Site(site.root).open()
    assert (await again.leftovers.sweep()).files == 2 and not left.exists()


async def test_a_new_catalog_in_a_directory_with_content_removes_nothing_ever(site, tmp_path, caplog):
    """Whose catalog is lost has its content still, for concord rebuild."""
    await site.uploads.finish("u1", APP, DIGEST, body(CONTENT), None)
    await site.catalog.database.close()
    for file in site.root.glob("catalog.sqlite*"):
        file.unlink()
    for _ in range(2):
        again = await Site(site.root).open()
        assert await again.leftovers.sweep() == Swept(0, 0)
        assert (site.root / content_path(DIGEST)).exists()
        await again.catalog.database.close()
    assert len(recorded(caplog.records, LogEvent.CATALOG_LOSS_DETECTED)) == 1


async def test_sweep_with_an_older_catalog_put_back_removes_nothing_ever(tmp_path, caplog):
    """The older catalog has known all files from its beginning too, as far as it knows."""
    site = await Site(tmp_path / "data").open()
    saved = {}

    async def push_then_save(name, contents):
        for content in contents:
            digest = Digest("sha256:" + hashlib.sha256(content).hexdigest())
            await site.uploads.finish(content.hex(), APP, digest, body(content), None)
        await stop(site)
        saved[name] = {file.name: file.read_bytes() for file in site.root.glob("catalog.sqlite*")}

    async def put_back(name):
        for file in site.root.glob("catalog.sqlite*"):
            file.unlink()
        for file, content in saved[name].items():
            (site.root / file).write_bytes(content)
        again = await Site(site.root).open()
        assert await again.leftovers.sweep() == Swept(0, 0)
        return again

    await push_then_save("old", [b"old"])
    site = await Site(site.root).open()
    await push_then_save("new", [b"new %d" % number for number in range(20)])
    site = await put_back("old")
    await push_then_save("fork", [b"fork %d" % number for number in range(5)])
    site = await put_back("fork")
    await stop(site)
    site = await put_back("new")  # has more content than that, and lacks what was pushed beside it
    await stop(site)
    assert len(list(site.root.glob("blobs/sha256/*/*"))) == 26
    assert len(recorded(caplog.records, LogEvent.CATALOG_ROLLBACK_DETECTED)) == 2


async def stop(site):
    await site.leftovers.mark.settle()
    await site.catalog.stop()


async def test_sweep_after_kills_and_with_the_newest_catalog_put_back_removes_what_was_left(site, monkeypatch):
    monkeypatch.setattr(content_mark, "MAX_LINES", 3)
    for number in range(10):
        content = b"%d" % number
        digest = Digest("sha256:" + hashlib.sha256(content).hexdigest())
        await site.uploads.finish(f"u{number}", APP, digest, body(content), None)
        if number % 4 == 3:
            await site.leftovers.mark.settle()
            await site.catalog.database.close()  # as a kill would
            site = await Site(site.root).open()
    left = site.leave(b"left")
    assert (await site.leftovers.sweep()).files == 1 and not left.exists()


async def test_sweep_where_the_mark_is_gone_removes_nothing(site):
    await stop(site)
    (site.root / content_mark.FILE).unlink()
    left = site.leave(b"left")
    for _ in range(2):
        again = await Site(site.root).open()
        assert await again.leftovers.sweep() == Swept(0, 0) and left.exists()
        await stop(again)


async def test_a_sweep_that_would_remove_more_than_there_is_removes_nothing(site, monkeypatch, caplog):
    monkeypatch.setattr(leftovers, "FEW", 3)
    left = [site.leave(b"%d" % number) for number in range(4)]
    assert await site.leftovers.sweep() == Swept(0, 0)
    assert all(path.exists() for path in left)
    assert recorded(caplog.records, LogEvent.ORPHAN_FILES_KEPT) == [{"files": 4}]
    left[0].unlink()
    assert (await site.leftovers.sweep()).files == 3


async def test_a_sweep_on_a_disk_that_fails_goes_on_the_next_time(site):
    left = site.leave(b"left")
    site.disk.failing["remove"] = errno.EIO
    with pytest.raises(StorageFailed):
        await site.leftovers.sweep()
    site.disk.failing.clear()
    assert (await site.leftovers.sweep()).files == 1 and not left.exists()
