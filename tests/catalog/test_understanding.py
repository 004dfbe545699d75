"""Critical facts: the flag survives everything that a document goes through, and nothing that depends on a document
with one that is not understood is served or written."""

import logging

import pytest

from crdt.delta import decode_delta
from crdt.document import Document
from crdt.fact import BLOB, CRITICAL, KINDS, OTHER, REMOVED, TAG, Fact, by_writer, kind_of, parse_fact, tag_fact
from registry.adapters.disk import SystemDisk
from registry.capabilities import FACT_KINDS, OWN
from registry.catalog.catalog import Catalog
from registry.catalog.change_sink import Unpublished
from registry.catalog.collection import links_of
from registry.catalog.incoming import Incoming
from registry.catalog.membership import remove_member
from registry.catalog.repository import delete_tag, link_blob
from registry.catalog.understanding import (
    any_not_understood,
    blocking_all,
    is_understood,
    not_understood,
    require_understood,
    require_understood_after,
)
from registry.errors import CannotStart, NeedsUpgrade
from registry.oci.names import Repository
from registry.telemetry.events import LogEvent
from tests.catalog.test_documents import D, check, write
from tests.support.later import KIND as LATER
from tests.support.later import KINDS as LATER_KINDS
from tests.support.later import later_fact
from tests.support.logs import recorded
from tests.support.seams import StillClock, opened_catalog

NAME, OTHER_NAME, ACCESS = "repository/app", "repository/other", "access"


async def later_catalog(root) -> Catalog:
    """A catalog of a version that understands the made-up kind."""
    disk = SystemDisk(root)
    disk.make_directory(".")
    catalog = Catalog(disk, StillClock(), LATER_KINDS)
    await catalog.start()
    catalog.database.attach(Unpublished())
    return catalog


async def exchange(source, target, name):
    update = source.replica.diff(name, target.replica.state(name).vector)
    await target.take_in(Incoming(name, update, decode_delta(update), {}))


async def mark(catalog, name=NAME):
    """Have a later version write a critical fact; answers its identity."""
    writer = catalog.documents.writer
    change = await write(catalog, [later_fact("x", 1, writer)], name=name)
    return writer, change.clock


@pytest.fixture
async def old(tmp_path):
    catalog = await opened_catalog(tmp_path / "old")
    yield catalog
    await catalog.stop()


@pytest.fixture
async def new(tmp_path):
    catalog = await later_catalog(tmp_path / "new")
    yield catalog
    await catalog.stop()


def test_the_kinds_that_this_version_understands_are_not_critical():
    assert set(KINDS) == {TAG, "m", BLOB, REMOVED}
    assert OWN.kinds is FACT_KINDS


def test_all_facts_of_access_control_are_critical_for_a_version_that_does_not_understand_them():
    added = FACT_KINDS.keys() - KINDS.keys()
    assert added and all(kind.startswith(CRITICAL) for kind in added)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("!q\0x\x000000000000000001\x005", CRITICAL),
        ("!\x005", CRITICAL),
        ("!t\0v1\0" + D[0] + "\x000000000000000001\x005", CRITICAL),
        ("!q\0no time\x005", CRITICAL),
        ("q!\0x\x000000000000000001\x005", OTHER),
        ("q\0x\x000000000000000001\x005", OTHER),
        ("\0!\x005", OTHER),
    ],
)
def test_facts_whose_kind_begins_with_the_mark_are_critical_unless_they_are_understood(text, kind):
    assert parse_fact(text).kind == kind
    assert parse_fact(text).text() == text
    assert by_writer(parse_fact(text), 0xA).text() == text[: text.rindex("\0")] + "\0a"


def test_a_critical_fact_that_is_understood_is_read_as_one():
    fact = later_fact("x", 7, 5)
    assert parse_fact(fact.text(), LATER_KINDS) == fact
    assert by_writer(fact, 0xA) == parse_fact(later_fact("x", 7, 0xA).text(), LATER_KINDS)
    unlike = f"{LATER}\0" + "x\0" * 3 + "0000000000000001\x005"
    assert parse_fact(unlike, LATER_KINDS).kind == CRITICAL, "fields that it cannot read"
    assert kind_of(fact.text()) == LATER


