"""Writes whose size others decide stop the loop for no longer than a bounded step.

The bounds are of processor time. Done in one piece, each of these takes several times as long (measured: 0.45 s for the
push, as much for taking it in).
"""

import gc
import json

import pytest

from crdt.delta import decode_delta
from crdt.fact import blob_fact, manifest_fact, tag_fact
from registry.catalog.incoming import Incoming
from registry.catalog.repository import Pushed, delete_manifest, push_manifest
from registry.errors import ManifestBlobUnknown, ManifestInvalid
from registry.event_loop.steps import run_in_steps, run_to_completion
from registry.oci.manifest import MAX_PARTS, OCI_IMAGE, OCI_INDEX, parse_manifest, read_pushed
from registry.oci.names import digest_of
from tests.support.seams import StillClock, opened_catalog
from tests.support.turns import Turns

pytestmark = pytest.mark.slow

NAME = "repository/app"
LAYERS = 9900
LONGEST_S = 0.12


def digest(number):
    return f"sha256:{number:064x}"


def image(layers, first=0):
    parts = [{"mediaType": "x", "digest": digest(first + number), "size": 1} for number in range(layers + 1)]
    content = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": parts[0], "layers": parts[1:]}
    return json.dumps(content).encode()


def index(*children):
    entries = [{"mediaType": OCI_IMAGE, "digest": digest_of(child), "size": len(child)} for child in children]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


async def link(catalog, count):
    def operation(tx):
        facts = [blob_fact(digest(number), 1, 1, catalog.documents.writer) for number in range(count)]
        return catalog.documents.write_in_steps(tx, NAME, [], facts)

    return await catalog.database.write_in_steps(operation)


async def push(catalog, body, *tags, sparse=False):
    pushed = Pushed(digest_of(body), body, parse_manifest(body, None), tags)
    return await catalog.database.write_in_steps(
        lambda tx: push_manifest(tx, catalog.documents, "app", pushed, sparse, 1)
    )


