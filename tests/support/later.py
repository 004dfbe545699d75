"""A later version for tests with real processes, see `simulations.later_version`."""

from registry.capabilities import FACT_KINDS as KNOWN
from simulations.later_version import KIND, KINDS, later_fact

__all__ = ["KIND", "KINDS", "become_later", "later_fact"]


def become_later() -> None:
    """Make this process one of the later version. Called before it serves."""
    KNOWN.update(KINDS)  # the mapping that all use by default
