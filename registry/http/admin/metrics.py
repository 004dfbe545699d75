"""Prometheus metrics: `GET /metrics`.

A scrape reads the counters that the registry keeps anyway, and rows; nothing is counted twice. Labels have few values,
whatever clients and members send: routes rather than paths, outcomes and reasons from the code, members that hold the
cluster key. Histograms are by site; figures by member are single samples, so a cluster of hundreds stays affordable.
"""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from registry import __version__
from registry.catalog.understanding import MAX_LISTED, not_understood, not_understood_count
from registry.http.admin.context import AdminContext, MembersContext, PlacementContext, ProcessContext
from registry.http.admin.status_fields import MaintenanceTimes, last_seen_ms, maintenance_times
from registry.telemetry.refusals import REASONS
from registry.units import to_s

OPENMETRICS = "application/openmetrics-text"
INITIAL_VALUES: dict[str, dict[str, int]] = {
    "frames": dict.fromkeys(
        (
            "ahead of rights",
            "applied",
            "cannot enforce",
            "clone",
            "critical field",
            "foreign writer",
            "malformed",
            "not stored",
            "refused",
            "unauthentic",
        ),
        0,
    ),
    "anti_entropy_rounds": dict.fromkeys(("done", "failed", "forked"), 0),
    "pushes_refused": dict.fromkeys(REASONS, 0),
    "refused": dict.fromkeys(
        ("ahead of rights", "cannot enforce", "malformed", "no certificate", "replayed", "unauthentic"), 0
    ),
}
"""Labels shown with 0 from the start: Prometheus does not see the first increase of a counter that was absent."""
DELAY = "replication delay: seconds from a change's stamp at its sender, just before its commit, to its commit here"
SKEW = "; includes the difference of two wall clocks"


