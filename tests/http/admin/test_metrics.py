"""What `/metrics` shows: figures that a Prometheus can read, and labels that no client can make many of."""

import asyncio
import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from registry.http.wire.exchange import Exchange
from registry.telemetry.counters import COUNTED_AT_ONCE, Durations, Served, Traffic
from tests.support import images
from tests.support.reference import name_of, scraped
from tests.support.seams import StillClock
from tests.support.server import Server, running_cluster, running_server, wait_until

pytestmark = pytest.mark.slow


def samples(server):
    """Values by name and labels."""
    text = server.client.get("/metrics").body.decode()
    found = (sample for family in parse_text(text) for sample in family.samples)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}


def value(instance, name, **labels):
    return samples(instance).get((name, frozenset(labels.items())), 0.0)


def series(server, name):
    return [dict(labels) for found, labels in samples(server) if found == name]


@pytest.mark.parametrize("accept", ["", "text/plain", "*/*", "text/plain;version=nonsense;escaping=x"])
def test_the_text_format_is_the_default(client, accept):
    answer = client.get("/metrics", Accept=accept)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert {family.name for family in parse_text(answer.body.decode())} >= {"concord_ready", "concord_requests"}


def test_openmetrics_is_there_when_asked_for(client):
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1"
    answer = client.get("/metrics", Accept=accept)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")
    assert "concord_ready" in {family.name for family in parse_openmetrics(answer.body.decode())}


def test_requests_are_counted_by_kind_of_path_whatever_clients_ask_for(tmp_path):
    with running_server(tmp_path / "data") as server:
        for number in range(COUNTED_AT_ONCE + 10):
            server.client.get(f"/v2/some/r{number}/manifests/v1")
            server.client.get(f"/nonsense/{number}")
        server.client.request("OPTIONS", "/v2/pot/manifests/v1")
        counted, manifests = "concord_requests_total", "/v2/<name>/manifests/<reference>"
        assert value(server, counted, route=manifests, method="GET", status="404") == COUNTED_AT_ONCE + 10
        assert value(server, counted, route="other", method="GET", status="404") == COUNTED_AT_ONCE + 10
        assert value(server, counted, route=manifests, method="other", status="405") == 1
        assert len(series(server, "concord_requests_total")) < 10
        assert server.status()["requests"] > 2 * COUNTED_AT_ONCE


def test_bytes_and_durations_are_those_of_the_requests(tmp_path):
    with running_server(tmp_path / "data") as server:
        digest = server.client.push_blob("app", b"x" * 5000)
        for _ in range(3):
            server.client.get(f"/v2/app/blobs/{digest}")
        blob = {"route": "/v2/<name>/blobs/<digest>", "method": "GET"}
        assert value(server, "concord_sent_bytes_total", **blob) == 15000
        received = sum(value(server, "concord_received_bytes_total", **one) for one in uploads())
        assert received == 5000
        assert value(server, "concord_request_duration_seconds_count", **blob) == 3
        assert value(server, "concord_request_duration_seconds_bucket", le="+Inf", **blob) == 3
        assert 0 < value(server, "concord_request_duration_seconds_sum", **blob) < 3
        assert value(server, "concord_content_bytes") == 5000
        assert value(server, "concord_disk_free_bytes") > 0
        assert value(server, "process_resident_memory_bytes") > 0


def uploads():
    for route in ("/v2/<name>/blobs/uploads/", "/v2/<name>/blobs/uploads/<id>"):
        for method in ("POST", "PATCH", "PUT"):
            yield {"route": route, "method": method}


async def test_a_duration_is_taken_to_the_first_byte_with_a_clock_that_does_not_stand_still():
    clock, sent = StillClock(), []

    async def send(message):
        sent.append(message)

    exchange = Exchange({"method": "GET", "path": "/"}, send, send, "an-id", clock)
    clock.at_ms += 250
    await exchange.send({"type": "http.response.start", "status": 200, "headers": []})
    clock.at_ms += 9000
    await exchange.send({"type": "http.response.body", "body": b"abc"})
    assert exchange.served("/") == Served("/", "GET", 200, 0.25, 0, 3)
    assert sent[0]["headers"] == [(b"x-request-id", b"an-id")]


def test_buckets_hold_their_upper_bound_and_add_up():
    durations = Durations((0.1, 1.0))
    for duration_s in (0.05, 0.1, 0.5, 7.0):
        durations.note(duration_s)
    assert durations.buckets() == [("0.1", 2), ("1.0", 3), ("+Inf", 4)]
    assert durations.total_s == pytest.approx(7.65)


