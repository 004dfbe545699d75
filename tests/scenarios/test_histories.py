"""A short run of the histories (`tests.scenarios.histories`) with every test run."""

import json
import os
import shutil
from collections import Counter

from tests.scenarios.histories.plan import LASTS_S, draw_plan
from tests.scenarios.histories.report import Report, describe, judge
from tests.scenarios.histories.run import run
from tests.scenarios.histories.total import total
from tests.support.needs import need

SEED, SECONDS = 85, 55.0
"""Two sites of two instances, and every kind of fault at least once."""


def test_histories_of_a_short_run_have_no_anomalies():
    _need_namespaces()
    report = judge(run(draw_plan(SEED, SECONDS)))
    assert report.checked["read_your_writes"] > 100 and report.fired, describe(report)
    assert not report.anomalies, "\n".join(describe(report))


def test_histories_of_instances_that_do_not_wait_for_their_site_have_anomalies():
    """The harness sees what it is for: here no answer waits for the site's commit acknowledgements."""
    _need_namespaces()
    report = judge(run(draw_plan(3, 12.0, ("clock",)), planted="network.site_not_waited_for"))
    assert report.anomalies["read-your-writes"], describe(report)


def _need_namespaces():
    need(os.geteuid() == 0, "network namespaces need root")
    need(shutil.which("ip") is not None and shutil.which("iptables") is not None, "iproute2 and iptables are missing")


def test_plan_of_the_short_run_has_every_kind_of_fault():
    assert {fault.kind for fault in draw_plan(SEED, SECONDS).faults} == set(LASTS_S)


def test_plan_of_a_seed_is_the_same_each_time():
    assert draw_plan(7, 60.0) == draw_plan(7, 60.0) != draw_plan(8, 60.0)


def test_total_of_reports_adds_up_what_they_count():
    one = Report([1], 60.0, fired=Counter(clock=2), anomalies=Counter(deletes=1), operations=10)
    other = Report([2], 30.0, fired=Counter(clock=1, corrupt=4), operations=5)
    added = total([json.dumps(vars(report)) for report in (one, other)])
    assert added["seeds"] == [1, 2] and added["seconds"] == 90.0 and added["operations"] == 15
    assert added["fired"] == {"clock": 3, "corrupt": 4} and added["anomalies"] == {"deletes": 1}
