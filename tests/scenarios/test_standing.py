"""The member state that instances show of each other: names, policies, clocks, room and when they were heard."""

import json
import time

import pytest

from registry.telemetry.events import LogEvent
from tests.cli.test_cli import concord
from tests.http.admin.test_metrics import samples
from tests.support import images
from tests.support.server import Cluster, wait_until

CLOCK = "(lambda real: lambda: real() + 5_000_000_000)(time.time_ns)"


@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    """Three instances of one site: the second has another policy, the third another clock."""
    cluster = Cluster(tmp_path_factory.mktemp("standing"), ["eu", "eu", "eu"], copies="2")
    for number, server in enumerate(cluster.servers):
        server.environment["CONCORD_INSTANCE_NAME"] = f"eu-{number}"
    cluster.servers[1].environment["CONCORD_COPIES"] = "3"
    cluster.servers[2]._constants = {"time.time_ns": CLOCK}
    try:
        yield cluster.start()
    finally:
        cluster.stop()


def member(server, name):
    (found,) = [one for one in server.status()["members"] if one["name"] == name]
    return found


def metric(server, name, of):
    (found,) = [
        value for (known, labels), value in samples(server).items() if known == name and ("member", of) in labels
    ]
    return found


def test_instances_are_shown_by_their_names(trio):
    first = trio[0].status()
    assert first["name"] == "eu-0"
    shown = concord("status", trio[0].url).stdout
    other = member(trio[0], "eu-1")["instance"]
    assert f"eu-0, instance {first['instance']} at site eu" in shown
    assert f"eu-1 ({other[:12]})" in shown
    assert trio[0].logged(LogEvent.INSTANCE_STARTED, name="eu-0", instance=first["instance"], site="eu")
    wait_until(lambda: trio[0].logged(LogEvent.MEMBER_SEEN, member=f"eu-1 ({other})", site="eu"))
    assert trio[0].logged(LogEvent.MEMBER_JOINED, instance=other, name="eu-1", site="eu")
    about = [dict(labels) for (name, labels) in samples(trio[0]) if name == "concord_member_info"]
    assert {one["name"] for one in about} == {"eu-1", "eu-2"}


def test_versions_and_capabilities_of_all_are_shown(trio):
    first = trio[0].status()
    assert first["capabilities"] == ["access", "critical-facts", "frame-fields"]
    assert {(one["version"], *one["capabilities"]) for one in first["members"]} == {
        (first["version"], *first["capabilities"])
    }
    shown = concord("status", trio[0].url).stdout
    assert "capabilities access, critical-facts, frame-fields" in shown
    about = [dict(labels) for (name, labels) in samples(trio[0]) if name == "concord_member_info"]
    assert {one["capabilities"] for one in about} == {"access critical-facts frame-fields"}


def test_facts_and_replication_name_instances(trio):
    trio[1].client.push("app", "v1", images.image("named"))
    trio.wait_agreed()
    fact = trio[0].client.get("/_concord/digest?repository=app").json()["tags"]["v1"][0]
    assert (fact["name"], fact["instance"]) == ("eu-1", trio[1].status()["instance"])
    assert "at eu-1, eu" in concord("digest", "--repository", "app", trio[0].url).stdout
    shown = concord("replication", "app:v1", trio[0].url).stdout
    for name, server in zip(("eu-0", "eu-1", "eu-2"), trio.servers, strict=True):
        assert f"{name} ({server.status()['instance'][:12]})" in shown


def test_a_policy_that_differs_is_shown_and_warned_about(trio):
    assert [member(trio[0], name)["policy_matches"] for name in ("eu-1", "eu-2")] == [False, True]
    other = member(trio[0], "eu-1")["instance"]
    assert metric(trio[0], "concord_member_policy_matches", other) == 0
    wait_until(lambda: trio[0].logged(LogEvent.POLICY_MISMATCH_DETECTED, member=f"eu-1 ({other})"))
    assert "another" in concord("status", trio[0].url).stdout


def test_a_clock_that_is_seconds_off_is_measured_and_warned_about(trio):
    other = member(trio[0], "eu-2")["instance"]
    line, *_ = wait_until(lambda: trio[0].logged(LogEvent.CLOCK_SKEW_DETECTED, member=f"eu-2 ({other})"))
    assert 4.7 < line["offset_s"] < 5.3
    assert 4.7 < member(trio[0], "eu-2")["clock_offset_s"] < 5.3
    assert 4.7 < metric(trio[0], "concord_member_clock_offset_seconds", other) < 5.3
    assert -0.5 < member(trio[0], "eu-1")["clock_offset_s"] < 0.3
    assert not trio[0].logged(LogEvent.CLOCK_SKEW_DETECTED, member="eu-1")


def test_the_room_of_every_disk_is_shown(trio):
    own = json.loads(concord("status", "--json", trio[0].url).stdout)["disk"]
    assert 0 < own["free_bytes"] < own["total_bytes"]
    assert samples(trio[0])["concord_disk_total_bytes", frozenset()] == own["total_bytes"]
    wait_until(lambda: member(trio[0], "eu-1")["disk"])
    assert member(trio[0], "eu-1")["disk"]["total_bytes"] == own["total_bytes"]


def test_when_a_member_was_last_heard_is_known_also_after_a_restart(trio):
    other = member(trio[0], "eu-1")
    assert abs(other["last_seen_ms"] / 1000 - time.time()) < 10
    assert abs(metric(trio[0], "concord_member_last_seen_timestamp_seconds", other["instance"]) - time.time()) < 10
    trio[1].kill()
    trio[0].kill()
    trio[0].start()
    found = [one for one in trio[0].status()["members"] if one["instance"] == other["instance"]]
    assert not found[0]["live"] and found[0]["name"] == "eu-1"
    assert abs(found[0]["last_seen_ms"] / 1000 - time.time()) < 300
