"""Diffs that a member made in sight of facts of access control that are not here: those facts come first."""

from types import SimpleNamespace

import pytest

from crdt.fact import tag_fact
from crdt.revisions import Revision, encode_revisions
from registry.access import changes
from registry.access.facts import DOCUMENT, OPERATOR
from registry.catalog.access import change_access
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.rpc import messages as m
from registry.ports import PeerUnreachable
from tests.support.client import sha256
from tests.support.seams import StillClock, opened_catalog

REPOSITORY = "repository/app"
MEMBER = SimpleNamespace(shown="other", prompt=True, instance="other")


class Peers:
    """Another instance, which answers for diffs with what it has, in a log of the documents that are asked for."""

    def __init__(self, catalog, withholds=()):
        self._catalog = catalog
        self._withholds = withholds
        self.asked = []

    async def ask(self, member, path, request, answer, timeout_s):
        assert path == "/diffs"
        names = [name for name, _ in request.documents]
        self.asked += names
        diffs = []
        for name in names:
            state, update = self._catalog.replica.state_and_diff(name, {})
            diffs.append(m.DiffResponse.of(state, b"" if name in self._withholds else update))
        return m.DiffsResponse(diffs, {}, encode_revisions(self._catalog.access.reached))


@pytest.fixture
async def here(tmp_path):
    catalog = await opened_catalog(tmp_path / "here")
    yield catalog
    await catalog.stop()


@pytest.fixture
async def there(tmp_path):
    """An instance that enforces access control, with a repository that was pushed after a revocation."""
    catalog, clock = await opened_catalog(tmp_path / "there"), StillClock()
    for plan in (
        lambda draft: changes.create_account(draft, name="root", kind="user", password_hash="hash", admin=True),
        changes.enforce,
        lambda draft: changes.revoke(draft, subject="anonymous", pattern="*", distrust=False),
    ):
        await catalog.database.write(lambda tx, plan=plan: change_access(tx, catalog.documents, clock, OPERATOR, plan))
    fact = tag_fact("v1", sha256(b"x"), 1, 5)
    await catalog.database.write(lambda tx: catalog.documents.write(tx, REPOSITORY, [], [fact]))
    yield catalog
    await catalog.stop()


def anti_entropy(catalog, peers):
    advances = SimpleNamespace(announce=lambda document, vector: None)
    return AntiEntropy(catalog, peers, None, advances)


async def test_facts_of_access_control_are_taken_in_before_the_diff_of_a_repository(here, there):
    peers = Peers(there)
    (diff,) = await anti_entropy(here, peers)._diffs(MEMBER, [(REPOSITORY, {})], 1.0)
    assert peers.asked == [REPOSITORY, DOCUMENT] and diff.update
    assert here.access.digest == there.access.digest and here.access.is_enforced
    await anti_entropy(here, peers)._diffs(MEMBER, [(REPOSITORY, {})], 1.0)
    assert peers.asked == [REPOSITORY, DOCUMENT, REPOSITORY], "once"


async def test_a_diff_is_refused_while_facts_of_access_control_do_not_come(here, there):
    with pytest.raises(PeerUnreachable, match="access control"):
        await anti_entropy(here, Peers(there, withholds=[DOCUMENT]))._diffs(MEMBER, [(REPOSITORY, {})], 1.0)
    assert here.replica.state(REPOSITORY).vector == {}


async def test_an_instance_that_does_not_enforce_says_nothing_of_its_facts(here):
    assert here.access.reached == ()
    here.access.require_reached([])
    here.access.require_reached([Revision(DOCUMENT, {})])
    here.access.require_reached([Revision("another", {1: 1})])
