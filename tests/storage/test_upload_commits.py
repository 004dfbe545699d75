"""Commits of uploads that are repeated: by a process that has lost the answer, to this primary or its successor."""

import os

import pytest

from registry.adapters.disk import SystemDisk
from registry.catalog.content import UploadRow, find_upload, held_size, upload_has_ended
from registry.errors import BlobUploadUnknown, StorageFailed
from registry.oci.names import Digest, Repository
from registry.storage.checks import ContentHashes
from registry.storage.disk_budget import DiskBudget
from registry.storage.shared_usage import SharedUsage
from registry.storage.store import UPLOADS, BlobStore, content_path
from registry.storage.upload_commits import CatalogCommits, FinishedUpload
from tests.support.seams import StillClock, opened_catalog
from tests.support.uploads import acknowledged_at_once

APP = Repository("app")
CONTENT = os.urandom(1_500_000)


@pytest.fixture
async def site(tmp_path):
    catalog = await opened_catalog(tmp_path)
    yield Site(catalog, tmp_path)
    await catalog.stop()


class Site:
    """A catalog, a store and the commits of a primary."""

    def __init__(self, catalog, root):
        self.database, self.root = catalog.database, root
        self.store, self.usage = BlobStore(SystemDisk(root), catalog.database), SharedUsage()
        self.store.prepare()
        self._catalog = catalog
        budget = DiskBudget(0, self.usage)
        self.commits = CatalogCommits(catalog, self.store, StillClock(), budget, acknowledged_at_once)

    def finished(self, name="u", content=CONTENT):
        """Return an upload whose file is complete."""
        hashes = ContentHashes()
        hashes.update(content)
        (self.root / UPLOADS / name).write_bytes(content)
        return FinishedUpload(name, APP, hashes.digest(), len(content), hashes.per_mib())

    def file(self, upload):
        return self.root / content_path(upload.digest)

    def is_linked(self, digest: Digest) -> bool:
        return self._catalog.queries.blob(APP, digest) is not None


@pytest.fixture
def commits(site):
    return site.commits


async def test_a_publication_that_is_repeated_counts_once(site, commits):
    upload = site.finished()
    for _ in range(2):
        await (await commits.publish(upload))()
    assert site.is_linked(upload.digest) and held_size(site.database, upload.digest) == len(CONTENT)
    assert site.usage.content_bytes == len(CONTENT)
    assert upload_has_ended(site.database, upload.id) and site.file(upload).read_bytes() == CONTENT


async def test_a_file_that_a_dead_primary_has_moved_is_committed_by_its_successor(site, commits):
    """It was answered 503, although its content was complete and in its place."""
    upload = site.finished()
    await site.store.publish(f"{UPLOADS}/{upload.id}", upload.digest)  # and the process has died
    await commits.publish(upload)
    assert site.is_linked(upload.digest) and held_size(site.database, upload.digest) == len(CONTENT)


@pytest.mark.parametrize(
    "harm", [lambda file: os.truncate(file, 1000), lambda file: file.write_bytes(bytes(1_500_000))]
)
async def test_a_file_in_its_place_is_not_committed_unless_it_is_the_one_that_was_uploaded(site, commits, harm):
    upload = site.finished()
    await site.store.publish(f"{UPLOADS}/{upload.id}", upload.digest)
    harm(site.file(upload))
    with pytest.raises(StorageFailed):
        await commits.publish(upload)
    assert not site.is_linked(upload.digest) and held_size(site.database, upload.digest) is None


async def test_a_publication_without_any_file_fails(site, commits):
    upload = site.finished()
    (site.root / UPLOADS / upload.id).unlink()
    with pytest.raises(StorageFailed):
        await commits.publish(upload)
    assert not site.is_linked(upload.digest)


async def test_a_publication_after_the_upload_was_cancelled_is_refused(site, commits):
    upload = site.finished()
    for _ in range(2):
        await commits.end(upload.id)
    with pytest.raises(BlobUploadUnknown):
        await commits.publish(upload)
    assert not site.is_linked(upload.digest) and not site.file(upload).exists()


async def test_bytes_recorded_after_the_end_of_an_upload_do_not_begin_it_again(site, commits):
    """A message that arrives late left a row without a file, which took a place for a day."""
    row = UploadRow("u", APP, 10, "00", 1)
    for _ in range(2):
        await commits.save(row)
    assert find_upload(site.database, "u") == row
    await commits.end("u")
    await commits.save(row)
    assert find_upload(site.database, "u") is None
