"""Access control of a real cluster, as an operator makes it: by the API, as the first administrator."""

import json
from base64 import b64encode

from tests.support.client import Answer
from tests.support.server import Server

ADMINISTRATOR, PASSWORD = "root", "the password of root"


def basic(name: str, secret: str) -> dict[str, str]:
    """Return the header of a name and a password, or a robot's key."""
    return {"Authorization": "Basic " + b64encode(f"{name}:{secret}".encode()).decode()}


def act(server: Server, path: str, **fields: object) -> Answer:
    """Send a request of the access API as the first administrator. Its status is the caller's to check."""
    headers = {"Content-Type": "application/json"} | basic(ADMINISTRATOR, PASSWORD)
    return server.client.request("POST", f"/_concord/access/{path}", json.dumps(fields).encode(), headers)


def done(server: Server, path: str, **fields: object) -> dict:
    """Do the same, and return the answer of a request that succeeds."""
    answer = act(server, path, **fields)
    assert answer.status == 200, answer
    return answer.json()


def make_administrator(server: Server) -> None:
    """Make the first administrator."""
    body = json.dumps({"name": ADMINISTRATOR, "password": PASSWORD, "admin": True}).encode()
    headers = {"Content-Type": "application/json"}
    answer = server.client.request("POST", "/_concord/access/account/create", body, headers)
    assert answer.status == 200, answer


def enforce(server: Server) -> None:
    """Make the first administrator, and have the cluster enforce access control."""
    make_administrator(server)
    done(server, "enforce")
