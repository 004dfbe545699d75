"""The collaborators of the handlers of `/_concord`, of health and of metrics. `registry.app` builds the context."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.registry import CollectorRegistry

from crdt.change import Change
from registry.access.facts import OPERATOR
from registry.access.rights import AccessView
from registry.audit.log import AuditLog
from registry.capabilities import Abilities
from registry.catalog.access import CommittedAccess
from registry.catalog.catalog import Catalog
from registry.catalog.credential_uses import CredentialUses
from registry.catalog.database import Database
from registry.catalog.documents import Documents
from registry.catalog.queries import Queries
from registry.catalog.replica import DocumentReplica
from registry.catalog.wrong_sizes import WrongSizes
from registry.cluster.membership.audit_witness import AuditWitness
from registry.cluster.membership.clock_offsets import ClockOffsets
from registry.cluster.membership.content_handover import ContentHandover
from registry.cluster.membership.decommission import Decommission
from registry.cluster.membership.incarnation import Incarnation
from registry.cluster.membership.lifecycle import Lifecycle
from registry.cluster.membership.members import Members
from registry.cluster.membership.reachability import Reachability
from registry.cluster.membership.removal import Removals
from registry.cluster.membership.watch import MemberWatch
from registry.cluster.placement.eviction import Evictor
from registry.cluster.placement.garbage_collection import GarbageCollector
from registry.cluster.placement.replicator import Replicator
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.replication.direct_push import DirectPush
from registry.cluster.replication.gossip import Gossip
from registry.cluster.replication.lag import ReplicationDelays
from registry.cluster.replication.read_lease import ReadLease
from registry.cluster.replication.site_lease import SiteLease
from registry.cluster.rpc.client import PeerClient
from registry.cluster.rpc.key_acceptance import KeyAcceptance
from registry.cluster.transfer.blob_reader import BlobReader
from registry.cluster.transfer.scrubber import Scrubber
from registry.cluster.transfer.transfer import Transfers
from registry.config import Config
from registry.http.peer.context import AccessContext
from registry.ports import Bus, Clock, Disk
from registry.settings.policy import Policy
from registry.storage.leftovers import Leftovers
from registry.storage.quarantine import Quarantine
from registry.storage.shared_usage import SharedUsage
from registry.storage.space import DiskSpace
from registry.telemetry.counters import PeerRequests, Traffic
from registry.telemetry.log_limit import LogLimit
from registry.telemetry.refusals import Refusals


class ReadySource(Protocol):
    """The readiness of an instance."""

    @property
    def ready(self) -> bool:
        """Return whether a load balancer should send requests to the instance."""


@dataclass(frozen=True, slots=True)
class ActionsContext:
    """For the access to administrative actions."""

    access: AccessContext
    config: Config
    rejection_limit: LogLimit
    """Bounds the log lines of administrative requests that were refused."""
    peer_requests: PeerRequests
    audit: AuditLog


class SiteCommit(Protocol):
    """The wait for the other instances of the own site."""

    async def await_acknowledgements(self, change: Change) -> None:
        """Wait until a committed change may be answered."""


@dataclass(frozen=True, slots=True)
class AccessControlContext:
    """For accounts and their rights."""

    access: CommittedAccess
    database: Database
    documents: Documents
    clock: Clock
    replication: SiteCommit
    members: Members
    uses: CredentialUses
    author: str = OPERATOR
    """The author of changes: the account that makes the request, or the operator, who holds the cluster key or the
    host."""


@dataclass(frozen=True, slots=True)
class CollectionContext:
    """For garbage collection on demand."""

    queries: Queries
    database: Database
    documents: Documents
    clock: Clock
    garbage_collector: GarbageCollector
    leftovers: Leftovers


@dataclass(frozen=True, slots=True)
class LeavingContext:
    """For members that go for good, this instance among them."""

    catalog: Catalog
    members: Members
    removals: Removals
    decommission: Decommission
    handover: ContentHandover
    lifecycle: Lifecycle


@dataclass(frozen=True, slots=True)
class CatalogContext:
    """For what the catalog holds, and which member has what of it."""

    config: Config
    catalog: Catalog
    queries: Queries
    database: Database
    replica: DocumentReplica
    wrong_sizes: WrongSizes
    members: Members
    peers: PeerClient


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """For the state of the processes of this instance, and what they have served."""

    config: Config
    clock: Clock
    abilities: Abilities
    readiness: ReadySource
    access: AccessView
    deaths: Callable[[], Mapping[str, int]]
    """Returns the number of processes that died and were replaced, by role."""
    metrics: CollectorRegistry
    """The metrics that the process adds."""
    traffic: Traffic
    refusals: Refusals
    usage: SharedUsage
    peer_requests: PeerRequests
    space: DiskSpace


@dataclass(frozen=True, slots=True)
class MembersContext:
    """For the state of the members, and how this instance and they reach each other."""

    config: Config
    clock: Clock
    replica: DocumentReplica
    members: Members
    acceptance: KeyAcceptance
    reachability: Reachability
    watch: MemberWatch
    offsets: ClockOffsets
    audit_witness: AuditWitness
    delays: ReplicationDelays


@dataclass(frozen=True, slots=True)
class ReplicationContext:
    """For the state of the replication of documents."""

    bus: Bus
    incarnation: Incarnation
    gossip: Gossip
    direct_push: DirectPush
    anti_entropy: AntiEntropy
    acknowledgements: Acknowledgements
    lease: ReadLease
    site_lease: SiteLease


@dataclass(frozen=True, slots=True)
class PlacementContext:
    """For the state of content: replicas, eviction, garbage collection, checks and transfers."""

    clock: Clock
    disk: Disk
    policy: Policy
    rules_without_effect: Mapping[int, str]
    replicator: Replicator
    evictor: Evictor
    garbage_collector: GarbageCollector
    leftovers: Leftovers
    transfers: Transfers
    blob_reader: BlobReader
    quarantine: Quarantine
    scrubber: Scrubber


@dataclass(frozen=True, slots=True)
class AdminContext:
    """For all handlers of this group."""

    actions: ActionsContext
    access: AccessControlContext
    collection: CollectionContext
    leaving: LeavingContext
    catalog: CatalogContext
    process: ProcessContext
    members: MembersContext
    replication: ReplicationContext
    placement: PlacementContext
