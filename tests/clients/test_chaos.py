"""Two sites far apart, real clients, and instances that are killed all the time.

Three instances at eu and two at us, each on a host of its own, clients through nginx as docs/nginx.conf configures it,
40 ms each way and a lost packet in a hundred between the sites, which reach each other at one address each.
CONCORD_CHAOS_S says how long, one is killed every 20 s then; docs/operate/balancers.md has what five minutes gave.
Without it as many die in less time.
"""

import collections
import contextlib
import os
import random
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.support import nginx
from tests.support.client import Client
from tests.support.engines import Failed
from tests.support.needs import need
from tests.support.network import Network
from tests.support.server import Cluster, Redis, Server, wait_until
from tests.support.wide_area import WideArea

DURATION_S = float(os.environ.get("CONCORD_CHAOS_S", "28"))
KILLED_EVERY_S = 20.0 if "CONCORD_CHAOS_S" in os.environ else 10.0
DEAD_S = 5.0
DELAY_S = 0.040
LOSS = 0.01
LAYER_BYTES = 1_000_000
SITES = {"eu": 3, "us": 2}

EXPECTED = {
    "podman push": ["502 Bad Gateway", "503 Service Unavailable", "blob upload unknown"],
    "skopeo push": ["502 Bad Gateway", "503 Service Unavailable", "blob upload unknown"],
    "podman pull": ["unexpected EOF"],
    "skopeo pull": ["unexpected EOF"],
}
"""What may fail, when the instance that receives or sends a layer is killed: see docs/operate/balancers.md."""


class Site(NamedTuple):
    """Instances, and what is in front of them."""

    name: str
    servers: list[Server]
    front: nginx.Server


class Outcome(NamedTuple):
    """What a client did."""

    what: str
    at_s: float
    error: str


@contextlib.contextmanager
def two_sites(directory):
    """The sites, far apart."""
    need(os.geteuid() == 0, "network namespaces need root")
    need(all(shutil.which(tool) for tool in ("ip", "iptables")), "iproute2 and iptables are missing")
    need(os.path.exists("/dev/net/tun"), "the kernel has no TUN devices")
    with contextlib.ExitStack() as stack:
        # The last two hosts of a site are its address for the others, where its Redis is too, and the gateway.
        networks = {name: stack.enter_context(Network(instances + 2)) for name, instances in SITES.items()}
        line = stack.enter_context(WideArea(*networks.values(), DELAY_S, LOSS))
        redis = [Redis(directory, network.addresses[-2], network.names[-2]) for network in networks.values()]
        for one in redis:
            stack.callback(one.kill)
            one.start()
        cluster = Cluster(directory, [], with_redis=False)
        stack.callback(cluster.stop)
        sites = []
        for name, network in networks.items():
            servers = [
                Server(
                    directory / f"{name}{number}",
                    name,
                    [one.url for one in redis],
                    host=network.addresses[number],
                    port=5000,
                    namespace=network.names[number],
                    advertise_site=f"http://{network.addresses[-2]}:5000",
                    copies="2",
                )
                for number in range(SITES[name])
            ]
            addresses = [server.address for server in servers]
            stack.enter_context(
                nginx.for_other_sites(directory / f"{name}-site", network.addresses[-2], network.names[-2], addresses)
            )
            front = stack.enter_context(nginx.for_clients(directory / f"{name}-front", addresses))
            sites.append(Site(name, servers, front))
            cluster.servers += servers
        for server in cluster.servers:
            server.start(wait=False)
        for server in cluster.servers:
            server.wait_ready()
        cluster.wait_acquainted()
        yield cluster, sites, line


class Chaos:
    """Clients at work while instances are killed."""

    def __init__(self, cluster, sites):
        self._cluster = cluster
        self._sites = sites
        self._began = time.monotonic()
        self.pushed = {}
        """The image that was pushed for each reference without its host, once a push has succeeded."""
        self.outcomes = []
        self.kills = []

    @property
    def now_s(self):
        return time.monotonic() - self._began

    def kill(self):
        """One instance now and then, another each time."""
        while self.now_s + KILLED_EVERY_S < DURATION_S:
            server = self._cluster.servers[len(self.kills) * 2 % len(self._cluster.servers)]
            time.sleep(KILLED_EVERY_S - DEAD_S)
            self.kills.append(self.now_s)
            server.kill()
            time.sleep(DEAD_S)
            server.start()

    def work(self, engine):
        """Push and pull at sites that are drawn."""
        drawn = random.Random(engine.name)
        number = 0
        while self.now_s < DURATION_S:
            number += 1
            here, there = drawn.choice(self._sites), drawn.choice(self._sites)
            name = f"app-{engine.name}:v{number}"
            image = engine.build(f"{engine.name}-{number}", padding=LAYER_BYTES)
            built = engine.image_id(image)
            pushed = self._try(f"{engine.name} push", engine.push, image, f"{here.front.address}/{name}")
            engine.forget(image)
            if not pushed:
                continue
            self.pushed[name] = built
            reference = f"{there.front.address}/{name}"
            if here is not there:
                wait_until(lambda address=there.front.client, name=name: has(address, name), 20)
            if self._try(f"{engine.name} pull", self._pull, engine, reference, built) and engine.name != "skopeo":
                engine.forget(reference)

    def _pull(self, engine, reference, built):
        assert engine.pull(reference) == built

    def _try(self, what, call, *arguments):
        begun = self.now_s
        try:
            call(*arguments)
            self.outcomes.append(Outcome(what, begun, ""))
        except Failed as error:
            self.outcomes.append(Outcome(what, begun, str(error)))
            return False
        return True


def has(client: Client, name: str) -> bool:
    repository, tag = name.split(":")
    return client.head(f"/v2/{repository}/manifests/{tag}").status == 200


def config_digest(server, name):
    """What an image is known by, pulled from one instance with all its layers."""
    repository, tag = name.split(":")
    body = Client(server.host, server.port, 120).pull(repository, tag)
    return re.search(rb'"config":\{[^}]*"digest":"sha256:([0-9a-f]{64})"', re.sub(rb"\s", b"", body))[1].decode()


def test_real_clients_at_two_sites_while_instances_are_killed(tmp_path, engines):
    at_work = [engines(name) for name in ("docker", "podman", "skopeo")]
    with two_sites(tmp_path) as (cluster, sites, line), ThreadPoolExecutor() as pool:
        chaos = Chaos(cluster, sites)
        for task in [pool.submit(chaos.kill), *(pool.submit(chaos.work, engine) for engine in at_work)]:
            task.result()
        counted = collections.Counter((outcome.what, bool(outcome.error)) for outcome in chaos.outcomes)
        print(f"{len(chaos.kills)} killed; {line.carried} packets carried, {line.lost} lost")
        for what in sorted({what for what, _ in counted}):
            print(f"{what}: {counted[what, False]} succeeded, {counted[what, True]} failed")
        for outcome in chaos.outcomes:
            if outcome.error:
                print(f"{outcome.at_s:.0f} s: {outcome.what}: {outcome.error}")
        cluster.wait_acquainted()
        cluster.wait_agreed(30)
        for server in cluster.servers:
            digests = pool.map(lambda name, at=server: config_digest(at, name), chaos.pushed)
            assert dict(zip(chaos.pushed, digests, strict=True)) == chaos.pushed, f"from {server.address}"
        unexpected = [
            outcome
            for outcome in chaos.outcomes
            if outcome.error and not any(words in outcome.error for words in EXPECTED.get(outcome.what, []))
        ]
        assert not unexpected
        assert chaos.kills and len(chaos.pushed) >= 3
