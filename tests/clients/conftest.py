"""Each client once for all tests of a worker, with storage of its own."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support.engines import ENGINES, Skopeo


@pytest.fixture(scope="session")
def engines():
    """Clients by name, each begun when it is first needed. Podman wants paths of less than 50 characters."""
    begun = {}

    def begin(name):
        if name not in begun:
            begun[name] = ENGINES[name](Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp")))
        return begun[name]

    yield begin
    for engine in begun.values():
        engine.close()
        shutil.rmtree(engine.directory, ignore_errors=True)


@pytest.fixture(params=sorted(ENGINES))
def engine(request, engines):
    return engines(request.param)


@pytest.fixture
def skopeo(engines) -> Skopeo:
    return engines("skopeo")


@pytest.fixture
def docker(engines):
    return engines("docker")


@pytest.fixture
def podman(engines):
    return engines("podman")


@pytest.fixture
def buildah(engines):
    return engines("buildah")
