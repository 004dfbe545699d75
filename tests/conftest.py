"""Fixtures that many tests use.

Instances are real processes, one for a whole run where tests do not disturb each other.
"""

import os
import re
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.client import Client
from tests.support.server import Cluster, Server, running_cluster, running_server

settings.register_profile("laptop", deadline=None)
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("fast", max_examples=settings.default.max_examples // 5, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "laptop")

LONGEST = ("tests/deployment/test_image.py", "tests/clients/test_balanced_site.py", "tests/clients/test_chaos.py")

LAST_PRIORITY = 19


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first: of what one process has still to do another can take some, but not half a test."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(autouse=True)
def computing_waits(request: pytest.FixtureRequest) -> Iterator[None]:
    """More tests run at once than there are cores, since most of them wait for something. Those that only compute have
    what the others leave, so that they disturb none that looks at a clock."""
    computes = request.path.parent.name in ("crdt", "simulations") and os.geteuid() == 0  # others cannot go back
    before = os.getpriority(os.PRIO_PROCESS, 0)
    if computes:
        os.setpriority(os.PRIO_PROCESS, 0, LAST_PRIORITY)
    yield
    if computes:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One instance without a cluster, of an owner and a reader: a connection may arrive at either."""
    with running_server(
        tmp_path_factory.mktemp("alone") / "data", name="registry.example,mirror.example", workers="2"
    ) as server:
        yield server


@pytest.fixture(scope="session")
def three_sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three instances at three sites. Tests that break things start their own."""
    with running_cluster(tmp_path_factory.mktemp("three"), ["eu", "us", "ap"]) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def one_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three instances at one site. Tests that break things start their own."""
    with running_cluster(tmp_path_factory.mktemp("one"), ["eu", "eu", "eu"]) as cluster:
        yield cluster


@pytest.fixture
def client(alone: Server) -> Client:
    return alone.client


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository name that no other test uses."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:100].strip("-")
    return f"test/{name}-{abs(hash(request.node.nodeid)) % 10**8}"
