"""Several hosts on one machine: network namespaces on a bridge, whose connections can be swallowed."""

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.needs import need
from tests.support.server import Cluster, Redis, Server


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Network:
    """A bridge, and hosts on it with addresses of their own."""

    _made = itertools.count()

    def __init__(self, hosts: int) -> None:
        number = next(self._made)  # the kernel may still be removing the one before
        self._tag = f"c{os.getpid() % 100_000}x{number % 100}"
        self._bridge = f"{self._tag}b"
        self.subnet = f"10.{50 * (number % 4) + 50 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self.outside = f"{self.subnet}.1"
        """The address of whatever is not on one of the hosts: the clients."""
        self.names = [f"{self._tag}n{host}" for host in range(hosts)]
        self.addresses = [f"{self.subnet}.{10 + host}" for host in range(hosts)]

    def __enter__(self) -> "Network":
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "address", "add", f"{self.outside}/24", "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")
        for number, (name, address) in enumerate(zip(self.names, self.addresses, strict=True)):
            link = f"{self._tag}v{number}"
            _run("ip", "netns", "add", name)
            _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            _run("ip", "link", "set", link, "master", self._bridge, "up")
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            _run("ip", "-n", name, "link", "set", "eth0", "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", self._bridge], capture_output=True, check=False)

    def swallow(self, host: int, other: str) -> None:
        """Drop every packet between a host and an address, without a word to either."""
        for chain, direction in (("INPUT", "-s"), ("OUTPUT", "-d")):
            _run("ip", "netns", "exec", self.names[host], "iptables", "-A", chain, direction, other, "-j", "DROP")

    def partition(self, *groups: Sequence[int]) -> None:
        """Let hosts reach those of their own group alone. From outside all can be reached."""
        for group in groups:
            for host in group:
                for other in (h for g in groups if g is not group for h in g):
                    self.swallow(host, self.addresses[other])

    def heal(self, host: int | None = None) -> None:
        for name in self.names if host is None else [self.names[host]]:
            _run("ip", "netns", "exec", name, "iptables", "-F")


class HostedCluster(Cluster):
    """Instances on hosts of their own, and the Redis on the last host."""

    def __init__(self, directory: Path, network: Network, sites: Sequence[str], **settings: str) -> None:
        self.directory = directory
        self.redis = Redis(directory, network.addresses[len(sites)], network.names[len(sites)])
        self.servers = [
            Server(
                directory / f"{number}-{site}",
                site,
                [self.redis.url],
                host=network.addresses[number],
                port=5000,
                namespace=network.names[number],
                **settings,
            )
            for number, site in enumerate(sites)
        ]


@contextlib.contextmanager
def hosted_cluster(directory: Path, sites: Sequence[str], **settings: str) -> Iterator[tuple[HostedCluster, Network]]:
    """A cluster on hosts. Needs root, iproute2 and iptables."""
    need(os.geteuid() == 0, "network namespaces need root")
    need(shutil.which("ip") is not None and shutil.which("iptables") is not None, "iproute2 and iptables are missing")
    with Network(len(sites) + 1) as network:
        cluster = HostedCluster(directory, network, sites, **settings)
        try:
            yield cluster.start(), network
        finally:
            cluster.stop()