async def test_the_flag_survives_delta_snapshot_diff_digest_and_restart(tmp_path, new):
    old = await opened_catalog(tmp_path / "restarted")
    writer, _ = await mark(new)
    text = later_fact("x", 1, writer).text()
    await exchange(new, old, NAME)
    check(old)
    assert [fact for _, _, fact in old.facts(NAME)[1]] == [text]
    assert old.replica.root() == new.replica.root(), "the digests agree"
    compaction = old.replica.read_for_compaction(NAME)
    await old.database.write(lambda tx: old.replica.store_snapshot(tx, compaction, compaction.snapshot()))
    assert Document([old.replica.diff(NAME, {})]).texts() == [text]
    await old.stop()
    old = await opened_catalog(tmp_path / "restarted")
    assert [found for _, _, found in old.facts(NAME)[1]] == [text]
    assert [tuple(one) for one in not_understood(old.database)] == [(NAME, [LATER])]
    third = await later_catalog(tmp_path / "third")
    await exchange(old, third, NAME)
    assert third.facts(NAME)[1] == new.facts(NAME)[1]
    assert is_understood(third.database, NAME)
    for catalog in (old, third):
        await catalog.stop()


async def test_one_repository_is_not_understood_until_the_fact_is_deleted(old, new, caplog):
    identity = await mark(new)
    assert is_understood(new.database, NAME)
    with caplog.at_level(logging.WARNING):
        await exchange(new, old, NAME)
    assert recorded(caplog.records, LogEvent.DOCUMENT_BLOCKED, document="repository/app")
    with pytest.raises(NeedsUpgrade, match=f"does not understand facts of kind {LATER}") as raised:
        require_understood(old.database, NAME)
    assert raised.value.detail == {"document": NAME, "kinds": [LATER]}
    assert (raised.value.status, raised.value.retry_after_s) == (503, 30)
    assert is_understood(old.database, OTHER_NAME)
    assert blocking_all(old.database) is None
    await write(new, [], [identity])
    await exchange(new, old, NAME)
    assert is_understood(old.database, NAME)
    assert any_not_understood(old.database) is None
    assert recorded(caplog.records, LogEvent.DOCUMENT_UNBLOCKED, document="repository/app")


@pytest.mark.parametrize("name", [ACCESS, "cluster/members", "policies", "zebra/x"])
async def test_everything_depends_on_documents_that_are_no_repositories(old, new, name):
    await mark(new, name)
    await exchange(new, old, name)
    assert blocking_all(old.database) == name
    for repository in (NAME, OTHER_NAME):
        with pytest.raises(NeedsUpgrade, match=name):
            require_understood(old.database, repository)
    assert blocking_all(new.database) is None


async def test_facts_that_are_not_critical_hold_nothing_up(old):
    fact = Fact(OTHER, f"q\0x\x000000000000000001\0{old.documents.writer:x}", "", "", 0, 0, 0)
    await write(old, [fact])
    assert any_not_understood(old.database) is None


async def test_nothing_is_written_to_a_repository_that_is_not_understood(old, new):
    await write(old, [tag_fact("v1", D[0], 1, old.documents.writer)])
    await mark(new)
    await exchange(new, old, NAME)
    before = old.replica.state(NAME)
    for operation in (
        lambda tx: link_blob(tx, old.documents, Repository("app"), D[1], 5, 1),
        lambda tx: delete_tag(tx, old.documents, Repository("app"), "v1"),
    ):
        with pytest.raises(NeedsUpgrade):
            await old.database.write(operation)
    assert old.replica.state(NAME) == before
    await old.database.write(lambda tx: link_blob(tx, old.documents, Repository("other"), D[1], 5, 1))
    await mark(new, ACCESS)
    await exchange(new, old, ACCESS)
    with pytest.raises(NeedsUpgrade):
        await old.database.write(lambda tx: link_blob(tx, old.documents, Repository("other"), D[2], 5, 1))
    await old.database.write(lambda tx: remove_member(tx, old.documents, "ab" * 16, 1))