def test_what_was_not_answered_is_counted_and_not_timed():
    traffic = Traffic()
    traffic.note(Served("r", "GET", 0, 0.0, 10, 0))
    (requests,) = traffic.requests().values()
    assert (requests.statuses, requests.durations.buckets()[-1]) == ({0: 1}, ("+Inf", 0))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("metrics"), ["eu", "us"]) as cluster:
        cluster[0].client.push("app", "v1", images.image("measured"))
        cluster.wait_agreed()
        yield cluster


def test_members_and_the_delay_of_their_changes(pair):
    eu = pair[0].status()["instance"]
    member = {"member": eu, "site": "eu"}
    wait_until(lambda: value(pair[1], "concord_member_in_sync", **member) == 1)
    assert value(pair[1], "concord_member_live", **member) == 1
    assert value(pair[1], "concord_member_missing_changes", **member) == 0
    count = value(pair[1], "concord_replication_delay_seconds_count", site="eu", path="gossip")
    assert count == value(pair[1], "concord_frames_total", outcome="applied") > 0
    assert value(pair[1], "concord_member_replication_delay_seconds_count", member=eu) == count
    assert value(pair[1], "concord_member_replication_delay_seconds_sum", member=eu) < 5 * count
    assert pair[1].status()["members"][0]["last_replication_delay_s"] < 5
    assert value(pair[1], "concord_bus_up", server=pair.redis.url) == 1


def test_counters_worth_an_alert_are_there_before_their_first_step(pair):
    found = samples(pair[0])
    for name, label, what in (
        ("concord_frames_total", "outcome", "unauthentic"),
        ("concord_anti_entropy_rounds_total", "outcome", "failed"),
        ("concord_peer_requests_refused_total", "reason", "unauthentic"),
    ):
        assert found[name, frozenset({(label, what)})] == 0


def test_what_an_empty_instance_takes_in_is_not_a_delay(pair):
    data = pair.directory / "late"
    late = Server(data, "ap", [pair.redis.url])
    try:
        late.start()
        wait_until(lambda: late.root() == pair[0].root())
        assert series(late, "concord_replication_delay_seconds_count") == []
    finally:
        late.kill()


def test_a_change_that_comes_by_catching_up_is_as_old_as_it_is(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        cluster[0].client.push("app", "v1", images.image("first"))
        cluster.wait_agreed()
        cluster[1].kill()
        cluster[0].client.push("app", "v2", images.image("second"))
        cluster[1].start()
        cluster.wait_agreed()
        assert value(cluster[1], "concord_replication_delay_seconds_count", site="eu", path="anti-entropy") == 1


OTHER_UNITS = {
    "s",
    "second",
    "ms",
    "milliseconds",
    "us",
    "minutes",
    "hours",
    "days",
    "byte",
    "bits",
    "kib",
    "mib",
    "gib",
}
"""Durations are in seconds, sizes in bytes, and the whole word is in the name."""
SUFFIXES = ("_total", "_count", "_sum", "_bucket", "_created", "_info")
"""Those of exposition, which the library appends by type."""


def naming_faults(name, kind):
    """Return what is wrong with the name of a metric by the conventions of Prometheus."""
    words = name.removesuffix("_total").removesuffix("_info").split("_")
    faults = []
    if not re.fullmatch(r"concord(_[a-z][a-z0-9]*)+", name):
        faults.append("is not concord_ and lower-case words")
    if OTHER_UNITS & set(words):
        faults.append("has a unit other than seconds and bytes")
    if {"seconds", "bytes"} & set(words[:-1]):
        faults.append("has its unit before its end")
    if kind in ("histogram", "summary") and words[-1] not in ("seconds", "bytes"):
        faults.append("has no unit")
    if kind not in ("counter", "info") and name.endswith(SUFFIXES):
        faults.append("ends as another type does")
    return faults


@pytest.mark.parametrize(
    ("name", "kind"),
    [("delay_seconds", "gauge"), ("concord_delay_ms", "gauge"), ("concord_bytes_sent_total", "counter"),
     ("concord_delay", "histogram"), ("concord_uploads_total", "gauge"), ("concord_Uploads", "gauge")],
)  # fmt: skip
def test_a_name_against_the_conventions_is_found(name, kind):
    assert naming_faults(name, kind)


def test_metrics_are_named_by_the_conventions_of_prometheus():
    families = asyncio.run(scraped())
    own = [family for family in families if not family.name.startswith(("process_", "python_"))]
    assert len(own) > 40
    assert {name_of(one): faults for one in own if (faults := naming_faults(name_of(one), one.type))} == {}
