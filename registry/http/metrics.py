"""What the registry does, for Prometheus: `GET /metrics`.

Nothing is counted twice: a scrape reads what the registry counts anyway, and rows. Labels have few values, whatever
clients and members send: routes rather than paths, outcomes and reasons from the code, members that hold the cluster's
key. Histograms are by site; what is by member are single figures, of which a cluster of hundreds makes few enough.
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
from registry.http.standing import Upkeep, last_heard_ms, upkeep
from registry.instance import Instance
from registry.refusals import REASONS

OPENMETRICS = "application/openmetrics-text"
FROM_ZERO: dict[str, dict[str, int]] = {
    "frames": dict.fromkeys(
        ("applied", "critical field", "foreign writer", "malformed", "not stored", "refused", "twin", "unauthentic"), 0
    ),
    "catch_ups": dict.fromkeys(("done", "failed", "forked"), 0),
    "refused_pushes": dict.fromkeys(REASONS, 0),
    "refused": dict.fromkeys(("malformed", "replayed", "unauthentic"), 0),
}
"""Shown before they happen: of a counter that is not there yet, Prometheus does not see the first step."""
DELAY = "seconds from a change's stamp at its sender, just before its commit, to its commit here"
SKEW = "; two wall clocks are compared, so it holds their difference"


async def metrics(instance: Instance, request: Request) -> Response:
    """Return all metrics in the text format of Prometheus, or as OpenMetrics if the request accepts that."""
    await instance.cluster.space.look()
    figures = Figures(instance, await instance.catalog.queries.counts(), await upkeep(instance))
    if OPENMETRICS in request.headers.get("accept", ""):
        said = openmetrics.generate_latest(figures)  # type: ignore[no-untyped-call]  # of a library without types there
        return Response(said, headers={"Content-Type": openmetrics.CONTENT_TYPE_LATEST})
    return Response(generate_latest(figures), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


class Figures(Collector):
    """Of one instance, as they are now, and what the process adds."""

    def __init__(self, instance: Instance, counts: Mapping[str, int], done: Upkeep) -> None:
        self._instance = instance
        self._counts = counts
        self._done = done

    def collect(self) -> Iterator[Metric]:
        yield from _state(self._instance, self._counts)
        space = self._instance.cluster.space
        yield _gauge("disk_free_bytes", "bytes that can still be written in the data directory", space.free_bytes)
        yield _gauge("disk_total_bytes", "bytes of the file system of the data directory", space.total_bytes)
        died = "processes of this instance that have died and were replaced, by role, since its supervisor began"
        yield _counters("process_deaths", died, "role", self._instance.process_deaths())
        refused = FROM_ZERO["refused_pushes"] | self._instance.refusals.counts
        yield _counters("pushes_refused", "requests of pushes that were refused", "reason", refused)
        yield from _traffic(self._instance)
        yield from _between_instances(self._instance)
        yield from _upkeep(self._instance)
        yield from _done(self._done)
        yield from _members(self._instance)
        yield from _delays(self._instance)
        yield from self._instance.metrics.collect()


def _state(instance: Instance, counts: Mapping[str, int]) -> Iterator[Metric]:
    """Who this is and what it has."""
    about = {
        "version": __version__,
        "instance_id": instance.catalog.instance_id,
        "name": instance.config.instance_name,
        "site": instance.config.site,
        "policy": instance.cluster.policy.digest,
    }
    yield InfoMetricFamily("concord", "this instance", about)
    yield _gauge("ready", "1 while requests should be sent here", instance.ready)
    yield _gauge("repositories", "repositories that hold anything", counts["repositories"])
    yield _gauge("facts", "live facts", counts["facts"])
    yield _gauge("conflicts", "tags that several sites pushed unseen by each other", counts["conflicts"])
    yield _gauge(
        "manifests_missing", "manifests that facts name and that are not here yet", counts["manifests_missing"]
    )
    old = "documents with critical facts that this version does not understand, of which nothing is served"
    yield _gauge("documents_not_understood", old, not_understood_count(instance.catalog.database))
    named = {document: 1 for document, _ in not_understood(instance.catalog.database)}
    first = f"1 for each of the first {MAX_LISTED} documents that are not understood"
    yield _gauges("document_not_understood", first, "document", named)
    yield _gauge("content_blobs", "blobs on this disk", counts["blobs"])
    yield _gauge("content_bytes", "bytes of the blobs on this disk", counts["blob_bytes"])
    yield _gauge("uploads", "uploads under way, as the bound on them counts", instance.uploads.count)
    preempted = "uploads that gave their place to others, since there were as many as there may be"
    yield _counter("uploads_preempted", preempted, instance.uploads.preempted)
    yield _gauge("upload_bytes", "bytes of the uploads under way", instance.uploads.held_bytes)


def _traffic(instance: Instance) -> Iterator[Metric]:
    """Requests that were served, those of other instances among them."""
    traffic = instance.traffic
    both = ["route", "method"]
    answered = CounterMetricFamily(
        "concord_requests", "requests; status 0 got no answer, since the client had gone", labels=[*both, "status"]
    )
    received = CounterMetricFamily("concord_received_bytes", "bytes of the bodies of requests", labels=both)
    sent = CounterMetricFamily("concord_sent_bytes", "bytes of the bodies of answers", labels=both)
    durations = HistogramMetricFamily(
        "concord_request_duration_seconds",
        "from the head of a request to the first byte of its answer; a body that is sent lies in between",
        labels=both,
    )
    for labels, requests in traffic.requests().items():
        for status, count in requests.statuses.items():
            answered.add_metric([*labels, str(status)], count)
        received.add_metric(labels, requests.received_bytes)
        sent.add_metric(labels, requests.sent_bytes)
        durations.add_metric(labels, requests.durations.buckets(), requests.durations.total_s)
    yield from (answered, received, sent, durations)
    yield _gauge("requests_under_way", "requests that are being served", traffic.under_way)
    yield _counter("answers_cut_off", "answers that broke off after they had begun", traffic.cut_off)


def _between_instances(instance: Instance) -> Iterator[Metric]:
    cluster = instance.cluster
    heard = cluster.bus.servers()
    yield _gauges("bus_heard", "1 while a bus server is heard", "server", {name: heard[name] for name in sorted(heard)})
    frames = FROM_ZERO["frames"] | cluster.gossip.frames
    yield _counters("frames", "frames received, by what became of them", "outcome", frames)
    yield _counter("changes_published", "changes published since the start", cluster.gossip.changes)
    rounds = FROM_ZERO["catch_ups"] | cluster.sync.rounds
    yield _counters("catch_ups", "exchanges with other instances, by how they ended", "outcome", rounds)
    missed = cluster.confirmations.missed
    wrong_sizes = instance.catalog.wrong_sizes.count
    yield _counter("wrong_sizes", "facts that state another size than what is on this disk has", wrong_sizes)
    yield _counter("confirmations_missed", "members of this site, or the bus, not waited for any longer", missed)
    yield _counter("site_exclusions", "members of this site excluded from reads", cluster.confirmations.excluded)
    yield _counter("site_pushes", "changes pushed to members that the bus did not reach", cluster.site_push.pushed)
    lease = cluster.site_lease
    yield _gauge("read_lease_valid", "1 while reads may be answered from this instance's rows", instance.lease.is_valid)
    yield _counter("read_lease_waits", "reads that waited for the read lease", lease.waited)
    yield _counter("read_lease_refusals", "reads refused for want of the read lease", lease.refused)
    yield _counter("fetched_bytes", "bytes of content fetched from other instances", cluster.fetch.fetched_bytes)
    yield _counter("peer_requests", "requests of other instances that were answered", instance.answered_peers)
    through = "contents, or parts, that had no room here and were passed through from their holders"
    yield _counter("passed_through", through, cluster.fetch.passed_through)
    key = cluster.peers.acceptance
    yield _gauge(
        "cluster_key_wrong", "1 while an address refuses the cluster key and no member accepts it", key.is_wrong
    )
    yield _gauge("cluster_key_refusals", "addresses that refuse this instance's cluster key", len(key.refusing()))
    reach = cluster.reachability
    yield _gauge("address_unreached", "1 while members answer and none reaches this instance", reach.is_unreached)
    yield _gauge("site_address_unreached", "1 while another site does not reach this one", bool(reach.site_problem))
    yield _gauge("addresses_shared", "addresses that more than one known instance advertises", len(reach.shared.found))
    refused = "requests in the name of other instances that were refused"
    yield _counters("peer_requests_refused", refused, "reason", FROM_ZERO["refused"] | instance.refused_peers)


def _upkeep(instance: Instance) -> Iterator[Metric]:
    """Copies, collection and damage."""
    copies, collect, contents = instance.cluster.copies, instance.cluster.collect, instance.cluster.contents
    yield _gauge("copies_due", "contents that are to be here and are on their way", copies.due)
    yield _gauge("copies_lacking", "contents that are to be here and could not be had", copies.lacking)
    yield _counter("copies", "contents fetched because they are to be here", copies.copied)
    evict = instance.cluster.evict
    yield _counter("evicted", "contents removed to make room, that others hold", evict.evicted)
    yield _counter("evicted_bytes", "bytes of these", evict.evicted_bytes)
    yield _counter("collected", "contents removed that no manifest names", collect.removed)
    yield _counter("collected_bytes", "bytes of these", collect.removed_bytes)
    leftovers = instance.leftovers
    yield _counter("leftovers_removed", "content files that the catalog did not know, removed", leftovers.removed)
    yield _counter("leftovers_removed_bytes", "bytes of these", leftovers.removed_bytes)
    blocked = bool(collect.last and collect.last.blocked)
    yield _gauge("collection_blocked", "1 while nothing can be collected; the status says why", blocked)
    yield _counter("content_damaged", "contents found damaged and put aside", contents.quarantine.found)
    yield _counter("content_repaired", "damaged contents that are whole again", contents.mended)


def _done(done: Upkeep) -> Iterator[Metric]:
    """When upkeep was done last; nothing for what was not yet."""
    backup = done.backup
    for name, what, at_ms in (
        ("last_collection", "when a collection last ended, since the start", done.collection_ms),
        ("last_scrub", "when a full check of all content last ended, since the start", done.scrub_ms),
        ("oldest_check", "when the content was checked whose check is the longest ago", done.oldest_check_ms),
        ("last_backup", "when a backup of this data directory last ended", backup.ended_ms if backup else None),
    ):
        if at_ms is not None:
            yield _gauge(f"{name}_timestamp_seconds", what, at_ms / 1000)


def _members(instance: Instance) -> Iterator[Metric]:
    """How the other instances stand, each a sample by instance and site."""
    root = instance.catalog.replica.root()
    about = InfoMetricFamily("concord_member", "another instance", labels=["member", "site"])
    families = {
        name: GaugeMetricFamily(f"concord_member_{name}", text, labels=["member", "site"])
        for name, text in (
            ("live", "1 while its heartbeats come"),
            ("reachable", "1 while it is live and its last answer did not fail to come"),
            ("agrees", "1 when it had this instance's state digest at its last heartbeat"),
            ("changes_lacking", "changes that it has published and that are not here"),
            ("last_heard_timestamp_seconds", "when it was last heard, by the clock of this instance"),
            ("clock_offset_seconds", "how far its clock is ahead of this instance's, below 0 where it is behind"),
            ("policy_agrees", "1 when it has the same policy as this instance"),
        )
    }
    for member in instance.cluster.members.all():
        labels = [member.instance, member.beat.site]
        address = instance.cluster.members.url(member)
        said = {"version": member.beat.version, "capabilities": " ".join(member.capabilities)}
        about.add_metric(labels, said | {"address": address, "name": member.beat.name})
        families["live"].add_metric(labels, member.live)
        families["reachable"].add_metric(labels, member.reachable)
        families["agrees"].add_metric(labels, member.beat.root == root)
        families["changes_lacking"].add_metric(labels, member.changes_lacking)
        heard_ms = last_heard_ms(instance, member)
        for name, value in (
            ("last_heard_timestamp_seconds", heard_ms / 1000 if heard_ms is not None else None),
            ("clock_offset_seconds", instance.cluster.offsets.offset_s(member)),
            ("policy_agrees", instance.cluster.watch.policy_agrees(member)),
        ):
            if value is not None:
                families[name].add_metric(labels, value)
    yield about
    yield from families.values()


def _delays(instance: Instance) -> Iterator[Metric]:
    delays = instance.cluster.delays
    by_site = HistogramMetricFamily(
        "concord_replication_delay_seconds",
        f"{DELAY}, by the sender's site, and by how it came (frame: on the bus, diff: by catching up){SKEW}",
        labels=["site", "by"],
    )
    for labels, durations in delays.by_site.items():
        by_site.add_metric(labels, durations.buckets(), durations.total_s)
    yield by_site
    latest = GaugeMetricFamily(
        "concord_member_last_replication_delay_seconds", f"of a member's last change: {DELAY}{SKEW}", labels=["member"]
    )
    summed = SummaryMetricFamily(
        "concord_member_replication_delay_seconds", f"by member: {DELAY}{SKEW}", labels=["member"]
    )
    for member in (member.instance for member in instance.cluster.members.all()):
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
