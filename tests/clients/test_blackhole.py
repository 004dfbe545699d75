"""A member that swallows packets: others must not be slowed down by it."""

import statistics
import time

from tests.support import images
from tests.support.layouts import write_layout
from tests.support.network import hosted_cluster

LAYERS = 20


def layered(directory, seed):
    """An OCI layout of an image with many layers, each a proper tar."""
    from tests.support.engines import root_tar

    tars = [root_tar(directory / "layer.tar", f"{seed} {number}").read_bytes() for number in range(LAYERS)]
    return write_layout(directory / seed, images.unpackable(tars))


def push_and_pull_s(podman, directory, address, seed):
    """How long podman takes to push and pull an image of 20 layers."""
    image = podman._run("pull", "--quiet", f"oci:{layered(directory, seed)}:app")
    begun = time.monotonic()
    podman.push(image, f"{address}/app:{seed}")
    podman.forget(image)
    podman.pull(f"{address}/app:{seed}")
    return time.monotonic() - begun


def test_a_swallowing_member_costs_a_push_and_pull_of_20_layers_less_than_half_as_much_again(podman, tmp_path):
    with hosted_cluster(tmp_path, ["eu", "eu", "us"]) as (cluster, network):

        def runs_s(seed: str) -> list[float]:
            return [push_and_pull_s(podman, tmp_path, cluster[0].address, f"{seed}{n}") for n in range(4)]

        push_and_pull_s(podman, tmp_path, cluster[0].address, "warm")
        without = runs_s("before")
        for host in (1, 2):
            network.swallow(host, network.addresses[0])
        cost = runs_s("with")
        network.heal()
        cluster.wait_agreed()
        without += runs_s("after")
        print(f"20 layers by podman: {without} s without, {cost} s with two members that swallow packets")
        # Other load on the machine comes and goes, and can only add to a time.
        assert min(cost) <= 1.5 * statistics.median(without)
