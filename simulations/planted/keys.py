"""Bugs in what keeps outsiders out, members in, and uploads going."""

import hmac
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import crdt.frame as frame
import registry.cluster.replication.gossip as gossip
import registry.cluster.rpc.client as asking
import registry.cluster.rpc.sessions as sessions
import registry.cluster.rpc.upload_tokens as upload_ids
import registry.http.oci.uploads as uploads
import registry.http.peer.handlers as answering
from registry.cluster.rpc.sessions import SeenRequests
from registry.storage.store import UPLOADS
from registry.storage.uploads import Uploads
from simulations.planted.bug import Bug, nothing_async, together


def first_key_alone() -> Bug:
    """Frames and tokens that were sealed with another key than the first one here are refused."""

    def read_first(token: str, keys: Any) -> Any:
        return sessions.read_token(token, keys[:1])

    return together(
        patch.object(gossip, "unseal", lambda data, keys, known: frame.unseal(data, keys[:1], known)),
        patch.object(asking, "read_token", read_first),
        patch.object(answering, "read_token", read_first),
    )


def first_key_alone_for_uploads() -> Bug:
    def open_first(text: str, repository: Any, keys: Any, account: str) -> Any:
        return upload_ids.open_upload_id(text, repository, keys[:1], account)

    return together(
        patch.object(uploads, "open_upload_id", open_first), patch.object(answering, "open_upload_id", open_first)
    )


def replays_answered() -> Bug:
    return patch.object(SeenRequests, "accept", lambda self, session, sequence: True)


def answers_believed() -> Bug:
    return patch.object(asking, "is_mac", lambda said, computed: True)


def upload_ids_believed() -> Bug:
    trusting = SimpleNamespace(compare_digest=lambda one, other: True, new=hmac.new)
    return patch.object(upload_ids, "hmac", trusting)


def cancel_of_nothing() -> Bug:
    return patch.object(Uploads, "cancel", nothing_async)


def chunks_anywhere() -> Bug:
    """A chunk goes to the end of its upload, wherever it says it belongs."""
    receive = Uploads._receive

    async def placeless(self: Uploads, session: Any, body: Any, span: Any) -> Any:
        return await receive(self, session, body, None if span is None else span._replace(first=session.size))

    return patch.object(Uploads, "_receive", placeless)


def uploads_forgotten() -> Bug:
    """A start removes the files of all uploads."""

    def forgetful(self: Uploads) -> None:
        for name in self._store.disk.names(UPLOADS):
            self._store.disk.remove(f"{UPLOADS}/{name}")

    return patch.object(Uploads, "prepare", forgetful)
