"""The winner rule, as a sort key and as an SQL order."""

import itertools
import random
from typing import NamedTuple

import apsw

from registry.catalog.winner import winner_first, winner_key


class StampedFact(NamedTuple):
    time: int
    writer: int


def test_sort_key_and_sql_order_choose_the_same_winner():
    facts = [StampedFact(*pair) for pair in itertools.product((1, 2, 2**62), (0, 9, 10, 2**53 - 1))]
    random.Random(1).shuffle(facts)
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE facts (time INTEGER, writer INTEGER)")
    connection.executemany("INSERT INTO facts VALUES (?, ?)", facts)
    rows = connection.execute(f"SELECT time, writer FROM facts ORDER BY {winner_first()}").fetchall()
    assert rows == sorted(facts, key=winner_key, reverse=True)
    assert rows[0] == (2**62, 2**53 - 1)
