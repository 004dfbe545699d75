"""The collaborators of the handlers of requests between instances. `registry.app` builds the contexts."""

from collections.abc import Sequence
from dataclasses import dataclass

from registry.catalog.access import CommittedAccess
from registry.catalog.catalog import Catalog
from registry.catalog.database import Database
from registry.catalog.queries import Queries
from registry.catalog.replica import DocumentReplica
from registry.cluster.membership.decommission import Decommission
from registry.cluster.membership.discovery import Discovery
from registry.cluster.membership.incarnation import Incarnation
from registry.cluster.membership.members import Members
from registry.cluster.membership.reachability import Reachability
from registry.cluster.placement.eviction import Evictor
from registry.cluster.placement.garbage_collection import GarbageCollector
from registry.cluster.placement.write_concern import WriteConcern
from registry.cluster.replication.diff_requests import DiffRequests
from registry.cluster.replication.document_advances import DocumentAdvances
from registry.cluster.replication.gossip import Gossip
from registry.cluster.replication.manifest_bodies import ManifestBodies
from registry.cluster.replication.site_lease import SiteLease
from registry.cluster.rpc.key_acceptance import KeyAcceptance
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.sessions import SeenRequests
from registry.cluster.transfer.blob_reader import BlobReader
from registry.http.oci.context import OwnUploadContext
from registry.ports import Clock, PeerTransport
from registry.storage.store import BlobStore
from registry.telemetry.counters import PeerRequests
from registry.telemetry.refusals import Refusals


@dataclass(frozen=True, slots=True)
class AccessContext:
    """For sessions, MACs and sequence numbers, and for requests that are meant for another member."""

    catalog: Catalog
    rights: CommittedAccess
    clock: Clock
    keys: Sequence[ClusterKey]
    incarnation: Incarnation
    seen_requests: SeenRequests
    acceptance: KeyAcceptance
    capabilities: Sequence[str]
    members: Members
    transport: PeerTransport
    requests: PeerRequests
    requires_certificate: bool
    """True if the other instance must have proved itself by a certificate in the handshake of TLS."""


@dataclass(frozen=True, slots=True)
class DocumentContext:
    """For procedures about documents and members."""

    catalog: Catalog
    rights: CommittedAccess
    replica: DocumentReplica
    queries: Queries
    database: Database
    discovery: Discovery
    advances: DocumentAdvances
    gossip: Gossip
    diff_requests: DiffRequests
    members: Members
    site_lease: SiteLease
    reachability: Reachability


@dataclass(frozen=True, slots=True)
class ContentContext:
    """For content, and procedures about it."""

    queries: Queries
    store: BlobStore
    blob_reader: BlobReader
    bodies: ManifestBodies
    evictor: Evictor
    decommission: Decommission
    write_concern: WriteConcern
    garbage_collector: GarbageCollector
    members: Members


@dataclass(frozen=True, slots=True)
class PeerContext:
    """For all requests between instances, and by it for their handlers."""

    access: AccessContext
    documents: DocumentContext
    content: ContentContext
    uploads: OwnUploadContext
    database: Database
    decommission: Decommission
    refusals: Refusals
