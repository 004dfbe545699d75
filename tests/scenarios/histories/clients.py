"""Clients that push, tag again, delete and read, at members that a balancer would send them to, and record all they do.

The tags of a repository are written at one site alone, so that what a read may show follows from the order of its
writes; all sites read them. Where sites write the same tag unseen by each other clocks decide, and the harness sets
those wrong.
"""

import http.client
import random
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from simulations.write_order import LISTED
from tests.scenarios.histories.checkers.content import WRONG_BYTES
from tests.scenarios.histories.history import SHARED, History, Operation
from tests.scenarios.histories.members import Member, Members
from tests.support.client import Answer, Client, sha256
from tests.support.images import Image, image

READ_TIMEOUT_S = 4.0
WRITE_TIMEOUT_S = 15.0
REPOSITORIES = 2
TAGS = 3
SHARED_SHARE = 0.1
KEPT_SHARE = 0.4
"""The share of reads that are sent on a connection that is kept."""
PAUSE_S = 0.05
ELSEWHERE = 0.1
"""The share of requests that go to any member, in rotation or not."""


class Recorder:
    """Sends requests and records them. One for each thread."""

    def __init__(self, history: History, client: int) -> None:
        self._history = history
        self._client = client
        self._kept: dict[int, http.client.HTTPConnection] = {}

    def request(
        self,
        operation: Operation,
        member: Member,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = WRITE_TIMEOUT_S,
        is_kept: bool = False,
    ) -> Answer | None:
        """The answer, or None where there is none. The operation is in the history before it is sent."""
        operation.client, operation.member, operation.site = self._client, member.number, member.site
        operation.is_ready = member.in_rotation
        self._history.operations.append(operation)
        operation.begin = time.monotonic()
        try:
            if is_kept:
                answer = self._on_kept(member, method, path, timeout_s)
            else:
                answer = Client(member.server.host, member.server.port, timeout_s).request(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            operation.note = f"{operation.note} {type(error).__name__}".strip()
            return None
        operation.status, operation.end = answer.status, time.monotonic()
        return answer

    def _on_kept(self, member: Member, method: str, path: str, timeout_s: float) -> Answer:
        """As balancers do it: a worker that has the connection answers as long as it can. A read on a connection whose
        process has ended meanwhile is sent again on a new one."""
        kept = self._kept.pop(member.number, None)
        if kept is not None:
            with suppress(ConnectionError):
                return self._ask(kept, member, method, path)
        fresh = http.client.HTTPConnection(member.server.host, member.server.port, timeout=timeout_s)
        return self._ask(fresh, member, method, path)

    def _ask(self, connection: http.client.HTTPConnection, member: Member, method: str, path: str) -> Answer:
        """Send a read, and keep the connection where it was answered."""
        try:
            connection.request(method, path)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        except BaseException:
            connection.close()
            raise
        self._kept[member.number] = connection
        return answer

    def also(self, operation: Operation, keys: list[str]) -> None:
        """Note an operation under all keys that it may have changed."""
        self._history.operations += [replace(operation, key=key) for key in keys if key != operation.key]

    def list_tags(self, member: Member, repository: str, tags: list[str]) -> None:
        """Read which of some tags there are."""
        operation = Operation("list", "", 0, f"{repository}:{tags[0]}", 0.0)
        answer = self.request(operation, member, "GET", f"/v2/{repository}/tags/list", timeout_s=READ_TIMEOUT_S)
        listed = set(answer.json()["tags"] or ()) if answer is not None and answer.status == 200 else set()
        operation.value = LISTED if tags[0] in listed else ""
        self._history.operations += [
            replace(operation, key=f"{repository}:{tag}", value=LISTED if tag in listed else "") for tag in tags[1:]
        ]

    def read_tag(
        self, member: Member, key: str, action: str = "read", method: str = "GET", is_kept: bool = False
    ) -> Operation:
        """Read what a tag shows, on a connection that is kept, or on one of its own."""
        repository, _, tag = key.partition(":")
        operation = Operation(action, "", 0, key, 0.0)
        path = f"/v2/{repository}/manifests/{tag}"
        answer = self.request(operation, member, method, path, timeout_s=READ_TIMEOUT_S, is_kept=is_kept)
        if answer is not None and answer.status == 200:
            operation.value = answer.headers["Docker-Content-Digest"]
            if method == "GET" and sha256(answer.body) != operation.value:
                operation.note = WRONG_BYTES
        return operation

    def read_manifest(self, member: Member, key: str, action: str = "manifest") -> Operation:
        """Read a manifest by its digest: REPOSITORY@DIGEST."""
        return self._read_content(member, Operation(action, "", 0, key, 0.0), "manifests", key.partition("@")[2])

    def read_blob(self, member: Member, key: str, digest: str, action: str = "blob") -> Operation:
        """Read a blob of the manifest REPOSITORY@DIGEST."""
        return self._read_content(member, Operation(action, "", 0, key, 0.0), "blobs", digest)

    def _read_content(self, member: Member, operation: Operation, kind: str, digest: str) -> Operation:
        answer = self.request(operation, member, "GET", f"/v2/{operation.repository}/{kind}/{digest}")
        if answer is not None and answer.status == 200:
            operation.value = operation.key.partition("@")[2]
            if sha256(answer.body) != digest:
                operation.note = WRONG_BYTES
        return operation


class Pool:
    """The images that were pushed, for all clients to draw from."""

    def __init__(self) -> None:
        self.images: dict[str, list[Image]] = {}
        """By repository, of acknowledged pushes."""

    def add(self, repository: str, pushed: Image) -> None:
        self.images.setdefault(repository, []).append(pushed)


class ClientThread:
    """One client, until it is told to end."""

    def __init__(self, number: int, seed: int, members: Members, history: History, pool: Pool) -> None:
        self._number = number
        self._drawn = random.Random(f"{seed} client {number}")
        self._members = members
        self._record = Recorder(history, number)
        self._sites = sorted({member.site for member in members.all})
        self._pool = pool
        self._pushed = 0
        self._seed = seed
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()
        if self.failure is not None:
            raise RuntimeError("a client of the harness failed") from self.failure

    def _run(self) -> None:
        try:
            while not self._ending.wait(self._drawn.expovariate(1 / PAUSE_S)):
                self._step()
        except Exception as error:
            self.failure = error

    def _step(self) -> None:
        site = self._drawn.choice(self._sites)
        shared = len(self._sites) > 1 and self._drawn.random() < SHARED_SHARE
        repository = f"{SHARED}app" if shared else f"{site}/app{self._drawn.randrange(REPOSITORIES)}"
        key = f"{repository}:t{self._drawn.randrange(TAGS)}"
        if self._act(site, repository, key):
            self._read_at_once(site, key)

    def _act(self, site: str, repository: str, key: str) -> bool:
        """Do one thing. Return whether the tag may have changed."""
        action = self._drawn.random()
        if action < 0.30:
            return self._push(site, repository, key)
        if action < 0.38:
            return self._tag_again(site, repository, key)
        if action < 0.45:
            return self._delete_tag(site, repository, key)
        if action < 0.49:
            return self._delete_manifest(site, repository, key)
        if action < 0.60:
            self._pull(key)
        elif action < 0.68:
            self._read_pushed(site, repository)
        elif action < 0.74:
            self._record.list_tags(self._at(site), repository, [f"t{tag}" for tag in range(TAGS)])
        else:
            self._read(key, self._at())
        return False

    def _at(self, site: str | None = None) -> Member:
        """A member, of one site or any, in rotation where there is one."""
        near = self._members.all if site is None else self._members.of_site(site)
        ready = [member for member in near if member.in_rotation]
        return self._drawn.choice(ready if ready and self._drawn.random() >= ELSEWHERE else near)

    # What clients do

    def _push(self, site: str, repository: str, key: str) -> bool:
        self._pushed += 1
        began = time.monotonic()
        size = self._drawn.choice((200, 5_000, 5_000, 50_000, 400_000))
        made = image(f"{self._seed} {self._number} {self._pushed}", layers=1, layer_bytes=size)
        for blob in made.blobs:
            digest = sha256(blob)
            operation = Operation("upload", "", 0, f"{repository}@{digest}", 0.0, value=digest)
            path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
            answer = self._record.request(operation, self._at(site), "POST", path, blob)
            if answer is None or answer.status != 201:
                return False
        return self._put(site, repository, key, made, began)

    def _tag_again(self, site: str, repository: str, key: str) -> bool:
        """Push a manifest that was pushed before, under the same tag or another one."""
        pushed = self._pool.images.get(repository)
        return self._put(site, repository, key, self._drawn.choice(pushed[-6:])) if pushed else False

    def _put(self, site: str, repository: str, key: str, made: Image, relies_since: float = 0.0) -> bool:
        operation = Operation("push", "", 0, key, 0.0, value=made.digest, relies_since=relies_since)
        path = f"/v2/{repository}/manifests/{key.partition(':')[2]}"
        headers = {"Content-Type": made.media_type}
        answer = self._record.request(operation, self._at(site), "PUT", path, made.body, headers)
        if answer is not None and answer.status == 201:
            self._pool.add(repository, made)
            return True
        return False

    def _delete_tag(self, site: str, repository: str, key: str) -> bool:
        operation = Operation("delete-tag", "", 0, key, 0.0)
        path = f"/v2/{repository}/manifests/{key.partition(':')[2]}"
        return self._record.request(operation, self._at(site), "DELETE", path) is not None

    def _delete_manifest(self, site: str, repository: str, key: str) -> bool:
        """Delete what a tag shows, with all tags that point at it."""
        shown = self._record.read_tag(self._at(site), key).value
        if not shown:
            return False
        operation = Operation("delete-manifest", "", 0, key, 0.0, value=shown)
        answer = self._record.request(operation, self._at(site), "DELETE", f"/v2/{repository}/manifests/{shown}")
        self._record.also(operation, [f"{repository}:t{tag}" for tag in range(TAGS)])
        return answer is not None and answer.status == 202

    def _read(self, key: str, member: Member) -> Operation:
        is_kept = self._drawn.random() < KEPT_SHARE
        return self._record.read_tag(member, key, "read", self._drawn.choice(("GET", "GET", "HEAD")), is_kept)

    def _read_at_once(self, site: str, key: str) -> None:
        """Read what was just written, as the next step of a pipeline does, at one member after the other."""
        for _ in range(self._drawn.choice((1, 2, 3))):
            self._read(key, self._at(site))

    def _pull(self, key: str) -> None:
        repository = key.partition(":")[0]
        shown = self._read(key, self._at()).value
        for made in self._pool.images.get(repository, ()):
            if made.digest == shown:
                for blob in made.blobs:
                    self._record.read_blob(self._at(), f"{repository}@{shown}", sha256(blob))

    def _read_pushed(self, site: str, repository: str) -> None:
        """Read a manifest by its digest that was pushed a while ago, or just now."""
        pushed = self._pool.images.get(repository)
        if pushed:
            made = self._drawn.choice(pushed[-20:])
            self._record.read_manifest(self._at(site), f"{repository}@{made.digest}")
