"""Bugs of read leases, and of waiting for the own site."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import registry.cluster.replication.acknowledgements as acknowledgements
import registry.cluster.replication.site_lease as site_lease
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.read_lease import ReadLease
from registry.cluster.replication.site_lease import SiteLease
from simulations.planted.bug import together


def leases_ignored() -> AbstractContextManager[Any]:
    """Reads are answered from rows however long the primary has stood still."""
    return patch.object(ReadLease, "allows_read", lambda self: True)


def lapse_not_awaited() -> AbstractContextManager[Any]:
    """A write is answered when a member has missed it, while that member may still hold its lease."""
    return patch.object(acknowledgements, "LAPSE_S", 0.0)


def excluded_hold_leases() -> AbstractContextManager[Any]:
    """A member that is not waited for is granted leases all the same, and uses them before it has caught up."""

    async def has(self: SiteLease, *arguments: Any) -> bool:
        return True

    return together(
        patch.object(Acknowledgements, "may_hold_lease", lambda self, member, applied: True),
        patch.object(SiteLease, "_has", has),
        patch.object(SiteLease, "_has_all", lambda self, *arguments: True),
    )


def leases_that_last() -> AbstractContextManager[Any]:
    """A holder counts its lease for longer than its granter does."""
    return patch.object(site_lease, "LEASE_S", 4.0)
