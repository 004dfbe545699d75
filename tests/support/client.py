"""HTTP requests with full control over headers and framing, and the steps of a push."""

import hashlib
import http.client
import json
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from tests.support.images import Image


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the first OCI error."""
        return self.json()["errors"][0]["code"]


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Client:
    """One connection for each request, as docker and skopeo do it, unless `kept`."""

    def __init__(self, host: str, port: int, timeout_s: float = 60.0, context: ssl.SSLContext | None = None) -> None:
        """`context` is that of TLS, if the server speaks it."""
        self.host, self.port, self.timeout_s, self.context = host, port, timeout_s, context

    def connect(self) -> http.client.HTTPConnection:
        if self.context is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=self.timeout_s)
        return http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout_s, context=self.context)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """A body that is no bytes is sent chunked."""
        connection = self.connect()
        try:
            chunked = body is not None and not isinstance(body, bytes)
            given = dict(headers or {})
            if chunked:
                given.setdefault("Transfer-Encoding", "chunked")
            connection.request(method, path, body, given, encode_chunked=chunked)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def head(self, path: str) -> Answer:
        return self.request("HEAD", path)

    def delete(self, path: str) -> Answer:
        return self.request("DELETE", path)

    # The steps of a push

    def begin_upload(self, repository: str, query: str = "") -> str:
        """The location of a new upload."""
        answer = self.request("POST", f"/v2/{repository}/blobs/uploads/{query}", b"")
        assert answer.status == 202, answer
        return answer.headers["Location"]

    def push_blob(self, repository: str, content: bytes, digest: str | None = None) -> str:
        """As docker does it: POST, PATCH, PUT, HEAD."""
        digest = digest or sha256(content)
        location = self.begin_upload(repository)
        patched = self.request("PATCH", location, iter([content]) if content else b"")
        assert patched.status == 202, patched
        finished = self.request("PUT", with_digest(patched.headers["Location"], digest), b"")
        assert finished.status == 201, finished
        return digest

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> Answer:
        path = f"/v2/{repository}/manifests/{reference}"
        return self.request("PUT", path, body, {"Content-Type": media_type})

    def push(self, repository: str, tag: str, image: Image) -> str:
        """Push all of an image. Return its digest."""
        for blob in image.blobs:
            self.push_blob(repository, blob)
        for child in image.children:
            self.push(repository, sha256(child.body), child)
        answer = self.put_manifest(repository, tag, image.body, image.media_type)
        assert answer.status == 201, answer
        return answer.headers["Docker-Content-Digest"]

    def pull(self, repository: str, reference: str) -> bytes:
        """The body of a manifest, all of whose content was pulled and checked too."""
        answer = self.get(f"/v2/{repository}/manifests/{reference}")
        assert answer.status == 200, answer
        content = json.loads(answer.body)
        for part in [content.get("config"), *content.get("layers", [])]:
            if part is not None and not part.get("urls"):
                blob = self.get(f"/v2/{repository}/blobs/{part['digest']}")
                assert blob.status == 200 and sha256(blob.body) == part["digest"], (blob.status, part)
        for child in content.get("manifests", []):
            self.pull(repository, child["digest"])
        return answer.body

    def tags(self, repository: str) -> list[str]:
        answer = self.get(f"/v2/{repository}/tags/list")
        return answer.json()["tags"] if answer.status == 200 else []


def with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={quote(digest, safe='')}"
