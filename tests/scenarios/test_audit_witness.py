"""Audit logs whose end was cut off: other instances have heard how far each log was."""

import pytest

from registry.audit.chain import Head
from registry.cluster.membership.audit_witness import AuditWitness
from registry.telemetry.events import LogEvent
from tests.cli.test_cli import concord
from tests.support.access import ADMINISTRATOR, PASSWORD, basic, done, enforce
from tests.support.logs import recorded
from tests.support.server import Cluster, wait_until

ROOT = basic(ADMINISTRATOR, PASSWORD)


class Member:
    def __init__(self, audit):
        self.instance = self.shown = "i"
        self.beat = self
        self.audit = audit


@pytest.mark.parametrize(
    ("heard", "reported"),
    [
        ([(1, "a"), (2, "b"), (2, "b")], 0),
        ([(2, "b"), (1, "a"), (1, "a")], 1),
        ([(2, "b"), (2, "another")], 1),
        ([(2, "b"), (1, "a"), (3, "c"), (1, "d")], 2),
    ],
)
def test_a_head_that_is_lower_than_before_is_logged_once(heard, reported, caplog):
    witness = AuditWitness()
    for head in heard:
        witness.on_heard(Member({"000": head}))
    assert len(list(recorded(caplog.records, LogEvent.AUDIT_LOG_CUT))) == reported
    assert witness.heads_of("i") == {"000": Head(*max(heard[:1] + [one for one in heard if one[0] > heard[0][0]]))}


@pytest.mark.slow
def test_a_log_whose_end_was_cut_off_is_found_by_what_another_instance_has_heard(tmp_path):
    cluster = Cluster(tmp_path, ["eu", "us"], constants={"registry.instance.MAINTENANCE_INTERVAL_S": 0.5})
    try:
        cluster.start()
        eu, us = cluster.servers
        enforce(eu)
        done(eu, "robot/create", name="ci")

        def heads():
            status = us.client.request("GET", "/_concord/status", None, ROOT)
            number = status.json()["members"][0]["audit_heads"].get("000", (0,))[0] if status.status == 200 else 0
            return number if number >= 2 else 0

        number = wait_until(heads, 30)
        assert eu.stop() == 0
        login = tmp_path / "login"
        login.write_text(f"{ADMINISTRATOR}:{PASSWORD}")
        verify = ["audit", "verify", "--data", eu.data, "--witness", us.url, "--login", login]
        assert concord(*verify).returncode == 0
        (file,) = (eu.data / "audit").glob("000-*")
        file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])
        assert concord(*verify[:-4]).returncode == 0, "the chain itself holds"
        found = concord(*verify)
        assert found.returncode == 1 and "ends before line" in found.stdout
        eu.start()
        (line,) = wait_until(lambda: us.logged(LogEvent.AUDIT_LOG_CUT))
        assert line["known"] >= number > line["line"]
    finally:
        cluster.stop()
