"""How SQLite answers what is asked most: by searching, never by walking all of a repository."""

import apsw
import pytest

from registry.catalog import queries, referrers, schema, understanding
from registry.http.wire import fast_path as direct

FACTS_ABOUT_A_KEY = {
    "observed": "SELECT kind FROM facts WHERE document = ? AND kind = ? AND key = ? ORDER BY time, writer",
    "tags of a manifest": "SELECT kind FROM facts WHERE document = ? AND kind = 't' AND digest = ?",
    "digests of a tag": "SELECT digest FROM facts WHERE document = ? AND kind = 't' AND key = ?",
    "by identity": "DELETE FROM facts WHERE document = ? AND writer = ? AND clock BETWEEN ? AND ? RETURNING kind",
    "by tag": queries._BY_TAG,
    "by digest": queries._BY_DIGEST,
    "blob": queries._BLOB,
    "anywhere": queries._ANYWHERE,
    "referrer": referrers._ROW,
    "missing": direct._IS_MISSING,
}
RANGES = {
    "tags": queries._TAGS,
    "tag facts": queries._TAG_FACTS,
    "repositories": "SELECT name FROM documents WHERE facts > 0 AND name > ? AND name < ? ORDER BY name LIMIT ?",
    "current": direct._CHANGED,
    "not understood": understanding._BLOCKING,
    "not understood in a range": understanding._IN_RANGE,
    "changes": "SELECT name, changed FROM documents WHERE changed > ? ORDER BY changed LIMIT ?",
}


@pytest.fixture(scope="module")
def connection():
    opened = apsw.Connection(":memory:")
    schema.migrate(opened)
    return opened


def plan(connection, sql):
    rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * sql.count("?"))
    return [row[3] for row in rows]


def test_referrers_are_found_by_subject_and_by_the_list_of_the_tag(connection):
    """What is found is sorted; apart from that, nothing is walked but the referrers themselves."""
    for sql in (referrers._COUNT, referrers._LIVE):
        rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * 4)
        scans = [row[3] for row in rows if row[3].startswith("SCAN")]
        assert not [step for step in scans if not step.startswith(("SCAN r", "SCAN (subquery"))], scans


@pytest.mark.parametrize("name", [*FACTS_ABOUT_A_KEY, *RANGES])
def test_nothing_is_scanned(connection, name):
    steps = plan(connection, (FACTS_ABOUT_A_KEY | RANGES)[name])
    assert not [step for step in steps if step.startswith("SCAN") and step != "SCAN CONSTANT ROW"], steps


@pytest.mark.parametrize("name", FACTS_ABOUT_A_KEY)
def test_facts_are_found_by_all_that_is_known_of_them(connection, name):
    steps = [step for step in plan(connection, FACTS_ABOUT_A_KEY[name]) if "facts" in step or "PRIMARY KEY" in step]
    assert steps
    for step in steps:
        assert "key=?" in step or "digest=?" in step or "writer=?" in step or "rowid=?" in step, steps
