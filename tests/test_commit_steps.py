"""A commit of a running instance takes every step that follows one."""

from pathlib import Path

import pytest

from crdt.fact import blob_fact, tag_fact
from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.adapters.http import HttpTransport
from registry.adapters.no_bus import SilentBus
from registry.catalog.content import add_content
from registry.config import Config
from registry.instance import Instance
from registry.oci.names import Digest
from tests.support.client import sha256

NAME, DIGEST = "repository/app", Digest(sha256(b"content"))


class RecordingBus(SilentBus):
    def __init__(self) -> None:
        super().__init__()
        self.frames: list[bytes] = []

    def publish(self, frame, site=None, cluster=None):
        self.frames.append(frame)


@pytest.fixture
async def running(tmp_path: Path):
    transport, bus = HttpTransport(None), RecordingBus()
    instance = Instance(Config(data=tmp_path), SystemClock(), SystemDisk(tmp_path), bus, transport)
    await instance.start()
    yield instance, bus
    await instance.close()
    await transport.close()


def write(instance, *facts):
    documents = instance.catalog.documents
    return instance.catalog.database.write(lambda tx: documents.write(tx, NAME, [], facts))


async def test_a_commit_is_published_as_a_frame(running):
    instance, bus = running
    writer = instance.catalog.documents.writer
    changes = [await write(instance, tag_fact(tag, DIGEST, 1, writer)) for tag in ("v1", "v2")]
    assert instance.cluster.incarnation.published_seq == 2
    assert [sum(change.delta in frame for frame in bus.frames) for change in changes] == [1, 1]


async def test_a_link_reaches_the_replicator(running, monkeypatch):
    instance, _ = running
    linked = []
    monkeypatch.setattr(instance.cluster.replicator, "linked", lambda document, links: linked.append(document))
    await write(instance, blob_fact(DIGEST, 7, 1, instance.catalog.documents.writer))
    assert linked == [NAME]


async def test_content_that_is_added_moves_the_mark(running):
    instance, _ = running
    mark = instance.leftovers.mark
    before = mark._added
    await instance.catalog.database.write(lambda tx: add_content(tx, DIGEST, 7, b"", 1))
    assert mark._added == before + 1
