"""What tests of commands share."""

import fcntl

import pytest


@pytest.fixture
def demo_ports(tmp_path_factory):
    """The demo's own ports, for one test at a time."""
    with open(tmp_path_factory.getbasetemp().parent / "demo-ports", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield 5001, 5002, 5003
