"""Deaths of processes are counted where the count survives them."""

import os
import signal

from registry.runtime.deaths import PRIMARY, WORKER, Deaths
from tests.cli.test_cli import concord
from tests.http.admin.test_metrics import samples
from tests.support.processes import children, owner_of, wait_for_children
from tests.support.server import running_server, wait_until


def test_deaths_are_seen_by_processes_that_were_forked_before_and_after():
    deaths = Deaths()
    deaths.count(WORKER)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, str(dict(deaths.counts())).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100).decode() == str({PRIMARY: 0, WORKER: 1})
    deaths.count(PRIMARY)
    deaths.count(PRIMARY)
    assert deaths.counts() == {PRIMARY: 2, WORKER: 1}


def test_deaths_of_workers_are_still_counted_after_the_primary_has_died(tmp_path):
    with running_server(tmp_path / "data", workers="3") as server:
        wait_for_children(server, 3)
        assert server.status()["process_deaths"] == {PRIMARY: 0, WORKER: 0}
        primary = owner_of(server)
        worker = next(pid for pid in children(server) if pid != primary)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: server.status()["process_deaths"][WORKER] == 1)
        os.kill(primary, signal.SIGKILL)
        wait_until(lambda: owner_of(server) not in (primary, None) and server.client.get("/readyz").status == 200)
        assert server.status()["process_deaths"] == {PRIMARY: 1, WORKER: 1}
        found = {dict(labels)["role"]: value for (name, labels), value in samples(server).items() if "deaths" in name}
        assert found == {PRIMARY: 1, WORKER: 1}
        shown = concord("status", server.url).stdout
        assert "2 processes have died and were replaced: 1 as primary, 1 as worker" in shown


def test_an_instance_of_one_process_counts_no_deaths(tmp_path):
    with running_server(tmp_path / "data") as server:
        assert server.status()["process_deaths"] == {}