@pytest.fixture(autouse=True)
def without_collection_of_cycles():
    """Python's collection of cycles walks all objects of the tests that ran before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def test_push_of_thousands_of_layers_is_written_in_bounded_steps(tmp_path):
    catalog, other = await opened_catalog(tmp_path / "1"), await opened_catalog(tmp_path / "2", StillClock(5))
    first = await link(catalog, LAYERS + 1)
    body = image(LAYERS)
    pushed = Pushed(digest_of(body), body, parse_manifest(body, None), ["v1"])
    for _ in range(2):  # the second time, each fact takes the place of another
        async with Turns() as turns:
            change = await catalog.database.write_in_steps(
                lambda tx: push_manifest(tx, catalog.documents, "app", pushed, False, 1)
            )
        assert turns.longest_s < LONGEST_S
    await other.take_in(Incoming(NAME, first.delta, decode_delta(first.delta), {}))
    update = catalog.replica.diff(NAME, {change.writer: LAYERS + 1})
    delta = decode_delta(update)
    async with Turns() as turns:
        await other.take_in(Incoming(NAME, update, delta, {}))
    assert turns.longest_s < LONGEST_S
    assert other.replica.root() == catalog.replica.root()


async def test_push_after_a_start_reads_a_large_document_in_bounded_steps(tmp_path):
    """Its trie is not in memory then."""
    catalog = await opened_catalog(tmp_path)
    await link(catalog, 50_000)
    before = catalog.replica.digest(NAME)
    catalog.documents._tries.drop(catalog.database.row("SELECT id FROM documents")[0])
    async with Turns() as turns:
        change = await push(catalog, image(1))
    assert turns.longest_s < LONGEST_S
    assert change.state_digest not in (before, b"")


async def test_delete_of_a_manifest_with_thousands_of_tags_is_written_in_bounded_steps(tmp_path):
    catalog = await opened_catalog(tmp_path)
    body = image(1)

    def tag_all(tx):
        writer = catalog.documents.writer
        facts = [tag_fact(f"t{number}", digest_of(body), 1, writer) for number in range(20_000)]
        facts.append(manifest_fact(digest_of(body), OCI_IMAGE, len(body), 1, writer))
        return catalog.documents.write_in_steps(tx, NAME, [], facts)

    await catalog.database.write_in_steps(tag_all)
    async with Turns() as turns:
        await catalog.database.write_in_steps(lambda tx: delete_manifest(tx, catalog.documents, "app", digest_of(body)))
    assert turns.longest_s < LONGEST_S
    assert catalog.queries.tags("app", "", 10) == []


async def test_a_deleted_range_of_all_clocks_is_taken_in_in_bounded_steps(tmp_path):
    """One range of an update may delete everything that a writer has ever written."""
    catalog = await opened_catalog(tmp_path)
    change = await link(catalog, 20_000)
    other = await opened_catalog(tmp_path / "other", StillClock(5))
    await other.take_in(Incoming(NAME, change.delta, decode_delta(change.delta), {}))
    deleted = [(change.writer, clock) for clock in range(20_000)]
    update = (await other.database.write(lambda tx: other.documents.write(tx, NAME, deleted, []))).delta
    assert len(update) < 100
    async with Turns() as turns:
        await catalog.take_in(Incoming(NAME, update, decode_delta(update), {}))
    assert turns.longest_s < LONGEST_S
    assert catalog.database.row("SELECT COUNT(*) FROM facts")[0] == 0
    assert catalog.replica.root() == other.replica.root()


async def test_push_of_an_index_reads_no_bodies_of_its_children(tmp_path):
    catalog = await opened_catalog(tmp_path)
    await link(catalog, 4)
    children = [image(2, first=number) for number in range(2)]
    for child in children:
        await push(catalog, child)
    seen = []
    catalog.database._writing.exec_trace = lambda cursor, sql, bindings: seen.append(sql) or True
    change = await push(catalog, index(*children), "v1")
    catalog.database._writing.exec_trace = None
    # The length of a body is in the head of its row.
    reads = [sql.replace("LENGTH(body)", "") for sql in seen if sql.startswith("SELECT")]
    assert reads and not [sql for sql in reads if "body" in sql]
    said = {entry.text.split("\0")[1] for entry in decode_delta(change.delta).added}
    assert {digest(number) for number in range(4)} | {digest_of(child) for child in children} <= said


async def test_push_looks_at_shared_parts_no_further_than_a_bound(tmp_path, monkeypatch):
    """Indexes of indexes could share their parts, and each would be looked at again."""
    catalog = await opened_catalog(tmp_path)
    await link(catalog, 60)
    children = [image(40, first=number) for number in range(10)]
    for child in children:
        await push(catalog, child)
    await push(catalog, index(*children), "v1")
    monkeypatch.setattr("registry.catalog.repository.MAX_PARTS_READ", 300)
    with pytest.raises(ManifestInvalid):
        await push(catalog, index(*children), "v2")
    assert catalog.queries.tags("app", "", 10) == ["v1"]


async def test_push_that_stands_on_too_many_parts_over_all_levels_is_refused(tmp_path):
    catalog = await opened_catalog(tmp_path)
    await link(catalog, MAX_PARTS + 100)
    children = [image(5000, first=0), image(5050, first=5001)]
    for child in children:
        await push(catalog, child)
    with pytest.raises(ManifestInvalid):
        await push(catalog, index(*children), "v1")


async def test_push_with_missing_parts_names_each_once(tmp_path):
    catalog = await opened_catalog(tmp_path)
    await link(catalog, 1)
    with pytest.raises(ManifestBlobUnknown) as raised:
        await push(catalog, image(3), "v1")
    assert raised.value.detail == [{"digest": digest(number)} for number in (1, 2, 3)]


@pytest.mark.parametrize(
    "body", [image(LAYERS), image(0)[:-1] + b',"x":[' + b",".join([b"0"] * 1_900_000) + b"]}"], ids=["layers", "zeros"]
)
async def test_a_manifest_of_megabytes_is_read_in_bounded_steps(body):
    async with Turns() as turns:
        read = await run_in_steps(read_pushed(body, OCI_IMAGE))
    assert turns.longest_s < LONGEST_S
    assert read == run_to_completion(read_pushed(body, OCI_IMAGE))


async def test_another_writer_drawn_between_two_steps_is_for_the_next_operation(tmp_path):
    """A push in steps stays under the writer that its facts name, whenever another one is drawn meanwhile."""
    catalog = await opened_catalog(tmp_path)
    await link(catalog, 1001)
    body = image(1000)
    pushed = Pushed(digest_of(body), body, parse_manifest(body, None), ["v1"])
    at, pauses, late = 0, 1, 0
    while at < pauses:

        def operation(tx, at=at):
            steps, paused = push_manifest(tx, catalog.documents, "app", pushed, False, 1), 0
            while True:
                try:
                    next(steps)
                except StopIteration as done:
                    return done.value, paused
                if paused == at:
                    catalog.retire_writer()
                paused += 1
                yield

        change, pauses = await catalog.database.write_in_steps(operation)
        assert set(decode_delta(change.delta).spans) == {change.writer}
        late += change.writer != catalog.documents.writer
        at += 1
    assert late > 5 and at - late > 2, "a writer was drawn both before and after the push had taken its own"
