"""The composition root of what is served: gives each group of handlers the parts of the instance that it uses."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from registry.access.rights import AccessView
from registry.http.access.gate import Gate
from registry.http.access.identity_checks import LocalIdentityChecks
from registry.http.access.issuer_keys import IssuerKeys
from registry.http.access.password_checks import LocalPasswordChecks
from registry.http.access.sources import access_view
from registry.http.access.token_endpoint import TokenEndpoint
from registry.http.access.verified import VerifiedPasswords
from registry.http.admin import context as admin
from registry.http.admin.context import AdminContext
from registry.http.context import HttpContext
from registry.http.oci.context import (
    BlobContext,
    ListContext,
    ManifestContext,
    OciContext,
    OwnUploadContext,
    UploadContext,
)
from registry.http.peer.context import AccessContext, ContentContext, DocumentContext, PeerContext
from registry.http.wire.fast_path import FastPath
from registry.http.wire.process_relay import ProcessRelay
from registry.instance import Instance
from registry.ports import KeySource
from registry.settings.trusted_proxies import TrustedProxies
from registry.storage.manifest_memory import ManifestMemoryBudget
from registry.telemetry.log_limit import LogLimit


def http_context(
    instance: Instance,
    process_deaths: Callable[[], Mapping[str, int]],
    relay: ProcessRelay,
    issuers: KeySource,
    hashing: Executor | None = None,
) -> HttpContext:
    """Return the collaborators of the application over a started instance. `process_deaths` returns the number of
    processes that died and were replaced, by role; `relay` is the way to those that serve; `issuers` gives the keys of
    identity providers; `hashing` are the threads that hash passwords, those of the loop by default."""
    cluster, config = instance.cluster, instance.config
    gate = _gate(instance, issuers, hashing)
    oci, access = _oci(instance, relay, gate), _access(instance)
    return HttpContext(
        oci=oci,
        peer=_peer(instance, access, oci.uploads.own),
        admin=_admin(instance, gate.view, access, process_deaths),
        fast_path=FastPath(
            instance.catalog.database,
            instance.store,
            instance.clock,
            config.verify_after_s,
            instance.traffic,
            instance.lease,
            cluster.evictor.touch,
            instance.store.mark_suspect,
        ),
        gate=gate,
        clock=instance.clock,
        traffic=instance.traffic,
        proxies=TrustedProxies(config.proxies),
        drain=instance.drain,
        lease=instance.lease,
        site_lease=cluster.site_lease,
        answers_clients=cluster.answers_clients,
        logs_requests=config.log_requests,
    )


def _gate(instance: Instance, issuers: KeySource, hashing: Executor | None) -> Gate:
    cluster, clock = instance.cluster, instance.clock
    view = access_view(instance.catalog.database)

    def keys() -> list[bytes]:
        return [key.tokens for key in cluster.keys]

    verified = VerifiedPasswords(instance.shared.verified, keys)
    checks = LocalPasswordChecks(clock, verified, lambda: view.revision, hashing)
    issuer_keys = IssuerKeys(issuers, instance.disk, clock)
    identities = LocalIdentityChecks(view, issuer_keys, clock, instance.config.oidc_audience)
    gate = Gate(view, keys, clock, checks, identities, instance.audit, instance.config)
    instance.credential_uses.attach(gate.logins.take)
    return gate


def _oci(instance: Instance, relay: ProcessRelay, gate: Gate) -> OciContext:
    catalog, cluster, clock = instance.catalog, instance.cluster, instance.clock
    queries, database, documents = catalog.queries, catalog.database, catalog.documents
    blobs = BlobContext(
        queries=queries,
        database=database,
        documents=documents,
        clock=clock,
        replication=cluster,
        blob_reader=cluster.blob_reader,
        evictor=cluster.evictor,
        garbage_collector=cluster.garbage_collector,
        locator=cluster.locator,
        decommission=cluster.decommission,
    )
    manifests = ManifestContext(
        queries=queries,
        database=database,
        documents=documents,
        clock=clock,
        replication=cluster,
        bodies=cluster.bodies,
        write_concern=cluster.write_concern,
        memory=ManifestMemoryBudget(),
        members=cluster.members,
        locator=cluster.locator,
        holder_wait_s=instance.config.holder_wait_s,
        sparse=instance.config.sparse,
    )
    own_uploads = OwnUploadContext(
        uploads=instance.uploads,
        clock=clock,
        budget=instance.budget,
        drain=instance.drain,
        slot=instance.slot,
        instance=lambda: catalog.instance_id,
        keys=lambda: [key.uploads for key in cluster.keys],
        database=database,
        refusals=instance.refusals,
        relay=relay,
        namespaces=instance.config.name,
    )
    uploads = UploadContext(own=own_uploads, blobs=blobs, members=cluster.members, peers=cluster.peers)
    return OciContext(
        tokens=TokenEndpoint(gate),
        lists=ListContext(queries, database, cluster),
        blobs=blobs,
        manifests=manifests,
        uploads=uploads,
        database=database,
        decommission=cluster.decommission,
        refusals=instance.refusals,
        namespaces=instance.config.name,
    )


def _access(instance: Instance) -> AccessContext:
    cluster = instance.cluster
    return AccessContext(
        catalog=instance.catalog,
        rights=instance.catalog.access,
        clock=instance.clock,
        keys=cluster.keys,
        incarnation=cluster.incarnation,
        seen_requests=instance.seen_requests,
        acceptance=cluster.peers.acceptance,
        capabilities=instance.abilities.capabilities,
        members=cluster.members,
        transport=instance.transport,
        requests=instance.peer_requests,
        requires_certificate=instance.config.has_mutual_tls,
    )


def _peer(instance: Instance, access: AccessContext, uploads: OwnUploadContext) -> PeerContext:
    catalog, cluster = instance.catalog, instance.cluster
    documents = DocumentContext(
        catalog=catalog,
        rights=catalog.access,
        replica=catalog.replica,
        queries=catalog.queries,
        database=catalog.database,
        discovery=cluster.discovery,
        advances=cluster.advances,
        gossip=cluster.gossip,
        diff_requests=cluster.diff_requests,
        members=cluster.members,
        site_lease=cluster.site_lease,
        reachability=cluster.reachability,
    )
    content = ContentContext(
        queries=catalog.queries,
        store=instance.store,
        blob_reader=cluster.blob_reader,
        bodies=cluster.bodies,
        evictor=cluster.evictor,
        decommission=cluster.decommission,
        write_concern=cluster.write_concern,
        garbage_collector=cluster.garbage_collector,
        members=cluster.members,
    )
    return PeerContext(
        access=access,
        documents=documents,
        content=content,
        uploads=uploads,
        database=catalog.database,
        decommission=cluster.decommission,
        refusals=instance.refusals,
    )


def _admin(
    instance: Instance, view: AccessView, access: AccessContext, process_deaths: Callable[[], Mapping[str, int]]
) -> AdminContext:
    catalog, cluster, clock = instance.catalog, instance.cluster, instance.clock
    return AdminContext(
        actions=admin.ActionsContext(access, instance.config, LogLimit(clock), instance.peer_requests, instance.audit),
        access=admin.AccessControlContext(
            catalog.access,
            catalog.database,
            catalog.documents,
            clock,
            cluster,
            cluster.members,
            instance.credential_uses,
        ),
        collection=admin.CollectionContext(
            catalog.queries,
            catalog.database,
            catalog.documents,
            clock,
            cluster.garbage_collector,
            instance.leftovers,
        ),
        leaving=admin.LeavingContext(
            catalog,
            cluster.members,
            cluster.removals,
            cluster.decommission,
            cluster.handover,
            cluster.lifecycle,
        ),
        catalog=admin.CatalogContext(
            instance.config,
            catalog,
            catalog.queries,
            catalog.database,
            catalog.replica,
            catalog.wrong_sizes,
            cluster.members,
            cluster.peers,
        ),
        process=_process(instance, view, process_deaths),
        members=admin.MembersContext(
            instance.config,
            clock,
            catalog.replica,
            cluster.members,
            cluster.peers.acceptance,
            cluster.reachability,
            cluster.watch,
            cluster.offsets,
            cluster.audit_witness,
            cluster.delays,
        ),
        replication=_replication(instance),
        placement=_placement(instance),
    )


def _process(instance: Instance, view: AccessView, deaths: Callable[[], Mapping[str, int]]) -> admin.ProcessContext:
    return admin.ProcessContext(
        config=instance.config,
        clock=instance.clock,
        abilities=instance.abilities,
        readiness=instance,
        access=view,
        deaths=deaths,
        metrics=instance.metrics,
        traffic=instance.traffic,
        refusals=instance.refusals,
        usage=instance.shared.usage,
        peer_requests=instance.peer_requests,
        space=instance.cluster.space,
    )


def _replication(instance: Instance) -> admin.ReplicationContext:
    cluster = instance.cluster
    return admin.ReplicationContext(
        bus=cluster.bus,
        incarnation=cluster.incarnation,
        gossip=cluster.gossip,
        direct_push=cluster.direct_push,
        anti_entropy=cluster.anti_entropy,
        acknowledgements=cluster.acknowledgements,
        lease=instance.lease,
        site_lease=cluster.site_lease,
    )


def _placement(instance: Instance) -> admin.PlacementContext:
    cluster = instance.cluster
    return admin.PlacementContext(
        clock=instance.clock,
        disk=instance.disk,
        policy=cluster.policy,
        rules_without_effect=cluster.rules_without_effect,
        replicator=cluster.replicator,
        evictor=cluster.evictor,
        garbage_collector=cluster.garbage_collector,
        leftovers=instance.leftovers,
        transfers=cluster.transfers,
        blob_reader=cluster.blob_reader,
        quarantine=cluster.blob_reader.quarantine,
        scrubber=cluster.scrubber,
    )
