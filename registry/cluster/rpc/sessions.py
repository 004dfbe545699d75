"""Sessions between instances, and the MACs of their requests and answers.

A session is opened with a nonce from each side. Its token holds both and an expiry under a MAC of the cluster's key,
and the session's own key is derived from the token, so that any process of the answering side can check a request
without having seen the session before. The token names that side and its start, so that a recorded request is rejected
at another instance and after a restart. Every request carries a number and a MAC over method, path, number and its
body's hash; every answer that is not content carries a MAC over the request's number, the status and the body. Content
is proved by its digest instead. This keeps outsiders out; it does not protect members from each other.
"""

import hmac
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from blake3 import blake3

from crdt.errors import Malformed, Unauthentic
from registry.cluster.rpc.keys import ClusterKey
from registry.units import HOUR_S, to_ms

SESSION_MS = to_ms(HOUR_S)
NONCE_SIZE = 16
MAX_SESSIONS = 10_000
WINDOW = 4096

_TOKEN = struct.Struct(">8s16s16sQ16s16sQ")
_MAC_SIZE = 32
STREAMED = "streamed"
REFUSED = "Concord-Refused"
"""The header of an answer that says why no session was opened, with its values:"""
KEY_REFUSED = "cluster-key"
CERTIFICATE_REFUSED = "certificate"
VERSION_REFUSED = "version"


class Session(NamedTuple):
    """An open session, as either side knows it."""

    token: str
    client: str
    """The instance id of the asking side."""
    server: str
    """The instance id of the answering side, and the start of it that knows which requests it has seen."""
    incarnation: int
    key: bytes
    expires_ms: int


def new_token(
    key: ClusterKey, client: str, server: str, incarnation: int, client_nonce: bytes, server_nonce: bytes, now_ms: int
) -> bytes:
    """Return the session token that the answering side gives the asking side."""
    sides = bytes.fromhex(client), bytes.fromhex(server), incarnation
    body = _TOKEN.pack(key.frames.cluster, *sides, client_nonce, server_nonce, now_ms + SESSION_MS)
    return body + _mac(key.sessions, b"token", body)


def read_token(token: str, keys: Sequence[ClusterKey]) -> Session:
    """Raises Malformed or Unauthentic. Whether it has expired is for the caller to see."""
    try:
        raw = urlsafe_b64decode(token)
        if token_text(raw) != token:
            raise ValueError("spelled in another way, so that what was seen under it would not be known again")
        body, mac = raw[:-_MAC_SIZE], raw[-_MAC_SIZE:]
        cluster, client, server, incarnation, _, _, expires_ms = _TOKEN.unpack(body)
    except (ValueError, struct.error):
        raise Malformed("this is no session token") from None
    for key in keys:
        if key.frames.cluster == cluster and hmac.compare_digest(mac, _mac(key.sessions, b"token", body)):
            return Session(
                token, client.hex(), server.hex(), incarnation, _mac(key.sessions, b"session", raw), expires_ms
            )
    raise Unauthentic("a session that no key of this cluster opened")


def token_text(token: bytes) -> str:
    return urlsafe_b64encode(token).decode()


def is_mac(presented: str | None, computed: str) -> bool:
    """Return whether the MAC of a message equals the computed one, in constant time."""
    return hmac.compare_digest((presented or "").encode(), computed.encode())


def sign_opening(key: ClusterKey, body: bytes) -> str:
    return _mac(key.sessions, b"open", body).hex()


def sign_opened(key: ClusterKey, nonce: bytes, body: bytes) -> str:
    return _mac(key.sessions, b"opened", nonce, body).hex()


def sign_request(session: Session, method: str, path: str, sequence: int, parameters: str, body_hash: str) -> str:
    """Return the MAC of a request. `body_hash` is by `hash_of`, so that it can be checked before the body is read."""
    signed = (method, path, str(sequence), parameters, body_hash)
    return _mac(session.key, b"request", *(part.encode() for part in signed)).hex()


def signed_headers(
    session: Session, method: str, path: str, sequence: int, parameters: str, body: bytes | None
) -> dict[str, str]:
    """Return the headers that authenticate a request. `parameters` and `body` are as for `sign_request` and `hash_of`;
    `path` is the whole path of the request."""
    body_hash = hash_of(body)
    headers = {
        "Concord-For": session.server,
        "Concord-Session": session.token,
        "Concord-Sequence": str(sequence),
        "Concord-Body": body_hash,
        "Concord-MAC": sign_request(session, method, path, sequence, parameters, body_hash),
    }
    return headers | ({"Concord-Parameters": parameters} if parameters else {})


def hash_of(body: bytes | None) -> str:
    """Return the hash of a request's body, or the mark of a streamed body (None), which its digest proves instead."""
    return STREAMED if body is None else blake3(body).hexdigest()


def sign_answer(session: Session, sequence: int, status: int, body: bytes) -> str:
    return _mac(session.key, b"answer", str(sequence).encode(), str(status).encode(), body).hex()


def _mac(key: bytes, purpose: bytes, *parts: bytes) -> bytes:
    """Keyed BLAKE3 over parts, each with its length, so that no two lists of parts look alike."""
    keyed = blake3(key=key)
    for part in (purpose, *parts):
        keyed.update(struct.pack(">Q", len(part)))
        keyed.update(part)
    return keyed.digest()


class SeenRequests:
    """Refuses a request that was seen before. Requests of one session may overtake each other."""

    def __init__(self) -> None:
        self._windows: OrderedDict[str, tuple[int, set[int]]] = OrderedDict()

    def accept(self, session: Session, sequence: int) -> bool:
        """Note a request's number. Return False when it was seen already, or is too old to tell."""
        highest, seen = self._windows.pop(session.token, (0, set()))
        fresh = sequence > highest - WINDOW and sequence not in seen
        if fresh:
            seen.add(sequence)
            if sequence > highest:
                highest = sequence
            if len(seen) > 2 * WINDOW:
                seen = {number for number in seen if number > highest - WINDOW}
        self._windows[session.token] = (highest, seen)
        while len(self._windows) > MAX_SESSIONS:
            self._windows.popitem(last=False)
        return fresh
