import random

import pytest

from crdt.change import Change
from crdt.delta import decode_delta, encode_delta
from crdt.document import Document
from crdt.fact import blob_fact, fact_hash, manifest_fact, parse_fact, tag_fact
from crdt.trie import build
from registry.adapters.disk import SystemDisk
from registry.catalog import schema
from registry.catalog.catalog import PATH
from registry.catalog.collection import is_referenced
from registry.catalog.database import Database
from registry.catalog.documents import MissingDependencies, WriterReused
from registry.catalog.incoming import ForeignWriter, Incoming, bind_writer, take_in
from registry.catalog.membership import remove_member
from registry.catalog.view import all_observed
from registry.errors import StorageFailed
from registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from registry.oci.names import digest_of
from tests.catalog.test_database import CommitCounter
from tests.support.seams import StillClock, opened_catalog
from tests.support.stand_ins import RecordedSteps, WrongSizesIgnored

NAME = "repository/app"
D = ["sha256:" + f"{number:064x}" for number in range(10)]


async def write(catalog, facts, deleted=(), name=NAME) -> Change:
    return await catalog.database.write(lambda tx: catalog.documents.write(tx, name, list(deleted), facts))


async def apply(catalog, raw, needs=None, name=NAME):
    incoming = Incoming(name, raw, decode_delta(raw), needs or {})
    return await catalog.database.write_in_steps(lambda tx: take_in(tx, catalog.documents, incoming, 0))


def tag(catalog, name, digest=D[0], time=1):
    return tag_fact(name, digest, time, catalog.documents.writer)


def facts_of(catalog, name=NAME):
    return [text for _, _, text in sorted(catalog.facts(name)[1])]


def check(catalog, name=NAME):
    """The view, the vector and the digest are what the document means."""
    loaded = Document(catalog.replica.read_for_compaction(name).parts)
    texts = [text for _, _, text in catalog.facts(name)[1]]
    assert sorted(texts) == loaded.texts()
    state = catalog.replica.state(name)
    assert state.vector == loaded.vector()
    assert state.digest == build(map(fact_hash, texts)).digest
    (counted,) = catalog.database.row("SELECT facts FROM documents WHERE name = ?", (name,))
    assert counted == len(texts)


async def identities(catalog, texts, name=NAME):
    return [(writer, clock) for writer, clock, text in catalog.facts(name)[1] if text in texts]


async def test_a_write_is_a_fact_a_delta_and_a_change(tmp_path):
    sink = RecordedSteps()
    catalog = await opened_catalog(tmp_path, sink=sink)
    change = await write(catalog, [tag(catalog, "v1")])
    assert sink.steps == [("publish", change)]
    assert change.delta == encode_delta(catalog.documents.writer, 0, [tag(catalog, "v1").text()], [])
    assert facts_of(catalog) == [tag(catalog, "v1").text()]
    assert change.state_digest == catalog.replica.state(NAME).digest
    check(catalog)


async def test_random_writes_and_updates_keep_view_and_document_together(tmp_path):
    """Three catalogs that hear of each other at random, compared with the documents themselves."""
    drawn = random.Random(4)
    clock = StillClock()
    catalogs = [await opened_catalog(tmp_path / str(number), clock) for number in range(3)]
    made: list[bytes] = []
    for number in range(150):
        catalog = drawn.choice(catalogs)
        for raw in made:
            if drawn.random() < 0.5:
                try:
                    await apply(catalog, raw)
                except MissingDependencies:
                    pass
        live = catalog.facts(NAME)[1]
        deleted = [(w, c) for w, c, _ in drawn.sample(live, min(len(live), drawn.randrange(4)))]
        facts = [tag(catalog, f"t{number % 7}", drawn.choice(D), number * 10 + i) for i in range(drawn.randrange(3))]
        made.append((await write(catalog, facts, deleted)).delta)
        if number % 10 == 0:
            check(catalog)
    for catalog in catalogs:
        for _ in range(2):
            for raw in made:
                await apply(catalog, raw)
        check(catalog)
    assert len({catalog.replica.root() for catalog in catalogs}) == 1
    assert facts_of(catalogs[0]) == facts_of(catalogs[1]) == facts_of(catalogs[2])
    conflicts = [catalog.queries.conflicts(100) for catalog in catalogs]
    assert conflicts[0] == conflicts[1] == conflicts[2]


