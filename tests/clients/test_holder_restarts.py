"""Real clients pull at one instance while the only holder of the layers is killed in the middle of them, and started
again ten seconds later."""

import time
from concurrent.futures import ThreadPoolExecutor

from tests.scenarios.test_fetch import linked_sites
from tests.support.server import wait_until

CLIENTS = ("docker", "podman", "skopeo")
LAYER_BYTES = 8_000_000
LINK_BYTES_PER_S = 2e6
DEAD_S = 10.0


def test_pulls_go_on_when_the_only_holder_is_back(engines, tmp_path):
    """All clients at once, each with an image of its own, so that one death is in the middle of every layer."""
    at_work = [engines(name) for name in CLIENTS]
    with linked_sites(tmp_path, [LINK_BYTES_PER_S, None]) as (cluster, _), ThreadPoolExecutor() as pool:
        holder, puller = cluster.servers
        built = {}
        for engine in at_work:
            image = engine.build("restarts", padding=LAYER_BYTES)
            built[engine] = engine.image_id(image)
            engine.push(image, f"{holder.address}/{engine.name}:v1")
            engine.forget(image)
        cluster.wait_agreed()
        pulls = {engine: pool.submit(engine.pull, f"{puller.address}/{engine.name}:v1") for engine in at_work}
        wait_until(lambda: layers_in_the_middle(puller) == len(CLIENTS))
        holder.kill()
        time.sleep(DEAD_S)
        assert not any(pull.done() for pull in pulls.values())
        holder.start()
        assert {engine: pull.result(30) for engine, pull in pulls.items()} == built
        for engine in at_work:
            if engine.name != "skopeo":
                engine.forget(f"{puller.address}/{engine.name}:v1")


def layers_in_the_middle(puller):
    """How many transfers have a good part of a layer, and not all of it."""
    sizes = [path.stat().st_size for path in (puller.data / "fetches").iterdir()]
    return len([size for size in sizes if LAYER_BYTES / 4 < size < LAYER_BYTES * 3 / 4])