async def test_a_repository_that_is_not_understood_is_no_source_of_blobs(old, new):
    await old.database.write(lambda tx: link_blob(tx, old.documents, Repository("app"), D[1], 5, 1))
    assert old.queries.blob_in_any_repository(D[1])
    await mark(new)
    await exchange(new, old, NAME)
    assert old.queries.blob_in_any_repository(D[1]) is None
    assert links_of(old.database, D[1]), "it is kept"


async def test_a_forked_document_is_healed_with_its_critical_facts(old, new):
    """Healing asserts the same statements again, whether they are understood or not."""
    await mark(new)
    await exchange(new, old, NAME)
    state, facts = old.facts(NAME)
    ((writer, clock, text),) = facts
    other = text.replace("\0x\0", "\0another\0")
    await old.heal(NAME, state.vector, [(writer, clock, other)])
    own = old.documents.writer
    expected = {by_writer(parse_fact(one), own).text() for one in (text, other)}
    assert {fact for _, _, fact in old.facts(NAME)[1]} == expected
    check(old)
    assert not is_understood(old.database, NAME)


async def test_lists_that_would_name_a_repository_that_is_not_understood_are_refused(old, new):
    for name in ("repository/a", "repository/m", "repository/z"):
        await write(old, [tag_fact("v1", D[0], 1, old.documents.writer)], name=name)
    await mark(new, "repository/m")
    await exchange(new, old, "repository/m")
    for after, upto in (("", "a"), ("m", "z"), ("m", "")):
        require_understood_after(old.database, after, upto)
    for after, upto in (("", ""), ("", "m"), ("a", "z"), ("a", "m")):
        with pytest.raises(NeedsUpgrade, match="repository/m"):
            require_understood_after(old.database, after, upto)


async def test_after_an_upgrade_the_facts_are_read_again_and_everything_is_served(tmp_path, new):
    old = await opened_catalog(tmp_path / "upgraded")
    for name in (NAME, ACCESS):
        await mark(new, name)
        await exchange(new, old, name)
    await write(new, [Fact(OTHER, f"also-later\0x\x000000000000000001\0{new.documents.writer:x}", "", "", 0, 0, 0)])
    await exchange(new, old, NAME)
    await old.stop()
    upgraded = await later_catalog(tmp_path / "upgraded")
    assert not_understood(upgraded.database) == []
    assert upgraded.database.rows("SELECT kind FROM facts ORDER BY kind") == [(LATER,), (LATER,), (OTHER,)]
    assert upgraded.replica.root() == new.replica.root()
    assert upgraded.facts(NAME)[1] == new.facts(NAME)[1]
    require_understood(upgraded.database, NAME)
    await upgraded.stop()
    with pytest.raises(CannotStart) as refused:
        await opened_catalog(tmp_path / "upgraded")
    assert refused.value.reason == "facts-newer"


async def test_tags_that_are_understood_after_an_upgrade_are_in_conflict_where_they_disagree(tmp_path):
    """A kind that was unknown may be one that the view has more of than rows."""
    none_of_tags = {kind: read for kind, read in FACT_KINDS.items() if kind != TAG}
    disk = SystemDisk(tmp_path)
    old = Catalog(disk, StillClock(), none_of_tags)
    await old.start()
    old.database.attach(Unpublished())
    writer = old.documents.writer
    await write(old, [tag_fact("v1", digest, time, writer) for time, digest in enumerate(D[:2], 1)])
    stored = [(OTHER, fact.text()) for fact in (tag_fact("v1", D[0], 1, writer), tag_fact("v1", D[1], 2, writer))]
    await old.database.write(
        lambda tx: [
            tx.execute("UPDATE facts SET kind = ?, key = ?, digest = '', time = 0 WHERE digest = ?", (*one, D[number]))
            for number, one in enumerate(stored)
        ]
    )
    await old.database.write(lambda tx: tx.execute("DELETE FROM conflicts"))
    await old.stop()
    upgraded = await opened_catalog(tmp_path)
    assert upgraded.queries.conflicts(10) == [("app", "v1")]
    check(upgraded)
    await upgraded.stop()
