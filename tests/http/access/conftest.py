"""An instance of three processes that enforces access control by facts in a file."""

import contextlib
from base64 import b64encode
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.access_view import VARIABLE, Facts
from tests.support.client import Answer
from tests.support.images import image
from tests.support.server import Server, running_server


class Guarded(NamedTuple):
    """An instance, its facts, and what it holds."""

    server: Server
    facts: Facts
    manifest: str
    """Digest of the manifest in `team/app`, tagged v1, and in no other repository."""
    blob: str
    """Digest of a blob in `team/app`."""

    def basic(self, name: str, password: str) -> dict[str, str]:
        return {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}

    def token(self, scope: str = "", name: str = "", password: str = "") -> dict[str, str]:
        """Return the header of a new token."""
        headers = self.basic(name, password) if name else {}
        answer = self.server.client.request("GET", f"/v2/token?service=concord&scope={scope}", headers=headers)
        assert answer.status == 200, answer
        return {"Authorization": f"Bearer {answer.json()['token']}"}

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        return self.server.client.request(method, path, body, headers or {})


@contextlib.contextmanager
def guarded(directory, **settings) -> Iterator[Guarded]:
    facts = Facts(directory / "facts.json", enforced=False)
    settings = {"workers": "3"} | settings
    prepare = "tests.support.access_view:prepare"
    facts_file = {VARIABLE.removeprefix("CONCORD_").lower(): str(facts.path)}
    with running_server(directory / "data", prepare=prepare, **facts_file, **settings) as server:
        pushed = image(b"team/app")
        manifest = server.client.push("team/app", "v1", pushed)
        blob = server.client.push_blob("team/app", b"a blob of team/app")
        server.client.push_blob("public/app", b"a public blob")
        facts.enforce()
        yield Guarded(server, facts, manifest, blob)


@pytest.fixture(scope="session")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("guarded")) as found:
        yield found


@pytest.fixture(scope="session")
def alone_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """The same of one process."""
    with guarded(tmp_path_factory.mktemp("guarded"), workers="1") as found:
        yield found
