"""Clients: they push, pull, tag anew, delete, mount, and upload in chunks at changing instances, all at once.

There are few repositories, tags and images, so that everything happens to the same things. What a client does next is
drawn from the seed (`mix`); each answer is checked as it arrives.
"""

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from registry.ports import Body, PeerUnreachable
from simulations.history import UNTAGGED, Operation
from simulations.network import Network
from simulations.node import Node
from simulations.workload.credentials import Credential, NoCredential
from simulations.workload.images import ALL_ARTIFACTS, ALL_IMAGES, ALL_INDEXES, Image, digest_of

REPOSITORIES = ("app", "base/os")
SCRATCH = "scratch"
TAGS = ("v1", "v2", "latest")
PATIENCE_S = 40.0
OCTETS = {"Content-Type": "application/octet-stream"}
GRACE_S = 1.5
"""The grace period of unreferenced content, where it is collected."""


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class RequestRecorder(Protocol):
    """Records what clients ask and are answered."""

    def begin(
        self, client: str, kind: str, node: Node, repository: str, reference: str = "", digest: str = ""
    ) -> Operation: ...

    def end(self, operation: Operation, answer: Answer | None) -> None: ...


class Client:
    """One client, which does one thing after the other."""

    def __init__(
        self, name: str, network: Network, nodes: Callable[[], list[Node]], recorder: RequestRecorder, seed: str
    ) -> None:
        self._name = name
        self._network = network
        self.places = nodes
        self._recorder = recorder
        self.rng = random.Random(seed)
        self.credential: Credential = NoCredential()
        self.choose_credential: Callable[[], Credential] = NoCredential
        """Returns the credential for the next thing to do."""
        self.collects = False
        """True if content is to come out of use often, and manifests are to follow their blobs late."""

    # Things to do

    async def push_image(self, node: Node, repository: str) -> None:
        await self.push(node, repository, self.rng.choice(TAGS), self.rng.choice(ALL_IMAGES))

    async def push_index(self, node: Node, repository: str) -> None:
        index = self.rng.choice(ALL_INDEXES)
        for child in index.children:
            if not await self.push(node, repository, digest_of(child.body), child):
                return
        await self.push(node, repository, self.rng.choice(TAGS), index)

    async def push_artifact(self, node: Node, repository: str) -> None:
        artifact = self.rng.choice(ALL_ARTIFACTS)
        await self.push(node, repository, digest_of(artifact.body), artifact)

    async def push_until_acknowledged(self, node: Node, repository: str, reference: str, image: Image) -> None:
        """Push again until it is acknowledged, since a client cancels an upload now and then."""
        is_acknowledged = False
        while not is_acknowledged:
            is_acknowledged = await self.push(node, repository, reference, image)

    async def push(self, node: Node, repository: str, reference: str, image: Image) -> bool:
        """Push as clients do: blobs that are not there yet, then the manifest. Return whether it was acknowledged."""
        for blob in image.blobs:
            if not await self.has(node, repository, blob) and not await self.upload(node, repository, blob):
                return False
        await asyncio.sleep(self.rng.random() * GRACE_S / 2 if self.collects else 0.0)
        path = f"/v2/{repository}/manifests/{reference}"
        tag = "" if reference.startswith("sha256:") else reference
        kind = "push" if tag else "push by digest"
        answer = await self.ask(
            kind, node, "PUT", path, image.body, {"Content-Type": image.media_type},
            repository=repository, reference=tag, digest=digest_of(image.body),
        )  # fmt: skip
        return answer is not None and answer.status == 201

    async def has(self, node: Node, repository: str, blob: bytes) -> bool:
        digest = digest_of(blob)
        answer = await self.ask(
            "head blob", node, "HEAD", f"/v2/{repository}/blobs/{digest}", repository=repository, digest=digest
        )
        return answer is not None and answer.status == 200

    async def upload(self, node: Node, repository: str, blob: bytes) -> bool:
        """In one piece after a POST, in one POST, or in chunks that arrive at changing instances of the site."""
        way, digest = self.rng.choice(("put", "post", "chunks")), digest_of(blob)
        begin = f"/v2/{repository}/blobs/uploads/"
        if way == "post":
            answer = await self.ask(
                "upload", node, "POST", f"{begin}?digest={digest}", blob, repository=repository, digest=digest
            )
            return answer is not None and answer.status == 201
        answer = await self.ask("begin upload", node, "POST", begin, repository=repository)
        if answer is None or answer.status != 202:
            return False
        sent = 0
        if way == "chunks":
            for end in sorted({len(blob) // 3 or 1, 2 * len(blob) // 3 or 1}):
                chunk, place = blob[sent:end], self.near(node)
                headers = {"Content-Range": f"{sent}-{end - 1}", **OCTETS}
                answer = await self.ask(
                    "chunk", place, "PATCH", answer.headers["location"], chunk, headers, repository=repository
                )
                if answer is None or answer.status != 202:
                    return False
                sent = end
            if self.rng.random() < 0.1:
                await self.ask("cancel", self.near(node), "DELETE", answer.headers["location"], repository=repository)
                return False
        last = f"{answer.headers['location']}?digest={digest}"
        answer = await self.ask(
            "upload", self.near(node), "PUT", last, blob[sent:], repository=repository, digest=digest
        )
        return answer is not None and answer.status == 201

    def near(self, node: Node) -> Node:
        """Any instance of the same site, as behind a balancer."""
        return self.rng.choice([other for other in self.places() if other.site == node.site] or [node])

    async def pull(self, node: Node, repository: str) -> None:
        """The manifest of a tag and one of its blobs."""
        body = await self.pull_manifest(node, repository, self.rng.choice(TAGS))
        for layer in self.layers(body or b"{}")[:1]:
            await self.pull_blob(node, repository, layer)

    async def pull_manifest(self, node: Node, repository: str, tag: str) -> bytes | None:
        path = f"/v2/{repository}/manifests/{tag}"
        answer = await self.ask("pull manifest", node, "GET", path, repository=repository, reference=tag)
        return answer.body if answer is not None and answer.status == 200 else None

    @staticmethod
    def layers(manifest: bytes) -> list[str]:
        """The digests of the layers that a manifest names."""
        return [layer["digest"] for layer in json.loads(manifest).get("layers", ())]

    async def pull_blob(self, node: Node, repository: str, digest: str) -> Answer | None:
        return await self.ask(
            "pull blob", node, "GET", f"/v2/{repository}/blobs/{digest}", repository=repository, digest=digest
        )

    async def mount(self, node: Node, repository: str) -> None:
        digest = digest_of(self.rng.choice(self.rng.choice(ALL_IMAGES).blobs))
        (source,) = set(REPOSITORIES) - {repository}
        path = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}"
        await self.ask("mount", node, "POST", path, repository=repository, digest=digest)

    async def delete_tag(self, node: Node, repository: str) -> None:
        tag = self.rng.choice(TAGS)
        path = f"/v2/{repository}/manifests/{tag}"
        await self.ask("delete tag", node, "DELETE", path, repository=repository, reference=tag)

    async def delete_manifest(self, node: Node, repository: str) -> None:
        digest = digest_of(self.rng.choice(ALL_IMAGES + ALL_INDEXES).body)
        path = f"/v2/{repository}/manifests/{digest}"
        await self.ask("delete manifest", node, "DELETE", path, repository=repository, digest=digest)

    async def delete_blob(self, node: Node, repository: str) -> None:
        digest = digest_of(self.rng.choice(self.rng.choice(ALL_IMAGES).blobs))
        path = f"/v2/{repository}/blobs/{digest}"
        await self.ask("delete blob", node, "DELETE", path, repository=repository, digest=digest)

    async def come_and_go(self, node: Node, repository: str) -> None:
        """A repository that is emptied again, so that nothing of it is live any more; meanwhile another instance pulls
        what is in it."""
        blob = self.rng.randbytes(900)
        if await self.upload(node, SCRATCH, blob):
            await self.pull_blob(self.rng.choice(self.places()), SCRATCH, digest_of(blob))
            await asyncio.sleep(self.rng.random())
            path, digest = f"/v2/{SCRATCH}/blobs/{digest_of(blob)}", digest_of(blob)
            await self.ask("delete blob", self.near(node), "DELETE", path, repository=SCRATCH, digest=digest)

    async def read_back(self, node: Node, repository: str) -> None:
        """A tag of its own is pushed at one instance, pulled at another, and deleted there."""
        tag = f"build-{self.rng.randrange(1000)}"
        if await self.push(node, SCRATCH, tag, ALL_IMAGES[0]):
            await asyncio.sleep(self.rng.choice((0.0, 0.3, 2.6)))
            other = self.rng.choice(self.places())
            await self.pull_manifest(other, SCRATCH, tag)
            path = f"/v2/{SCRATCH}/manifests/{tag}"
            await self.ask("delete tag", other, "DELETE", path, repository=SCRATCH, reference=tag)

    async def collect(self, node: Node) -> None:
        """Twice at one instance, so that what was unused at first has been so for the grace."""
        for _ in range(2):
            too = self.rng.random() < 0.5
            body = b'{"untagged_older_than_s": 0}' if too else b"{}"
            await self.ask("collect", node, "POST", "/_concord/gc", body, reference=UNTAGGED if too else "")
            await asyncio.sleep(GRACE_S + 0.1)

    async def list_tags(self, node: Node, repository: str) -> None:
        await self.ask("tags", node, "GET", f"/v2/{repository}/tags/list", repository=repository)

    async def list_referrers(self, node: Node, repository: str) -> None:
        path = f"/v2/{repository}/referrers/{digest_of(ALL_IMAGES[0].body)}"
        await self.ask("referrers", node, "GET", path, repository=repository)

    # A request

    async def ask(
        self,
        kind: str,
        node: Node,
        method: str,
        path: str,
        body: Body = b"",
        headers: dict[str, str] | None = None,
        repository: str = "",
        reference: str = "",
        digest: str = "",
    ) -> Answer | None:
        """Send a request and have its answer judged. None when there was none."""
        operation = self._recorder.begin(self._name, kind, node, repository, reference, digest)
        operation.credential, operation.is_steady = self.credential.id, self.credential.is_steady
        answer = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._exchange(node, method, path, body, headers or {}, operation)
        except (PeerUnreachable, TimeoutError):
            pass
        self._recorder.end(operation, answer)
        return answer

    async def _exchange(
        self, node: Node, method: str, path: str, body: Body, headers: dict[str, str], operation: Operation
    ) -> Answer:
        headers = headers | await self.credential.headers(node, method, path, body)
        url = f"http://{node.name}{path}"
        async with self._network.request(self._name, None, method, url, list(headers.items()), body) as exchange:
            operation.status = exchange.status  # told as soon as the head is here, whatever becomes of the body
            content = b"".join([chunk async for chunk in exchange.chunks()]) if method != "HEAD" else b""
            return Answer(exchange.status, exchange.headers, content)
