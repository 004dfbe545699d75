"""The collaborators of the handlers of `/v2`: one context for each kind of resource.

A handler is given the context of its resource and calls its collaborators directly. `registry.app` builds the contexts.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from crdt.change import Change
from registry.catalog.database import Database, Reads
from registry.catalog.documents import Documents
from registry.catalog.queries import Queries
from registry.cluster.membership.decommission import Decommission
from registry.cluster.membership.members import Members
from registry.cluster.placement.eviction import Evictor
from registry.cluster.placement.garbage_collection import GarbageCollector
from registry.cluster.placement.write_concern import WriteConcern
from registry.cluster.replication.manifest_bodies import ManifestBodies
from registry.cluster.rpc.client import PeerClient
from registry.cluster.transfer.blob_reader import BlobReader
from registry.cluster.transfer.locator import Locator
from registry.http.access.token_endpoint import TokenEndpoint
from registry.http.drain_state import DrainState
from registry.http.wire.process_relay import ProcessRelay
from registry.oci.names import Repository
from registry.ports import Clock
from registry.storage.disk_budget import DiskBudget
from registry.storage.manifest_memory import ManifestMemoryBudget
from registry.storage.upload_homes import ProcessSlot
from registry.storage.uploads import Uploads
from registry.telemetry.refusals import Refusals


class RepositoryReplication(Protocol):
    """The exchanges with other members that a request waits for before it is answered."""

    async def read_repair(self, repository: Repository) -> None:
        """Ask the members that may know more of a repository, before a miss is answered. Raises NeedsUpgrade."""

    async def sync_before_delete(self, repository: Repository) -> None:
        """Fetch what reachable members know more, so that a delete deletes that too."""

    async def await_acknowledgements(self, change: Change) -> None:
        """Wait until a committed change may be answered."""


@dataclass(frozen=True, slots=True)
class ListContext:
    """For lists of repositories, tags and referrers."""

    queries: Queries
    database: Database
    replication: RepositoryReplication


@dataclass(frozen=True, slots=True)
class BlobContext:
    """For pulls, mounts and deletes of blobs."""

    queries: Queries
    database: Database
    documents: Documents
    clock: Clock
    replication: RepositoryReplication
    blob_reader: BlobReader
    evictor: Evictor
    garbage_collector: GarbageCollector
    locator: Locator
    decommission: Decommission


@dataclass(frozen=True, slots=True)
class ManifestContext:
    """For manifests and tags."""

    queries: Queries
    database: Database
    documents: Documents
    clock: Clock
    replication: RepositoryReplication
    bodies: ManifestBodies
    write_concern: WriteConcern
    memory: ManifestMemoryBudget
    members: Members
    locator: Locator
    holder_wait_s: float
    """Time for which a request waits for a member that has a body."""
    sparse: bool
    """True where a manifest may be pushed before what it refers to."""


@dataclass(frozen=True, slots=True)
class OwnUploadContext:
    """For uploads whose home this process is, the primary or a worker."""

    uploads: Uploads
    clock: Clock
    budget: DiskBudget
    drain: DrainState
    slot: ProcessSlot
    instance: Callable[[], str]
    """Returns the id of this instance, which owns these uploads."""
    keys: Callable[[], Sequence[bytes]]
    """Returns the keys that seal ids of uploads; the first seals new ones."""
    database: Reads
    refusals: Refusals
    relay: ProcessRelay
    """The way to the homes of other uploads."""
    namespaces: Collection[str]
    """The names that the parameter `ns` of a request may have."""


@dataclass(frozen=True, slots=True)
class UploadContext:
    """For uploads of any instance."""

    own: OwnUploadContext
    blobs: BlobContext
    """For mounts, which upload requests may ask for."""
    members: Members
    peers: PeerClient


@dataclass(frozen=True, slots=True)
class OciContext:
    """For the routes of `/v2`, and by them for the handlers."""

    tokens: TokenEndpoint
    lists: ListContext
    blobs: BlobContext
    manifests: ManifestContext
    uploads: UploadContext
    database: Database
    decommission: Decommission
    refusals: Refusals
    namespaces: Collection[str]
    """The names that the parameter `ns` of a request may have."""
