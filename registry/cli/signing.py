"""Signing administrative requests with the cluster key, as instances sign their requests to each other.

A session is opened with the instance that answers (`registry.cluster.rpc.sessions`), so a recorded request is rejected
at another instance, after a restart, and at its second use; no clocks are compared. The name of the person who asks is
signed too, and stands in the instance's log.
"""

import getpass
import os
import socket
import tomllib
from pathlib import Path
from typing import NamedTuple

import msgspec

from crdt.errors import Malformed, Unauthentic
from registry import __version__
from registry.capabilities import OWN
from registry.cluster.rpc import sessions
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.messages import SessionRequest, SessionResponse
from registry.cluster.rpc.sessions import (
    NONCE_SIZE,
    Session,
    is_mac,
    read_token,
    sign_answer,
    sign_opened,
    sign_opening,
    token_text,
)
from registry.errors import CannotStart

SESSION_PATH = "/_concord/peer/session"
VARIABLE = "CONCORD_CLUSTER_KEY"
MAX_NAME_CHARACTERS = 200
_SEQUENCE = 1  # a session is opened for one request


class Opening(NamedTuple):
    """A request for a session."""

    headers: dict[str, str]
    body: bytes
    nonce: bytes


def cluster_secrets(file: Path | None) -> list[str]:
    """Return the cluster's secrets from the environment, else from a configuration file, else none. Raises
    CannotStart."""
    value: object = os.environ.get(VARIABLE, "")
    if not value and file is not None:
        try:
            value = tomllib.loads(file.read_text()).get("cluster_key", "")
        except (OSError, ValueError) as error:
            raise CannotStart(f"{file} cannot be read: {error}") from None
    listed = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [str(secret).strip() for secret in listed if str(secret).strip()]


def open_session(key: ClusterKey) -> Opening:
    """Return a request for a session with whichever instance answers."""
    nonce = os.urandom(NONCE_SIZE)
    body = msgspec.msgpack.encode(SessionRequest(os.urandom(16).hex(), nonce, __version__, list(OWN.capabilities)))
    return Opening({"Concord-Cluster": key.cluster, "Concord-MAC": sign_opening(key, body)}, body, nonce)


def read_session(key: ClusterKey, opening: Opening, mac: str | None, answer: bytes) -> Session | None:
    """Return the session that an instance has opened; None for an answer that is not signed with the key."""
    if not is_mac(mac, sign_opened(key, opening.nonce, answer)):
        return None
    try:
        return read_token(token_text(msgspec.msgpack.decode(answer, type=SessionResponse).token), [key])
    except (msgspec.DecodeError, Malformed, Unauthentic):
        return None


def signed_headers(session: Session, path: str, body: bytes) -> dict[str, str]:
    """Return the headers that prove a POST."""
    return sessions.signed_headers(session, "POST", path, _SEQUENCE, asker_name(), body)


def is_authentic(session: Session, status: int, body: bytes, mac: str | None) -> bool:
    """Return whether an answer is the instance's own."""
    return is_mac(mac, sign_answer(session, _SEQUENCE, status, body))


def asker_name() -> str:
    """Return who asks, for the instance's log: the user and this host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user that has no name
        user = f"uid-{os.getuid()}"
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in f"{user}@{socket.gethostname()}")[
        :200
    ].strip()
