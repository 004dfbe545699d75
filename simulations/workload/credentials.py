"""Credentials that clients present: none, a name with a key or a password, a token, or the signature of the cluster
key."""

import base64
import json
import random
from functools import lru_cache
from typing import NamedTuple, Protocol

import msgspec

from crdt.errors import Malformed, Unauthentic
from registry import __version__
from registry.capabilities import OWN
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.messages import SessionRequest, SessionResponse
from registry.cluster.rpc.sessions import NONCE_SIZE, read_token, sign_opening, signed_headers, token_text
from registry.http.oci.paths import TOKEN_PATH
from registry.ports import Body, PeerUnreachable
from simulations.network import Network
from simulations.node import Node

REPOSITORIES = ("app", "base/os", "scratch")
GET_AGAIN = 0.2
SESSION_PATH = "/_concord/peer/session"
_SEQUENCE = 1  # a session is opened for one request
OPERATOR_NAME = "operator"


class Credential(Protocol):
    """A way to prove who sends a request."""

    @property
    def id(self) -> str:
        """Return the id of the fact that makes it a credential; empty for the operator, and without a credential."""

    @property
    def is_steady(self) -> bool:
        """Return whether no drawn change takes anything from it."""

    async def headers(self, node: Node, method: str, path: str, body: Body) -> dict[str, str]:
        """Return the headers that prove a request. Raises PeerUnreachable."""


class NoCredential(NamedTuple):
    """No credential, as where access control is not enforced."""

    id: str = ""
    is_steady: bool = True

    async def headers(self, node: Node, method: str, path: str, body: Body) -> dict[str, str]:
        return {}


class BasicCredential(NamedTuple):
    """A name with a robot's key or a password."""

    name: str
    secret: str
    id: str
    is_steady: bool = False

    @property
    def proof(self) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{self.name}:{self.secret}".encode()).decode()}

    async def headers(self, node: Node, method: str, path: str, body: Body) -> dict[str, str]:
        return self.proof


class TokenCredential:
    """A token that a credential gets at an instance, and that counts at all of them. It is got again now and then, and
    where it is refused the credential itself is sent, as it is to get a token."""

    is_steady = False

    def __init__(self, network: Network, basic: BasicCredential, rng: random.Random) -> None:
        self._network = network
        self._basic = basic
        self._rng = rng
        self._token = ""

    @property
    def id(self) -> str:
        return self._basic.id

    async def headers(self, node: Node, method: str, path: str, body: Body) -> dict[str, str]:
        if not self._token or self._rng.random() < GET_AGAIN:
            self._token = await self._get(node)
        return {"Authorization": f"Bearer {self._token}"} if self._token else self._basic.proof

    async def _get(self, node: Node) -> str:
        scopes = "&".join(f"scope=repository:{name}:pull,push,delete" for name in REPOSITORIES)
        url = f"http://{node.name}{TOKEN_PATH}?service=concord&{scopes}"
        headers = [*self._basic.proof.items()]
        async with self._network.request(f"{self._basic.name} gets a token", None, "GET", url, headers, b"") as answer:
            content = b"".join([chunk async for chunk in answer.chunks()])
        token: str = json.loads(content)["token"] if answer.status == 200 else ""
        return token


class ClusterKeyCredential:
    """The signature of the operator, who holds the cluster key. A session is opened for each request."""

    id = ""
    is_steady = True

    def __init__(self, network: Network, rng: random.Random) -> None:
        self._network = network
        self._rng = rng

    async def headers(self, node: Node, method: str, path: str, body: Body) -> dict[str, str]:
        key = _key_of(node.secrets[0])
        instance, nonce = self._rng.randbytes(16).hex(), self._rng.randbytes(NONCE_SIZE)
        opening = msgspec.msgpack.encode(SessionRequest(instance, nonce, __version__, list(OWN.capabilities)))
        proof = [("Concord-Cluster", key.cluster), ("Concord-MAC", sign_opening(key, opening))]
        url = f"http://{node.name}{SESSION_PATH}"
        async with self._network.request(OPERATOR_NAME, None, "POST", url, proof, opening) as answer:
            content = b"".join([chunk async for chunk in answer.chunks()])
            if answer.status != 200:
                raise PeerUnreachable(f"{node.name} opens no session: {answer.status}")
        try:
            session = read_token(token_text(msgspec.msgpack.decode(content, type=SessionResponse).token), [key])
        except (msgspec.DecodeError, Malformed, Unauthentic):
            raise PeerUnreachable(f"{node.name} has opened no session that can be read") from None
        assert isinstance(body, bytes), "an operator's requests are short"
        return signed_headers(session, method, path, _SEQUENCE, OPERATOR_NAME, body)


@lru_cache(64)
def _key_of(secret: str) -> ClusterKey:
    return ClusterKey(secret)
