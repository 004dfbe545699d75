"""The document of access control in catalogs: committed, exchanged, read by other processes, and restored."""

from functools import partial

import pytest

from crdt.delta import decode_delta
from crdt.fact import KINDS
from registry.access import changes
from registry.access.facts import DOCUMENT, OPERATOR
from registry.access.rights import Caller, Right
from registry.adapters.disk import SystemDisk
from registry.catalog.access import REVISION, CommittedAccess, change_access, drop_marks, mark_restored
from registry.catalog.catalog import PATH, Catalog
from registry.catalog.change_sink import Unpublished
from registry.catalog.database import Reads
from registry.catalog.incoming import Incoming
from registry.catalog.understanding import blocking_all
from registry.errors import OciError
from tests.support.seams import StillClock, opened_catalog


async def change(catalog, plan, by=OPERATOR):
    operation = lambda tx: change_access(tx, catalog.documents, StillClock(), by, plan)  # noqa: E731
    return (await catalog.database.write(operation))[0]


def account(name, **options):
    return partial(changes.create_account, name=name, **options)


def grant(name, pattern="t/*", rights=("pull",)):
    return partial(changes.grant, subject=name, pattern=pattern, rights=rights)


async def exchange(one, other):
    """Bring what each of two catalogs lacks of the document."""
    for source, target in ((one, other), (other, one)):
        update = source.replica.diff(DOCUMENT, target.replica.state(DOCUMENT).vector)
        await target.take_in(Incoming(DOCUMENT, update, decode_delta(update), {}))


@pytest.fixture
async def catalog(tmp_path):
    opened = await opened_catalog(tmp_path / "one")
    yield opened
    await opened.stop()


@pytest.fixture
async def other(tmp_path):
    opened = await opened_catalog(tmp_path / "other")
    yield opened
    await opened.stop()


async def test_a_change_is_in_force_at_the_next_look_of_every_process(tmp_path, catalog):
    reads = Reads(SystemDisk(tmp_path / "one"), PATH)
    worker = CommittedAccess(reads)
    seen = [worker.revision]
    alice = await change(catalog, account("alice"))
    seen.append(worker.revision)
    assert worker.account_of("alice") == catalog.access.account_of("alice") == alice
    await change(catalog, grant("alice"))
    seen.append(worker.revision)
    assert worker.rights(Caller(alice), "t/a", 0) == {Right.PULL: None}
    assert sorted({*seen}) == seen, "each change has a revision of its own"
    assert reads.row(f"SELECT 1, {REVISION}")[1] == seen[-1], "it can be read in any query"
    reads.close_reading()


async def test_the_policy_is_kept_until_its_revision_changes(catalog):
    await change(catalog, account("alice"))
    policy = catalog.access.policy
    assert catalog.access.policy is policy
    await change(catalog, account("bob"))
    assert catalog.access.policy is not policy


async def test_a_change_that_is_refused_changes_nothing(catalog):
    await change(catalog, account("alice"))
    before = catalog.access.revision, catalog.replica.root()
    with pytest.raises(OciError):
        await change(catalog, account("alice"))
    assert (catalog.access.revision, catalog.replica.root()) == before


async def test_a_revocation_wins_at_both_of_two_catalogs(catalog, other):
    alice = await change(catalog, account("alice"))
    await exchange(catalog, other)
    await change(catalog, grant("alice"))
    await change(other, partial(changes.revoke, subject="alice", pattern="t/*"))
    await exchange(catalog, other)
    for one in (catalog, other):
        assert one.access.rights(Caller(alice), "t/a", 0) == {}
    assert catalog.access.digest == other.access.digest != ""
    await change(other, grant("alice"))
    await exchange(catalog, other)
    for one in (catalog, other):
        assert one.access.rights(Caller(alice), "t/a", 0) == {Right.PULL: None}


async def test_a_version_without_access_control_serves_nothing_with_its_facts(tmp_path, catalog):
    await change(catalog, account("alice"))
    disk = SystemDisk(tmp_path / "old")
    disk.make_directory(".")
    old = Catalog(disk, StillClock(), KINDS)
    await old.start()
    old.database.attach(Unpublished())
    assert blocking_all(old.database) is None
    await exchange(catalog, old)
    assert blocking_all(old.database) == DOCUMENT
    assert old.replica.root() == catalog.replica.root(), "it keeps and passes on all the same"
    await old.stop()


async def test_no_credential_of_a_restored_catalog_counts(catalog):
    alice = await change(catalog, account("alice", password_hash="hash", admin=True))
    access = catalog.access
    (password,) = access.credentials_of(alice)
    await change(catalog, changes.enforce)
    before = access.revision
    await catalog.database.write(lambda tx: mark_restored(tx.execute))
    assert access.is_restored and access.revision != before
    assert access.credentials_of(alice) == [] and not access.is_in_force(alice, password.id)
    assert access.is_enforced, "it does not open what was closed"
    await catalog.database.write(drop_marks)
    assert access.is_in_force(alice, password.id) and access.revision == before


async def test_no_binding_of_a_restored_catalog_counts(catalog):
    alice = await change(catalog, account("alice"))
    access, issuer = catalog.access, "https://issuer.example"
    binding = await change(catalog, partial(changes.bind, name="alice", issuer=issuer, claims={"sub": "x"}))
    assert [one.id for one in access.bindings_to(issuer)] == [one.id for one in access.bindings_of(alice)] == [binding]
    await catalog.database.write(lambda tx: mark_restored(tx.execute))
    assert access.bindings_to(issuer) == access.bindings_of(alice) == []
    assert not access.is_in_force(alice, binding)


async def test_a_catalog_without_access_control_is_restored_without_a_mark(catalog):
    await catalog.database.write(lambda tx: mark_restored(tx.execute))
    assert not catalog.access.is_restored and catalog.access.revision == 0


async def test_a_heal_keeps_what_facts_say_and_have_seen(catalog):
    """A fork asserts facts again under another writer: their ids and what they name stay."""
    alice = await change(catalog, account("alice"))
    await change(catalog, grant("alice"))
    state, facts = catalog.facts(DOCUMENT)
    await catalog.heal(DOCUMENT, state.vector, facts[:1])
    assert catalog.facts(DOCUMENT)[1] != facts
    assert catalog.access.rights(Caller(alice), "t/a", 0) == {Right.PULL: None}
    assert catalog.access.policy.findings == ()
