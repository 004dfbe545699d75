"""Requests that go on for long: what was let in is decided again at the end of its body."""

import http.client
import os

import pytest

from tests.support.client import sha256

pytestmark = pytest.mark.slow


class Held:
    """A request whose body is sent but for its last byte."""

    def __init__(self, at, method, path, body, headers):
        self._connection = http.client.HTTPConnection(at.server.host, at.server.port, timeout=20)
        self._connection.putrequest(method, path)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self._connection.putheader(name, value)
        self._connection.endheaders(body[:-1])
        self._last = body[-1:]

    def finish(self):
        self._connection.send(self._last)
        answer = self._connection.getresponse()
        answer.read()
        self._connection.close()
        return answer.status


@pytest.mark.parametrize("loses", ["its account", "its right", "nothing"])
def test_a_body_that_ends_after_its_right_was_taken_changes_nothing(at, loses):
    name = f"late-{os.urandom(4).hex()}"
    account = at.facts.account(name, "its password")
    at.facts.grant(account, "late/*", "push", "pull")
    headers, blob = at.basic(name, "its password"), os.urandom(1000)
    digest = sha256(blob)
    held = Held(at, "POST", f"/v2/late/{name}/blobs/uploads/?digest={digest}", blob, headers)
    begun = at.ask("POST", f"/v2/late/{name}/blobs/uploads/", headers, b"")
    location = begun.headers["Location"]
    other = os.urandom(1000)
    put = Held(at, "PUT", f"{location}{'&' if '?' in location else '?'}digest={sha256(other)}", other, headers)
    body = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'
    typed = headers | {"Content-Type": "application/vnd.oci.image.index.v1+json"}
    tag = Held(at, "PUT", f"/v2/late/{name}/manifests/latest", body, typed)
    if loses == "its account":
        at.facts.block(account)
    elif loses == "its right":
        at.facts.revoke(account)
    statuses = [held.finish(), put.finish(), tag.finish()]
    assert set(statuses) == {201} if loses == "nothing" else set(statuses) <= {401, 403}
    at.facts.grant(at.facts.account(f"{name}-reader", "password"), "late/*", "pull")
    reader = at.basic(f"{name}-reader", "password")
    found = [at.ask("HEAD", f"/v2/late/{name}/blobs/{one}", reader).status for one in (digest, sha256(other))]
    assert (200 in found) == (loses == "nothing")
