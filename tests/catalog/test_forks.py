"""A writer used by two processes: both wrote different entries under the same identities."""

from crdt.delta import decode_delta, encode_delta
from crdt.fact import parse_fact, tag_fact
from registry.catalog.incoming import Incoming, take_in
from tests.support.seams import StillClock, opened_catalog

NAME = "repository/app"
D = ["sha256:" + f"{number:064x}" for number in range(10)]
W = 77


async def apply(catalog, raw):
    incoming = Incoming(NAME, raw, decode_delta(raw), {})
    return await catalog.database.write(lambda tx: take_in(tx, catalog.documents, incoming, 0))


async def exchange(one, other):
    """What catching up does: each side's diff to the other, by vectors."""
    for source, target in ((one, other), (other, one)):
        await apply(target, source.replica.diff(NAME, target.replica.state(NAME).vector))


def facts(catalog):
    """What a replica answers when it is asked for a whole document."""
    state, live = catalog.facts(NAME)
    return state.vector, live


def said(catalog):
    """What the live facts say, whoever says it."""
    return sorted(parse_fact(text)[:4] for _, _, text in catalog.facts(NAME)[1])


def fork(tag, digest, time=1):
    return encode_delta(W, 0, [tag_fact(tag, digest, time, W).text()], [])


async def forked(tmp_path, first, second):
    one, other = await opened_catalog(tmp_path / "1"), await opened_catalog(tmp_path / "2", StillClock(5))
    await apply(one, first)
    await apply(other, second)
    assert one.replica.state(NAME).vector == other.replica.state(NAME).vector
    return one, other


async def test_both_statements_survive_and_both_replicas_agree(tmp_path):
    one, other = await forked(tmp_path, fork("v1", D[1]), fork("v2", D[2]))
    await one.heal(NAME, *facts(other))
    await exchange(one, other)
    assert said(one) == said(other) == [("t", "v1", D[1], ""), ("t", "v2", D[2], "")]
    assert one.replica.root() == other.replica.root()


async def test_both_sides_healing_at_once_agree_too(tmp_path):
    one, other = await forked(tmp_path, fork("v1", D[1]), fork("v2", D[2]))
    ours, theirs = facts(one), facts(other)
    await one.heal(NAME, *theirs)
    await other.heal(NAME, *ours)
    await exchange(one, other)
    assert one.replica.root() == other.replica.root()
    assert {(key, digest) for _, key, digest, _ in said(one)} == {("v1", D[1]), ("v2", D[2])}


async def test_what_contradicts_itself_is_a_conflict(tmp_path):
    one, other = await forked(tmp_path, fork("v1", D[1]), fork("v1", D[2]))
    await one.heal(NAME, *facts(other))
    assert one.queries.conflicts(10) == [("app", "v1")]


async def test_what_one_side_has_deleted_is_kept(tmp_path):
    one, other = await forked(tmp_path, fork("v1", D[1]), encode_delta(W, 0, [], []))
    await one.heal(NAME, *facts(other))
    await exchange(one, other)
    assert said(one) == said(other) == [("t", "v1", D[1], "")]


async def test_healing_what_agrees_changes_nothing(tmp_path):
    one, other = await forked(tmp_path, fork("v1", D[1]), fork("v1", D[1]))
    before = one.replica.commit_number()
    await one.heal(NAME, *facts(other))
    assert one.replica.commit_number() == before


async def test_facts_of_unknown_kinds_are_healed_too(tmp_path):
    texts = [f"z\0{word}\0{1:016x}\0{W:x}" for word in ("one", "two")]
    one, other = await forked(tmp_path, *(encode_delta(W, 0, [text], []) for text in texts))
    await one.heal(NAME, *facts(other))
    await exchange(one, other)
    words = sorted(text.split("\0")[1] for _, _, text in other.facts(NAME)[1])
    assert words == ["one", "two"]


async def test_a_replica_that_has_gone_on_is_not_healed_by_what_was_asked_before(tmp_path):
    one, other = await forked(tmp_path, fork("v1", D[1]), fork("v2", D[2]))
    asked = facts(other)
    await apply(one, encode_delta(W + 1, 0, [tag_fact("new", D[3], 9, W + 1).text()], []))
    await one.heal(NAME, *asked)
    assert ("t", "new", D[3], "") in said(one), "a push that the other side had not seen is not undone"
    assert one.replica.state(NAME).vector == {W: 1, W + 1: 1}
