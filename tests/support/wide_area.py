"""A line between two networks that takes its time and loses packets.

Each network has a gateway host with a TUN device; a thread carries packets from one to the other, since the kernels
that tests run on may lack netem.
"""

import fcntl
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections import deque

from tests.support.network import Network

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
PACKET_BYTES = 65_536


class WideArea:
    """Joins two networks by their last hosts, the gateways. Use as a context manager, inside both of theirs."""

    def __init__(self, first: Network, second: Network, delay_s: float, loss: float, seed: int = 0) -> None:
        """`delay_s` is for each way."""
        self._networks = first, second
        self._delay_s = delay_s
        self._loss = loss
        self._random = random.Random(seed)
        self._over = threading.Event()
        self.carried = self.lost = 0
        """Packets."""

    def __enter__(self) -> "WideArea":
        self._devices = [self._join(*self._networks), self._join(*reversed(self._networks))]
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for device in self._devices:
            os.close(device)

    def _join(self, network: Network, other: Network) -> int:
        """Make one end of the line, and routes to it. Return its file descriptor."""
        gateway, name = network.names[-1], f"{network.names[-1]}t"
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        _run("ip", "link", "set", name, "netns", gateway)
        _run("ip", "-n", gateway, "link", "set", name, "up")
        _run("ip", "-n", gateway, "route", "add", f"{other.subnet}.0/24", "dev", name)
        _run("ip", "netns", "exec", gateway, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        for host in network.names[:-1]:
            _run("ip", "-n", host, "route", "add", f"{other.subnet}.0/24", "via", network.addresses[-1])
        return device

    def _carry(self) -> None:
        first, second = self._devices
        other_end = {first: second, second: first}
        under_way: deque[tuple[float, int, bytes]] = deque()
        while not self._over.is_set():
            wait_s = max(under_way[0][0] - time.monotonic(), 0) if under_way else 0.1
            for device in select.select(self._devices, [], [], wait_s)[0]:
                packet = os.read(device, PACKET_BYTES)
                if self._random.random() < self._loss:
                    self.lost += 1
                else:
                    under_way.append((time.monotonic() + self._delay_s, other_end[device], packet))
            while under_way and under_way[0][0] <= time.monotonic():
                _, device, packet = under_way.popleft()
                self.carried += 1
                try:
                    os.write(device, packet)
                except BlockingIOError:
                    self.lost += 1


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
