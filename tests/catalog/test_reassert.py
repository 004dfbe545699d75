"""What an older copy says, compared with what is here, and asserted anew."""

import pytest

from crdt.fact import MANIFEST, TAG, blob_fact, manifest_fact, tag_fact
from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.catalog.catalog import Catalog
from registry.catalog.change_sink import Unpublished
from registry.catalog.reassert import compare, reassert
from registry.catalog.view import observed
from tests.support.client import sha256

NAME = "repository/app"
OLD, NEW = sha256(b"old"), sha256(b"new")


@pytest.fixture
async def catalog(tmp_path):
    catalog = Catalog(SystemDisk(tmp_path), SystemClock())
    await catalog.start()
    catalog.database.attach(Unpublished())
    yield catalog
    await catalog.stop()


async def write(catalog, facts):
    writer = catalog.documents.writer
    facts = [fact._replace(writer=writer) for fact in facts]
    await catalog.database.write_in_steps(lambda tx: catalog.documents.write_in_steps(tx, NAME, [], facts))


async def compared(catalog, facts):
    return await catalog.database.write_in_steps(lambda tx: compare(tx, catalog.documents, NAME, facts))


def live(catalog, kind, key):
    async def read():
        def operation(tx):
            return observed(tx, catalog.documents.document_id(tx, NAME), kind, key)

        return await catalog.database.write(operation)

    return read()


async def test_compare_tells_what_is_absent_from_what_points_elsewhere(catalog):
    older = [tag_fact(name, OLD, 5, 1) for name in ("same", "moved", "gone")]
    older += [tag_fact("gone", NEW, 4, 1), manifest_fact(OLD, "a/b", 3, 5, 1), blob_fact(NEW, 3, 5, 1)]
    assert [fact.key for fact in (await compared(catalog, older)).absent] == ["same", "moved", "gone", OLD, NEW]
    await write(catalog, [tag_fact("same", OLD, 6, 0), tag_fact("moved", NEW, 6, 0), blob_fact(NEW, 3, 6, 0)])
    absent, moved = await compared(catalog, older)
    assert [(fact.kind, fact.key, fact.time) for fact in absent] == [(TAG, "gone", 5), (MANIFEST, OLD, 5)]
    assert [fact.key for fact in moved] == ["moved"]


async def test_compare_counts_a_losing_tag_of_a_conflict_as_there(catalog):
    await write(catalog, [tag_fact("both", OLD, 6, 0), tag_fact("both", NEW, 7, 0)])
    assert (await compared(catalog, [tag_fact("both", OLD, 5, 1)])).moved == []


async def test_reassert_keeps_the_time_under_our_writer_and_replaces_what_is_live(catalog):
    await write(catalog, [blob_fact(NEW, 3, 2, 0)])
    facts = [tag_fact("gone", OLD, 5, 1), blob_fact(NEW, 3, 5, 1)]
    await catalog.database.write_in_steps(lambda tx: reassert(tx, catalog.documents, NAME, facts))
    (tag,), (link,) = await live(catalog, "t", "gone"), await live(catalog, "b", NEW)
    assert (tag.digest, tag.time, tag.writer) == (OLD, 5, catalog.documents.writer)
    assert (link.time, link.writer) == (5, catalog.documents.writer)
