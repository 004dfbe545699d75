"""Settings that change by one restart after the other, as `kubectl apply` of another overlay makes them, while clients
push and pull: from one region to two, and a site that gets another name."""

import threading
from pathlib import Path

from registry.telemetry.events import LogEvent
from tests.support import images
from tests.support.client import Client
from tests.support.kustomize import build
from tests.support.nginx import for_clients
from tests.support.proxy import RoundRobin
from tests.support.server import Cluster, Server, free_port, running_cluster, wait_until

ROOT = Path(__file__).parents[2]
INSTANCES = "StatefulSet", "concord"
PUSHES_BETWEEN_RESTARTS = 8


def settings(directory: str) -> dict[str, str]:
    """What a region's instances are told of regions."""
    [pods] = [one for one in build(ROOT / "k8s" / directory) if (one["kind"], one["metadata"]["name"]) == INSTANCES]
    given = {one["name"]: one.get("value") for one in pods["spec"]["template"]["spec"]["containers"][0]["env"]}
    return {name: given[name] for name in ("CONCORD_SITE", "CONCORD_ADVERTISE_SITE", "CONCORD_COPIES") if name in given}


class Pushes:
    """A client that pushes and pulls without a pause."""

    def __init__(self, client: Client) -> None:
        self.done = 0
        self.failures: list[str] = []
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> "Pushes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._stop.is_set():
            image = images.image(("growing", self.done))
            try:
                self._client.push("app", f"v{self.done}", image)
                assert self._client.pull("app", f"v{self.done}") == image.body
            except (AssertionError, OSError) as error:
                self.failures.append(f"push {self.done}: {error}")
            self.done += 1

    def wait_for_more(self) -> None:
        """Wait until some more pushes are done."""
        due = self.done + PUSHES_BETWEEN_RESTARTS
        wait_until(lambda: self.done >= due, 60)


def restart_with(cluster: Cluster, settings: dict[str, str], pushes: Pushes) -> None:
    """Restart one instance after the other with other settings, some pushes apart."""
    for server in cluster.servers:
        pushes.wait_for_more()
        assert server.stop() == 0
        server.environment |= settings
        server.start()
        cluster.wait_acquainted()
    pushes.wait_for_more()


def sites_seen(server: Server) -> set[str]:
    status = server.status()
    return {status["site"], *(member["site"] for member in status["members"])}


def test_pushes_and_pulls_go_on_while_one_region_becomes_the_first_of_two(tmp_path):
    before, after = settings("base"), settings("overlays/two-regions/eu")
    with running_cluster(tmp_path, 3 * [before.pop("CONCORD_SITE")], copies=before["CONCORD_COPIES"]) as cluster:
        addresses = [server.address for server in cluster.servers]
        with for_clients(tmp_path / "nginx", addresses) as nginx, RoundRobin(addresses) as shared:
            with Pushes(nginx.wait_listening().client) as pushes:
                restart_with(cluster, after | {"CONCORD_ADVERTISE_SITE": f"http://{shared.address}"}, pushes)
            assert not pushes.failures
        assert sites_seen(cluster[0]) == {after["CONCORD_SITE"]}


def test_pushes_and_pulls_go_on_while_a_site_with_a_shared_address_is_renamed(tmp_path):
    """Instances behind one --advertise-site are one site, whatever each of them calls it meanwhile."""
    ports = [free_port() for _ in range(3)]
    addresses = [f"127.0.0.1:{port}" for port in ports]
    with RoundRobin(addresses) as shared:
        cluster = Cluster(tmp_path, 3 * ["old"], ports=ports, advertise_site=f"http://{shared.address}")
        with for_clients(tmp_path / "nginx", addresses) as nginx:
            try:
                cluster.start()
                with Pushes(nginx.wait_listening().client) as pushes:
                    restart_with(cluster, {"CONCORD_SITE": "new"}, pushes)
                assert not pushes.failures
                assert sites_seen(cluster[0]) == {"new"}
                assert cluster[2].logged(LogEvent.SITE_NAME_MISMATCHED, site="new", own_site="old")
            finally:
                cluster.stop()