async def metrics(admin: AdminContext, request: Request) -> Response:
    """Return all metrics in the text format of Prometheus, or as OpenMetrics if the request accepts that."""
    space, queries = admin.process.space, admin.catalog.queries
    await space.look()
    figures = InstanceCollector(admin, await queries.counts(), await maintenance_times(admin.placement))
    if OPENMETRICS in request.headers.get("accept", ""):
        text = openmetrics.generate_latest(figures)  # type: ignore[no-untyped-call]  # of a library without types there
        return Response(text, headers={"Content-Type": openmetrics.CONTENT_TYPE_LATEST})
    return Response(generate_latest(figures), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


class InstanceCollector(Collector):
    """The metrics of one instance at the time of the scrape, and those that the process adds."""

    def __init__(self, admin: AdminContext, counts: Mapping[str, int], done: MaintenanceTimes) -> None:
        self._admin = admin
        self._counts = counts
        self._maintenance_times = done

    def collect(self) -> Iterator[Metric]:
        admin, process = self._admin, self._admin.process
        yield from _state(admin, self._counts)
        space = process.space
        yield _gauge("disk_free_bytes", "bytes available in the data directory", space.free_bytes)
        yield _gauge("disk_total_bytes", "size of the file system of the data directory", space.total_bytes)
        died = "processes of this instance that died and were replaced, by role, since its supervisor started"
        yield _counters("process_deaths", died, "role", process.deaths())
        refused = INITIAL_VALUES["pushes_refused"] | process.refusals.counts
        yield _counters("pushes_refused", "requests of pushes that were refused, by reason", "reason", refused)
        yield from _traffic(process)
        yield from _between_instances(admin)
        yield from _content(admin.placement)
        yield from _maintenance_times(self._maintenance_times)
        yield from _members(admin.members)
        yield from _delays(admin.members)
        yield from process.metrics.collect()


def _state(admin: AdminContext, counts: Mapping[str, int]) -> Iterator[Metric]:
    """Yield the identity of the instance and the size of its catalog."""
    process, catalog, placement = admin.process, admin.catalog, admin.placement
    about = {
        "version": __version__,
        "instance_id": catalog.catalog.instance_id,
        "name": process.config.instance_name,
        "site": process.config.site,
        "policy": placement.policy.digest,
    }
    yield InfoMetricFamily("concord", "this instance", about)
    yield _gauge("ready", "1 while a balancer should send requests here", process.readiness.ready)
    yield _gauge("repositories", "repositories with a live fact", counts["repositories"])
    yield _gauge("facts", "live facts", counts["facts"])
    yield _gauge("conflicts", "tags that several sites pushed concurrently", counts["conflicts"])
    yield _gauge(
        "manifests_missing",
        "manifests that facts refer to and whose bodies are not here yet",
        counts["manifests_missing"],
    )
    old = "documents with critical facts that this version does not understand, of which nothing is served"
    yield _gauge("documents_not_understood", old, not_understood_count(catalog.database))
    named = {document: 1 for document, _ in not_understood(catalog.database)}
    first = f"1 for each of the first {MAX_LISTED} documents that are not understood"
    yield _gauges("document_not_understood", first, "document", named)
    yield _gauge("content_blobs", "blobs on this disk", counts["blobs"])
    yield _gauge("content_bytes", "bytes of the blobs on this disk", counts["blob_bytes"])
    yield _gauge("uploads", "uploads under way, as counted for --max-uploads", process.usage.uploads)
    preempted = "uploads that were preempted by new ones"
    yield _counter("uploads_preempted", preempted, process.usage.preempted)
    yield _gauge("upload_bytes", "bytes of the uploads under way", process.usage.upload_bytes)


def _traffic(context: ProcessContext) -> Iterator[Metric]:
    """Requests that were served, those of other instances among them."""
    traffic = context.traffic
    both = ["route", "method"]
    answered = CounterMetricFamily(
        "concord_requests", "requests; status 0: the client disconnected before the answer", labels=[*both, "status"]
    )
    received = CounterMetricFamily("concord_received_bytes", "bytes of the bodies of requests", labels=both)
    sent = CounterMetricFamily("concord_sent_bytes", "bytes of the bodies of answers", labels=both)
    durations = HistogramMetricFamily(
        "concord_request_duration_seconds",
        "time from the head of a request to the first byte of its answer, the request's body included",
        labels=both,
    )
    for labels, requests in traffic.requests().items():
        for status, count in requests.statuses.items():
            answered.add_metric([*labels, str(status)], count)
        received.add_metric(labels, requests.received_bytes)
        sent.add_metric(labels, requests.sent_bytes)
        durations.add_metric(labels, requests.durations.buckets(), requests.durations.total_s)
    yield from (answered, received, sent, durations)
    under_way = traffic.under_way + context.usage.requests
    yield _gauge("requests_in_flight", "requests that are being served", under_way)
    yield _counter("responses_aborted", "answers that were cut off after their first byte", traffic.cut_off)


def _between_instances(admin: AdminContext) -> Iterator[Metric]:
    process, catalog, members = admin.process, admin.catalog, admin.members
    replication, placement = admin.replication, admin.placement
    servers = replication.bus.servers()
    yield _gauges(
        "bus_up",
        "1 while messages of a Redis server arrive",
        "server",
        {name: servers[name] for name in sorted(servers)},
    )
    frames = INITIAL_VALUES["frames"] | replication.gossip.frames
    yield _counters("frames", "frames received, by outcome", "outcome", frames)
    yield _counter(
        "changes_published", "changes published since the start of the primary", replication.incarnation.published_seq
    )
    rounds = INITIAL_VALUES["anti_entropy_rounds"] | replication.anti_entropy.rounds
    yield _counters("anti_entropy_rounds", "rounds of anti-entropy with other instances, by outcome", "outcome", rounds)
    missed = replication.acknowledgements.missed
    wrong_sizes = catalog.wrong_sizes.count
    yield _counter("size_mismatches", "facts that state another size than the content on this disk has", wrong_sizes)
    yield _counter(
        "acknowledgements_missed",
        "commit acknowledgements of members of this site, or of the bus, that did not arrive in time",
        missed,
    )
    yield _counter(
        "read_lease_exclusions",
        "exclusions of members of this site from the read lease",
        replication.acknowledgements.excluded,
    )
    yield _counter(
        "direct_pushes", "changes pushed to members that the bus did not reach", replication.direct_push.pushed
    )
    lease = replication.site_lease
    yield _gauge("read_lease_valid", "1 while this instance may answer reads", replication.lease.is_valid)
    yield _counter("read_lease_waits", "reads that waited for the read lease", lease.waited)
    yield _counter("read_lease_refusals", "reads that were refused for lack of the read lease", lease.refused)
    ranges = placement.blob_reader.ranges
    fetched_bytes = placement.transfers.fetched_bytes + ranges.fetched_bytes
    yield _counter("fetched_bytes", "bytes of content fetched from other instances", fetched_bytes)
    yield _counter("peer_requests", "requests of other instances that were answered", process.peer_requests.answered)
    through = "content, or ranges of it, passed through from a holder because it had no room here"
    yield _counter("pass_throughs", through, placement.transfers.passed_through)
    yield _counter("range_fetches", "ranges of content that were read from MiBs at other instances", ranges.answered)
    moved = "bytes of MiBs fetched from other instances for ranges, which concord_fetched_bytes_total includes"
    yield _counter("range_fetched_bytes", moved, ranges.fetched_bytes)
    yield _counter("range_corrupt_mibs", "MiBs fetched for ranges that did not have their digest", ranges.corrupt)
    replaced = "times that a holder broke off, fell silent or was slow while it sent MiBs for ranges"
    yield _counter("range_holders_replaced", replaced, ranges.replaced)
    key = members.acceptance
    yield _gauge(
        "cluster_key_wrong", "1 while an instance refuses the cluster key and no member accepts it", key.is_wrong
    )
    yield _gauge("cluster_key_refusals", "addresses that refuse this instance's cluster key", len(key.refusing()))
    reach = members.reachability
    yield _gauge(
        "address_unreachable",
        "1 while members answer and none reaches this instance at its --advertise",
        reach.is_unreached,
    )
    yield _gauge(
        "site_address_unreachable",
        "1 while another site does not reach this instance at its --advertise-site",
        bool(reach.site_problem),
    )
    yield _gauge("addresses_shared", "addresses that more than one known instance advertises", len(reach.shared.found))
    refused = "requests in the name of other instances that were refused, by reason"
    yield _counters(
        "peer_requests_refused", refused, "reason", INITIAL_VALUES["refused"] | process.peer_requests.refused
    )


def _content(context: PlacementContext) -> Iterator[Metric]:
    """Yield the metrics of copies, collection and corrupt content."""
    copies, collect, contents = context.replicator, context.garbage_collector, context.blob_reader
    yield _gauge(
        "copies_pending", "blobs that the policy assigns to this instance and that are being fetched", copies.pending
    )
    yield _gauge(
        "copies_missing", "blobs that the policy assigns to this instance and that no holder could send", copies.missing
    )
    yield _counter("copies_fetched", "blobs fetched because the policy assigns them to this instance", copies.fetched)
    evict = context.evictor
    yield _counter("evicted_blobs", "blobs evicted, which other instances hold", evict.evicted)
    yield _counter("evicted_bytes", "bytes of evicted blobs", evict.evicted_bytes)
    yield _counter("collected_blobs", "unreferenced blobs removed by garbage collection", collect.removed)
    yield _counter("collected_bytes", "bytes removed by garbage collection", collect.removed_bytes)
    leftovers = context.leftovers
    yield _counter("orphaned_files_removed", "content files without a row of the catalog, removed", leftovers.removed)
    yield _counter(
        "orphaned_files_removed_bytes", "bytes of content files without a row, removed", leftovers.removed_bytes
    )
    blocked = bool(collect.last and collect.last.blocked)
    yield _gauge("collection_blocked", "1 while garbage collection is blocked; the status says why", blocked)
    yield _counter("content_quarantined", "blobs found corrupt and quarantined", context.quarantine.found)
    yield _counter("content_repaired", "corrupt blobs that were repaired", contents.repaired)


def _maintenance_times(done: MaintenanceTimes) -> Iterator[Metric]:
    """Yield the times of the last maintenance tasks. A task that has not run yet has no sample."""
    backup = done.backup
    for name, what, at_ms in (
        ("last_collection", "end of the last garbage collection since the start", done.collection_ms),
        ("last_scrub", "end of the last full scrub since the start", done.scrub_ms),
        ("oldest_check", "time of the oldest check of all content", done.oldest_check_ms),
        ("last_backup", "end of the last backup of this data directory", backup.ended_ms if backup else None),
    ):
        if at_ms is not None:
            yield _gauge(f"{name}_timestamp_seconds", what, to_s(at_ms))


def _members(context: MembersContext) -> Iterator[Metric]:
    """Yield the state of each member, labelled by instance and site."""
    root = context.replica.root()
    about = InfoMetricFamily("concord_member", "a member", labels=["member", "site"])
    families = {
        name: GaugeMetricFamily(f"concord_member_{name}", text, labels=["member", "site"])
        for name, text in (
            ("live", "1 while the member is live"),
            ("reachable", "1 while the member is live and its last answer arrived"),
            ("in_sync", "1 if the member had this instance's state digest at its last heartbeat"),
            ("missing_changes", "changes of the member that are not here"),
            ("last_seen_timestamp_seconds", "time of the member's last message, by the clock of this instance"),
            (
                "clock_offset_seconds",
                "how far the member's clock is ahead of this instance's; negative if it is behind",
            ),
            ("policy_matches", "1 if the member has the same policy as this instance"),
        )
    }
    for member in context.members.all():
        labels = [member.instance, member.beat.site]
        address = context.members.url(member)
        labelled = {"version": member.beat.version, "capabilities": " ".join(member.capabilities)}
        about.add_metric(labels, labelled | {"address": address, "name": member.beat.name})
        families["live"].add_metric(labels, member.live)
        families["reachable"].add_metric(labels, member.reachable)
        families["in_sync"].add_metric(labels, member.beat.root == root)
        families["missing_changes"].add_metric(labels, member.missing_changes)
        seen_ms = last_seen_ms(context, member)
        for name, value in (
            ("last_seen_timestamp_seconds", to_s(seen_ms) if seen_ms is not None else None),
            ("clock_offset_seconds", context.offsets.offset_s(member)),
            ("policy_matches", context.watch.policy_matches(member)),
        ):
            if value is not None:
                families[name].add_metric(labels, value)
    yield about
    yield from families.values()


def _delays(context: MembersContext) -> Iterator[Metric]:
    delays = context.delays
    by_site = HistogramMetricFamily(
        "concord_replication_delay_seconds",
        f"{DELAY}, by the sender's site and by path (gossip: a frame, anti-entropy: a diff){SKEW}",
        labels=["site", "path"],
    )
    for labels, durations in delays.by_site.items():
        by_site.add_metric(labels, durations.buckets(), durations.total_s)
    yield by_site
    latest = GaugeMetricFamily(
        "concord_member_last_replication_delay_seconds",
        f"for the member's last change: {DELAY}{SKEW}",
        labels=["member"],
    )
    summed = SummaryMetricFamily(
        "concord_member_replication_delay_seconds", f"{DELAY}, by member{SKEW}", labels=["member"]
    )
    for member in (member.instance for member in context.members.all()):
        delay = delays.by_member.get(member)
        if delay is None:
            continue
        latest.add_metric([member], delay.last_s)
        summed.add_metric([member], delay.count, delay.total_s)
    yield from (latest, summed)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"concord_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"concord_{name}", text, value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"concord_{name}", text, labels=[label])
    return _filled(family, values.items())


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"concord_{name}", text, labels=[label])
    return _filled(family, sorted(values.items()))


def _filled(family: "GaugeMetricFamily | CounterMetricFamily", values: Iterable[tuple[str, float]]) -> Metric:
    for name, value in values:
        family.add_metric([name], value)
    return family