async def test_an_update_again_changes_nothing(tmp_path):
    one, other = await opened_catalog(tmp_path / "1"), await opened_catalog(tmp_path / "2", StillClock(5))
    raw = (await write(one, [tag(one, "v1")])).delta
    assert (await apply(other, raw)).fresh
    before = other.replica.commit_number()
    assert not (await apply(other, raw)).fresh
    assert other.replica.commit_number() == before


async def test_an_update_with_something_missing_before_it_changes_nothing(tmp_path):
    one, other = await opened_catalog(tmp_path / "1"), await opened_catalog(tmp_path / "2", StillClock(5))
    first = (await write(one, [tag(one, "v1")])).delta
    second = (await write(one, [tag(one, "v2")])).delta
    with pytest.raises(MissingDependencies):
        await apply(other, second)
    assert facts_of(other) == []
    with pytest.raises(MissingDependencies):
        await apply(other, first, needs={77: 1})
    assert other.replica.commit_number() == 0
    await apply(other, first)
    await apply(other, second)
    assert facts_of(other) == facts_of(one)


async def test_a_delete_of_what_is_not_here_yet_waits_for_it(tmp_path):
    """A seven-byte update could otherwise delete everything a writer will ever write."""
    catalog = await opened_catalog(tmp_path)
    with pytest.raises(MissingDependencies):
        await apply(catalog, encode_delta(99, 0, [], [(5, 0)]))
    with pytest.raises(MissingDependencies):
        await apply(catalog, encode_delta(99, 0, [], [(5, 2**30)]))


async def test_an_update_under_our_own_writer_is_refused(tmp_path):
    catalog = await opened_catalog(tmp_path)
    await write(catalog, [tag(catalog, "v1")])
    writer = catalog.documents.writer
    forged = encode_delta(writer, 1, [tag_fact("v2", D[1], 9, writer).text()], [])
    with pytest.raises(WriterReused):
        await apply(catalog, forged)
    assert len(facts_of(catalog)) == 1
    catalog.retire_writer()
    await apply(catalog, forged)
    await write(catalog, [tag(catalog, "v3")])
    assert len(facts_of(catalog)) == 3
    check(catalog)


async def test_a_writer_belongs_to_the_instance_that_used_it_first(tmp_path):
    catalog = await opened_catalog(tmp_path)
    await catalog.database.write(lambda tx: bind_writer(tx, 5, "a" * 32))
    await catalog.database.write(lambda tx: bind_writer(tx, 5, "a" * 32))
    with pytest.raises(ForeignWriter):
        await catalog.database.write(lambda tx: bind_writer(tx, 5, "b" * 32))


async def test_every_start_writes_under_a_fresh_registered_writer(tmp_path):
    clock = StillClock()
    seen = []
    for _ in range(3):
        catalog = await opened_catalog(tmp_path, clock)
        await write(catalog, [tag(catalog, "v1")])
        assert catalog.queries.instance_of(catalog.documents.writer) == catalog.instance_id
        seen.append((catalog.documents.writer, catalog.incarnation))
        await catalog.database.close()
    assert len({writer for writer, _ in seen}) == 3
    assert [start for _, start in seen] == sorted({start for _, start in seen})


async def test_a_failed_commit_retires_the_writer_and_leaves_nothing(tmp_path):
    catalog = await opened_catalog(tmp_path)
    await write(catalog, [tag(catalog, "v1")])
    writer = catalog.documents.writer
    CommitCounter(catalog.database).fail_next = True
    with pytest.raises(StorageFailed):
        await write(catalog, [tag(catalog, "v2")])
    assert catalog.documents.writer != writer
    assert len(facts_of(catalog)) == 1
    await write(catalog, [tag(catalog, "v3")])
    check(catalog)


async def test_a_write_says_what_it_depends_on(tmp_path):
    one, other = await opened_catalog(tmp_path / "1"), await opened_catalog(tmp_path / "2", StillClock(5))
    await apply(other, (await write(one, [tag(one, "v1")])).delta)
    first = await write(other, [tag(other, "v2")])
    assert first.needs == {one.documents.writer: 1}
    second = await write(other, [tag(other, "v3")])
    assert second.needs == {}, "what the previous change depended on is said already"
    await apply(other, (await write(one, [tag(one, "v4")])).delta)
    assert (await write(other, [])).needs == {one.documents.writer: 2}


