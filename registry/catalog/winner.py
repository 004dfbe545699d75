"""The winner rule: which of several live facts about one key decides, such as what a tag is after concurrent pushes.

The fact with the highest time of the hybrid logical clock wins, and of equal times the one with the larger writer (last
writer wins: Thomas, "A majority consensus approach to concurrency control", 1979). The rule depends on the facts alone,
so all instances choose the same winner. It stands here once as a sort key, and once as an SQL order.
"""

from typing import Protocol


class Stamped(Protocol):
    """A fact with the time and the writer that order it."""

    @property
    def time(self) -> int: ...

    @property
    def writer(self) -> int: ...


def winner_key(fact: Stamped) -> tuple[int, int]:
    """Return the sort key by which the winner of several facts is the greatest."""
    return fact.time, fact.writer


def winner_first(table: str = "facts") -> str:
    """Return the SQL order that puts the winner of several facts of a table first."""
    return f"{table}.time DESC, {table}.writer DESC"
