"""From one region to two, by the restarts that `kubectl apply` of another overlay makes."""

import threading
from pathlib import Path

from tests.support import images
from tests.support.client import Client
from tests.support.kustomize import build
from tests.support.nginx import for_clients
from tests.support.proxy import RoundRobin
from tests.support.server import running_cluster, wait_until

ROOT = Path(__file__).parents[2]
INSTANCES = "StatefulSet", "concord"
PUSHES_BETWEEN_RESTARTS = 5


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


def test_pushes_and_pulls_go_on_while_one_region_becomes_the_first_of_two(tmp_path):
    before, after = settings("base"), settings("overlays/two-regions/eu")
    with running_cluster(tmp_path, 3 * [before.pop("CONCORD_SITE")], copies=before["CONCORD_COPIES"]) as cluster:
        addresses = [server.address for server in cluster.servers]
        with for_clients(tmp_path / "nginx", addresses) as nginx, RoundRobin(addresses) as shared:
            with Pushes(nginx.wait_listening().client) as pushes:
                for server in cluster.servers:
                    wait_until(lambda due=pushes.done + PUSHES_BETWEEN_RESTARTS: pushes.done >= due)
                    assert server.stop() == 0
                    server.environment |= after | {"CONCORD_ADVERTISE_SITE": f"http://{shared.address}"}
                    server.start()
                    cluster.wait_acquainted()
                wait_until(lambda due=pushes.done + PUSHES_BETWEEN_RESTARTS: pushes.done >= due)
            assert not pushes.failures
        assert {member["site"] for member in cluster[0].status()["members"]} == {after["CONCORD_SITE"]}
