"""The steps that follow a commit, in their order.

A commit that is not published is a change that other instances learn of only by anti-entropy, and a link that is not
passed on is content that is never fetched. So a database has exactly one sink, attached explicitly, and an operation
that would need a step of it raises before that.

The steps run on the event loop, once the group of operations is durable, operation by operation, and for an operation
update by update:

    1. linked          for every update that brings blob links, of any instance
    2. log_grew        for every update that makes a document due for a snapshot
    3. publish         for every change of this instance
    4. content_added   once for a group in which content was added
    5. taken_in        for an update from elsewhere that changed something, when its waiter goes on

An error of the steps 1 to 3 is logged, and the steps after it run. The steps 4 and 5 raise nothing.

Observers, if there are any, come before all steps: they see that a group is durable before anything follows from it.

Two notes of the catalog to itself run among them: before the steps of an update, what it brings that is not understood
(`understanding`), and after those of an operation, sizes that disagree (`wrong_sizes`).
"""

from typing import Protocol

from crdt.change import Change
from crdt.fact import Fact


class ChangeSink(Protocol):
    """The steps that follow a commit. None of them may wait."""

    def linked(self, document: str, links: list[Fact]) -> None:
        """Handle new blob links of a document."""

    def log_grew(self, document: str) -> None:
        """Note that a document is due for a snapshot."""

    def publish(self, change: Change) -> None:
        """Publish a change of this instance to the other members."""

    def content_added(self) -> None:
        """Note that content was added to this disk."""

    def taken_in(self, latest: tuple[int, int], sender: str | None) -> None:
        """Handle an update from elsewhere, with time and writer of its newest fact, zeros for none. `sender` is the
        instance whose frame brought it; None for an update that a diff brought."""


class CommitObserver(Protocol):
    """Sees every commit of a database at the moment at which it is durable, and takes no part in what follows. The
    checkers of simulations are one; a running instance has none."""

    def on_commit(self) -> None:
        """Look at what is committed now. An error is logged, and the steps go on."""


class Unpublished:
    """The sink of a catalog that is written while no instance runs on it. The next start finds what is due for a
    snapshot, and anti-entropy brings the changes to the other members."""

    def linked(self, document: str, links: list[Fact]) -> None:
        """Leave the links to the round over all content that follows a start."""

    def log_grew(self, document: str) -> None:
        """Leave the snapshot to the next start."""

    def publish(self, change: Change) -> None:
        """Leave the change to anti-entropy."""

    def content_added(self) -> None:
        """Leave the content mark to the next start."""

    def taken_in(self, latest: tuple[int, int], sender: str | None) -> None:
        """Measure nothing."""
