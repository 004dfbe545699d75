"""What follows a commit: every step, in its order, once, and not before the commit is durable."""

import pytest

from crdt.delta import decode_delta
from crdt.fact import blob_fact, tag_fact
from registry.adapters.disk import SystemDisk
from registry.catalog import documents
from registry.catalog.catalog import Catalog
from registry.catalog.change_sink import ChangeSink, Unpublished
from registry.catalog.content import add_content
from registry.catalog.incoming import Incoming
from registry.errors import StorageFailed
from registry.oci.names import Digest
from tests.support.client import sha256
from tests.support.seams import StillClock, opened_catalog
from tests.support.stand_ins import RecordedSteps

NAME = "repository/app"
DIGEST = Digest(sha256(b"content"))
STEPS = [step for step in vars(ChangeSink) if not step.startswith("_")]


async def link(catalog):
    facts = [blob_fact(DIGEST, 7, 1, catalog.documents.writer)]
    return await catalog.database.write(lambda tx: catalog.documents.write(tx, NAME, [], facts)), facts


@pytest.fixture
async def opened(tmp_path):
    sink = RecordedSteps()
    catalog = await opened_catalog(tmp_path / "data", sink=sink)
    yield catalog, sink.steps
    await catalog.stop()


async def test_a_commit_is_followed_by_all_steps_in_their_order(opened, monkeypatch):
    catalog, steps = opened
    monkeypatch.setattr(documents, "is_large_log", lambda *sizes: True)
    facts = [blob_fact(DIGEST, 7, 1, catalog.documents.writer)]

    def operation(tx):
        add_content(tx, DIGEST, 7, b"", 1)
        return catalog.documents.write(tx, NAME, [], facts)

    change = await catalog.database.write(operation)
    expected = [("linked", NAME, facts), ("log_grew", NAME), ("publish", change), ("content_added",)]
    assert steps == expected
    assert [step for step, *_ in steps] == STEPS[:4], "as the protocol lists them"


async def test_every_change_of_a_group_is_published_in_the_order_of_the_commits(opened):
    catalog, steps = opened

    def operation(tx):
        return [
            catalog.documents.write(tx, NAME, [], [tag_fact(tag, DIGEST, 1, catalog.documents.writer)])
            for tag in ("v1", "v2")
        ]

    changes = await catalog.database.write(operation)
    assert steps == [("publish", change) for change in changes]


async def test_what_comes_from_elsewhere_is_not_published_and_reported_once(opened, tmp_path):
    catalog, steps = opened
    other = await opened_catalog(tmp_path / "other", StillClock(5))
    change, facts = await link(other)
    for _ in range(2):
        await catalog.take_in(Incoming(NAME, change.delta, decode_delta(change.delta), {}), other.instance_id)
    assert steps == [("linked", NAME, facts), ("taken_in", (1, other.documents.writer), other.instance_id)]
    await other.stop()


async def test_a_commit_is_durable_when_its_steps_run(tmp_path):
    seen = []

    class Reading(Unpublished):
        def publish(self, change):
            seen.append(catalog.database.row("SELECT COUNT(*) FROM facts")[0])

    catalog = await opened_catalog(tmp_path, sink=Reading())
    await link(catalog)
    assert seen == [1]
    await catalog.stop()


async def test_an_observer_sees_each_durable_group_before_its_steps_and_no_failed_one(tmp_path):
    steps, sink = [], RecordedSteps()

    class Reading:
        def on_commit(self):
            steps.append(("observed", catalog.database.row("SELECT COUNT(*) FROM facts")[0], len(sink.steps)))
            raise ValueError("an observer that fails keeps no step from running")

    catalog = Catalog(SystemDisk(tmp_path), StillClock(), observers=[Reading()])
    await catalog.start()
    catalog.database.attach(sink)
    steps.clear()  # the start makes commits of its own
    change, facts = await link(catalog)
    assert steps == [("observed", 1, 0)]
    assert sink.steps == [("linked", NAME, facts), ("publish", change)]
    catalog.database._writing.set_commit_hook(lambda: True)
    with pytest.raises(StorageFailed):
        await link(catalog)
    assert len(steps) == 1
    catalog.database._writing.set_commit_hook(None)
    await catalog.stop()


async def test_an_operation_that_is_taken_back_is_not_published(opened):
    catalog, steps = opened

    def operation(tx):
        catalog.documents.write(tx, NAME, [], [tag_fact("v1", DIGEST, 1, catalog.documents.writer)])
        raise ValueError

    with pytest.raises(ValueError):
        await catalog.database.write(operation)
    assert steps == []


async def test_nothing_is_committed_before_a_sink_is_attached(tmp_path):
    catalog = Catalog(SystemDisk(tmp_path), StillClock())
    await catalog.start()
    other = await opened_catalog(tmp_path / "other", StillClock(5))
    change, _ = await link(other)
    with pytest.raises(RuntimeError, match="attach one before the first write"):
        await link(catalog)
    with pytest.raises(RuntimeError, match="attach one before the first write"):
        await catalog.take_in(Incoming(NAME, change.delta, decode_delta(change.delta), {}))
    with pytest.raises(RuntimeError, match="attach one before the first write"):
        await catalog.database.write(lambda tx: add_content(tx, DIGEST, 7, b"", 1))
    assert catalog.replica.commit_number() == 0
    assert catalog.database.rows("SELECT digest FROM content") == []
    await other.stop()
    await catalog.stop()
