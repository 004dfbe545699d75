"""The event that a diff has brought a document forward, and the parts of the node that wait for it.

Frames that came too early wait for a diff, and the diff is requested by the part that holds these frames. So the wiring
builds `DocumentAdvances` first and connects the listeners to it last.
"""

from collections.abc import Sequence
from typing import Protocol

from crdt.vector import Vector


class AdvanceListener(Protocol):
    """A part that waits for diffs."""

    def on_advanced(self, document: str, vector: Vector) -> None:
        """React to a document that a diff has brought to `vector`."""


class DocumentAdvances:
    """Passes the event on to the connected parts, in their order. An event before they are connected is an error."""

    def __init__(self) -> None:
        self._listeners: Sequence[AdvanceListener] = ()

    def connect(self, *listeners: AdvanceListener) -> None:
        """Connect all listeners, once."""
        assert not self._listeners and listeners, "listeners are connected once"
        self._listeners = listeners

    def announce(self, document: str, vector: Vector) -> None:
        """Announce that a diff has brought a document to `vector`."""
        assert self._listeners, "listeners are connected before the first diff"
        for listener in self._listeners:
            listener.on_advanced(document, vector)
