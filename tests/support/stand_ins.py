"""Stand-ins for collaborators that an object requires and a test does not look at, and recorders of their calls.

What does nothing here is named for what is left out.
"""

from typing import Any

from registry.catalog.change_sink import Unpublished
from registry.catalog.database import WrongSize
from registry.storage.content_mark import ContentMark


class WrongSizesIgnored:
    """Reports no wrong size."""

    def report(self, wrong: WrongSize) -> None:
        pass


class MarkedOnly(Unpublished):
    """Of the steps that follow a commit, only the mark beside the content."""

    def __init__(self, mark: ContentMark) -> None:
        self.content_added = mark.note_added  # type: ignore[method-assign]


class RecordedSteps:
    """Records the steps that follow a commit, in their order."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, ...]] = []

    def __getattr__(self, step: str) -> Any:
        return lambda *given: self.steps.append((step, *given))
