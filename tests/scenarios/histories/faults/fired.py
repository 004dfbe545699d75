"""The result of a fault."""

from collections.abc import Callable
from dataclasses import dataclass


def nothing() -> None:
    return None


@dataclass(frozen=True)
class Fired:
    """A fault that was made."""

    what: str
    sites: tuple[str, ...]
    undo: Callable[[], None] = nothing
    parts_site: str = ""
    """The site whose members it parts from each other."""