async def test_a_snapshot_takes_the_place_of_the_log(tmp_path):
    catalog = await opened_catalog(tmp_path)
    for number in range(20):
        await write(catalog, [tag(catalog, f"v{number}", time=number)])
    compaction = catalog.replica.read_for_compaction(NAME)
    await write(catalog, [tag(catalog, "later", time=99)])
    await catalog.database.write(lambda tx: catalog.replica.store_snapshot(tx, compaction, compaction.snapshot()))
    assert catalog.database.row("SELECT COUNT(*) FROM log") == (1,)
    assert catalog.database.row("SELECT logged_count FROM documents") == (1,)
    check(catalog)
    everything = catalog.replica.diff(NAME, {})
    other = await opened_catalog(tmp_path / "2", StillClock(5))
    await apply(other, everything)
    assert facts_of(other) == facts_of(catalog)


async def test_a_snapshot_that_does_not_have_the_digest_is_not_made(tmp_path):
    from crdt.errors import DocumentBroken

    catalog = await opened_catalog(tmp_path)
    await write(catalog, [tag(catalog, "v1")])
    with pytest.raises(DocumentBroken):
        catalog.replica.read_for_compaction(NAME)._replace(digest=bytes(16)).snapshot()


async def test_facts_and_documents_of_unknown_kinds_are_kept_digested_and_passed_on(tmp_path):
    one, other = await opened_catalog(tmp_path / "1"), await opened_catalog(tmp_path / "2", StillClock(5))
    unknown = f"z\0from a newer version\0{1:016x}\0{7:x}"
    raw = encode_delta(7, 0, [unknown], [])
    for name in (NAME, "accounts/somebody"):
        await apply(one, raw, name=name)
        await apply(other, one.replica.diff(name, {}), name=name)
        assert facts_of(other, name) == [unknown]
        check(other, name)
    assert one.replica.root() == other.replica.root()
    assert one.queries.repositories("", 10) == ["app"]
    assert one.queries.tags("app", "", 10) == []
    await apply(one, encode_delta(8, 0, [], [(7, 0)]))
    assert facts_of(one) == []


async def test_documents_of_other_kinds_are_counted_as_no_repositories(tmp_path):
    catalog = await opened_catalog(tmp_path)
    await write(catalog, [tag(catalog, "v1")])
    await catalog.database.write(lambda tx: remove_member(tx, catalog.documents, "f" * 32, 1))
    await write(catalog, [tag(catalog, "v1")], name="accounts/somebody")
    counts = await catalog.queries.counts()
    assert (counts["repositories"], counts["facts"]) == (1, 3)


async def test_the_winner_is_the_highest_time_and_then_writer(tmp_path):
    catalog = await opened_catalog(tmp_path)
    for time, writer, digest in [(5, 1, D[1]), (5, 9, D[2]), (4, 100, D[3])]:
        await apply(catalog, encode_delta(writer, 0, [tag_fact("v1", digest, time, writer).text()], []))
    assert [fact.digest for fact in catalog.queries.facts_of_tag("app", "v1")] == [D[2], D[1], D[3]]
    assert catalog.queries.conflicts(10) == [("app", "v1")]


async def test_facts_of_one_tag_that_agree_are_no_conflict(tmp_path):
    catalog = await opened_catalog(tmp_path)
    for writer in (1, 2):
        await apply(catalog, encode_delta(writer, 0, [tag_fact("v1", D[1], writer, writer).text()], []))
    assert catalog.queries.conflicts(10) == []


async def test_a_body_comes_with_its_fact_or_is_wanted(tmp_path):
    import hashlib

    catalog = await opened_catalog(tmp_path)
    body = b'{"schemaVersion":2,"config":{"digest":"' + D[1].encode() + b'","size":1},"layers":[]}'
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    fact = manifest_fact(digest, "application/vnd.oci.image.manifest.v1+json", len(body), 1, 7)
    raw = encode_delta(7, 0, [fact.text()], [])
    incoming = Incoming(NAME, raw, decode_delta(raw), {}, [b"not named by any fact"])
    await catalog.database.write(lambda tx: take_in(tx, catalog.documents, incoming, 0))
    assert catalog.queries.missing_bodies(10) == [digest]
    assert catalog.database.row("SELECT COUNT(*) FROM manifests") == (0,)
    with_body = incoming._replace(bodies=[body])
    await catalog.database.write(lambda tx: take_in(tx, catalog.documents, with_body, 0))
    assert catalog.queries.missing_bodies(10) == []
    assert catalog.queries.manifest("app", digest).body == body


