"""Bugs between instances."""

import asyncio
import contextlib
import itertools
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import crdt.frame
import registry.cluster.replication.gossip as gossip_module
import registry.cluster.transfer.transfer as fetch_module
import registry.http.peer.handlers as peers_module
from crdt.errors import Malformed
from crdt.header import decode_fields
from registry.catalog.queries import Queries
from registry.cluster.membership.incarnation import CloneGuard
from registry.cluster.node import Cluster
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.replication.diff_requests import DiffRequests
from registry.cluster.replication.gossip import Gossip
from registry.cluster.replication.heartbeat_reactions import HeartbeatReactions
from registry.cluster.rpc.client import PeerClient
from registry.cluster.transfer.blob_reader import BlobReader
from registry.http.oci.read_only import ReadOnlyApp
from registry.storage.checks import ContentHashes
from simulations.planted.bug import Bug, nothing, nothing_async


def mac_unchecked() -> AbstractContextManager[Any]:
    def trusting(data: bytes, keys: Any, understood: Any) -> Any:
        preamble = crdt.frame._PREAMBLE
        if len(data) < preamble.size + crdt.frame.MAC_SIZE:
            raise Malformed("too short")
        _, kind, _, sender, start, sequence = preamble.unpack_from(data)
        fields, at = decode_fields(data[: -crdt.frame.MAC_SIZE], preamble.size)
        return crdt.frame.Frame(kind, sender, start, sequence, data[at : -crdt.frame.MAC_SIZE], fields)

    return patch.object(gossip_module, "unseal", trusting)


def request_mac_unchecked() -> AbstractContextManager[Any]:
    return patch.object(peers_module, "is_mac", lambda said, computed: True)


def digest_unchecked_on_fetch() -> AbstractContextManager[Any]:
    """Fetched content is kept whatever it is."""

    class Agreeing(str):
        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = str.__hash__

    class Careless(ContentHashes):
        def digest(self) -> Any:
            return Agreeing(super().digest())

    return patch.object(fetch_module, "ContentHashes", Careless)


def reads_unchecked() -> AbstractContextManager[Any]:
    """Content is served as it is on the disk."""
    return patch.object(BlobReader, "_is_older", lambda self, checked_ms, bound_ms: False)


def site_not_waited_for() -> AbstractContextManager[Any]:
    return patch.object(Acknowledgements, "wait", nothing_async)


def acknowledged_before_commit() -> AbstractContextManager[Any]:
    """Members acknowledge what they have received, not what they have committed."""
    receive = Gossip._receive_change

    async def hasty(self: Gossip, frame: Any, sender: str) -> None:
        self._applier._applied(frame)
        await receive(self, frame, sender)

    def unseen(self: Any, start: int, sequence: int) -> bool:
        return False

    from registry.cluster.membership.members import Progress

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Gossip, "_receive_change", hasty))
    stack.enter_context(patch.object(Progress, "seen", unseen))
    return stack


def lookups_that_miss() -> AbstractContextManager[Any]:
    """Three of every five lookups of a tag find nothing: so many a request makes, before the application and in it."""
    look, turns = Queries.manifest_by_tag, itertools.count(1)

    def forgetful(self: Queries, repository: Any, tag: str) -> Any:
        return look(self, repository, tag) if next(turns) % 5 > 2 else None

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Queries, "manifest_by_tag", forgetful))
    stack.enter_context(patch.object(Cluster, "read_repair", nothing_async))
    return stack


def no_catching_up() -> AbstractContextManager[Any]:
    async def never(self: AntiEntropy) -> None:
        await asyncio.Event().wait()

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(AntiEntropy, "run", never))
    stack.enter_context(patch.object(DiffRequests, "request_diff", nothing))
    stack.enter_context(patch.object(HeartbeatReactions, "_catch_up_if_missing", nothing))
    stack.enter_context(patch.object(HeartbeatReactions, "_catch_up_at_once", nothing))
    return stack


def reached_though_it_failed() -> AbstractContextManager[Any]:
    """A round of catching up counts as done when it has failed."""
    original = AntiEntropy._catch_up

    async def hopeful(self: AntiEntropy, member: Any) -> bool:
        commit, start = member.beat.commit, member.beat.incarnation
        self._note_sync_point(member, commit, member.beat.published_seq, start)
        return await original(self, member)

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(AntiEntropy, "_catch_up", hopeful))
    stack.enter_context(patch.object(AntiEntropy, "_audit_is_due", lambda self, member: False))
    return stack


def readers_check_nothing() -> Bug:
    """A process that only reads sends content however long ago it was checked."""
    begin = ReadOnlyApp.__init__

    def careless(self: ReadOnlyApp, *arguments: Any) -> None:
        begin(self, *arguments)
        self._verify_after_ms = 10**15

    return patch.object(ReadOnlyApp, "__init__", careless)


def range_one_too_far() -> Bug:
    """A transfer goes on behind the byte where it should."""
    stream = PeerClient.stream

    def skipping(self: PeerClient, member: Any, path: str, headers: Any = ()) -> Any:
        ((_, value),) = headers or (("Range", "bytes=0-"),)
        first, _, last = value.removeprefix("bytes=").partition("-")
        return stream(self, member, path, [("Range", f"bytes={int(first) + bool(int(first))}-{last}")])

    return patch.object(PeerClient, "stream", skipping)


def clone_ignored() -> AbstractContextManager[Any]:
    return patch.object(CloneGuard, "on_clone_detected", nothing)
