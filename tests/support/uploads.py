"""The uploads of a process that serves alone, over a catalog and a store."""

from registry.catalog.catalog import Catalog
from registry.ports import Clock
from registry.storage.disk_budget import DiskBudget
from registry.storage.shared_usage import SharedUsage
from registry.storage.store import BlobStore
from registry.storage.upload_commits import CatalogCommits
from registry.storage.upload_homes import ALONE
from registry.storage.upload_places import UploadPlaces
from registry.storage.uploads import Uploads


async def acknowledged_at_once(change):
    """Return at once: there is no other instance."""


def uploads_alone(catalog: Catalog, store: BlobStore, clock: Clock, most: int, usage: SharedUsage) -> Uploads:
    """Return uploads of which `most` may be under way, without a budget."""
    budget = DiskBudget(0, usage)
    commits = CatalogCommits(catalog, store, clock, budget, acknowledged_at_once)
    own = usage.of(ALONE)
    return Uploads(catalog.database, store, clock, UploadPlaces(most, own), budget, commits, own)