async def test_equal_facts_give_equal_digests_whatever_the_history(tmp_path):
    one, other = await opened_catalog(tmp_path / "1"), await opened_catalog(tmp_path / "2", StillClock(5))
    raws = [encode_delta(w, 0, [blob_fact(D[w], w, w, w).text()], []) for w in range(1, 9)]
    for raw in raws:
        await apply(one, raw)
    for raw in reversed(raws):
        await apply(other, raw)
    assert one.replica.root() == other.replica.root()
    assert one.replica.root() != (await opened_catalog(tmp_path / "3")).replica.root()


async def test_tries_are_right_after_a_restart_and_after_operations_that_failed(tmp_path):
    catalog = await opened_catalog(tmp_path)
    await write(catalog, [tag(catalog, f"v{number}", time=number) for number in range(100)])

    def failing(tx):
        catalog.documents.write(tx, NAME, [], [tag(catalog, "bad", time=500)])
        raise ValueError

    with pytest.raises(ValueError):
        await catalog.database.write(failing)
    await write(catalog, [tag(catalog, "good", time=600)])
    check(catalog)
    await catalog.database.close()
    catalog = await opened_catalog(tmp_path, StillClock(9))
    await write(catalog, [tag(catalog, "again", time=700)], await identities(catalog, facts_of(catalog)[:3]))
    check(catalog)


async def test_all_observed_facts_are_those_of_the_document(tmp_path):
    catalog = await opened_catalog(tmp_path)
    facts = [tag(catalog, "v1"), blob_fact(D[1], 5, 1, catalog.documents.writer)]
    await write(catalog, facts)
    seen = await catalog.database.write(lambda tx: all_observed(tx, catalog.documents.document_id(tx, NAME)))
    assert {parse_fact(fact.text()) for fact in seen} == set(facts)


async def test_what_a_stored_manifest_refers_to_by_any_reading_is_in_use(tmp_path):
    """One that an instance without the check has taken: clients that ignore case pull the other layers."""
    catalog = await opened_catalog(tmp_path)
    parts = [f'{{"mediaType":"x","digest":"{digest}","size":1}}' for digest in D]
    body = (
        f'{{"schemaVersion":2,"mediaType":"{OCI_IMAGE}","config":{parts[0]},'
        f'"layers":[{parts[1]}],"Layers":[{parts[2]}],"layers":[{parts[3]}]}}'
    ).encode()
    fact = manifest_fact(digest_of(body), OCI_IMAGE, len(body), 1, 77)
    raw = encode_delta(77, 0, [fact.text()], [])
    incoming = Incoming(NAME, raw, decode_delta(raw), {}, [body])
    await catalog.take_in(incoming)
    assert [is_referenced(catalog.database, digest) for digest in D] == [True] * 4 + [False] * 6


async def test_parts_of_stored_manifests_are_read_again_by_the_migration_that_keeps_their_kinds(tmp_path, monkeypatch):
    """Also of a body that no fact names now: a push that names it again does not read its parts."""
    before = schema.MIGRATIONS.index((schema._DESCRIPTORS_BY_KIND, schema._fill_descriptors))
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:before])
        patched.setattr(schema, "VERSION", before)
        connection = Database(SystemDisk(tmp_path), PATH, WrongSizesIgnored())._writing
        config, layer = (f'{{"mediaType":"x","digest":"{digest}","size":1}}' for digest in D[:2])
        members = f'"schemaVersion":2,"mediaType":"{OCI_IMAGE}","config":{config},"layers":[],"Layers":[{layer}]'
        image = f"{{{members}}}".encode()
        child = f'{{"mediaType":"{OCI_IMAGE}","digest":"{digest_of(image)}","size":1}}'
        index = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{child}]}}'.encode()
        fact = (digest_of(image), OCI_IMAGE, len(image))
        connection.execute("INSERT INTO facts VALUES (1, 'm', ?, 1, 1, 1, '', ?, ?, x'00')", fact)
        rows = [(digest_of(body), body) for body in (image, index)]
        connection.executemany("INSERT INTO manifests (digest, body) VALUES (?, ?)", rows)
    catalog = await opened_catalog(tmp_path)
    parts = {(part.kind, part.digest) for part in catalog.queries.parts_of(digest_of(image))}
    assert parts == {("b", D[0]), ("b", D[1])}
    assert catalog.queries.parts_of(digest_of(index)) == [("m", digest_of(image), True)]
