"""Commits by another process: a worker has the primary record what its uploads need (`storage.upload_commits`).

The messages are small, and typed: what crosses is the name of a finished file, its digest, its size and the BLAKE3
digests of its MiBs, never its bytes. One link carries all of a worker's messages. Those of one turn of the loop go in
one frame, and so do the answers of one.

A link begins with the introduction of its worker: the slot, and the number of the process in it. The primary admits a
process once it has ended the links of earlier ones in that slot, and what they had it commit is done. Until then the
process touches no upload. So a message that a dead worker has left on its way never meets a file to which its successor
writes (a fencing token, as in Kleppmann, "How to do distributed locking").

Invariant: an answer says that the commit is durable. A worker that loses the link has no answers to what it has sent
and not heard of: it sends that again, in the same order, to the primary or its successor. Each commit may be repeated
(`UploadCommits`), so a message may arrive late, or twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from registry import errors
from registry.catalog.content import UploadRow
from registry.errors import OciError, ProcessUnreachable, StorageFailed
from registry.event_loop.now import now_s
from registry.oci.names import Digest
from registry.runtime.frames import Link, LinkOpener
from registry.runtime.links import COMMITS, OPEN_TIMEOUT_S
from registry.storage.checked import Corruption
from registry.storage.upload_commits import Acknowledgement, FinishedUpload, UploadCommits
from registry.storage.upload_homes import PRIMARY_SLOT
from registry.telemetry.counters import Counted
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.workers")

RETRY_INTERVAL_S = 0.01
_INTRODUCTION, _ADMISSION, _BATCH, _ANSWERS = b"I", b"A", b"M", b"R"


class Introduction(msgspec.Struct, array_like=True, frozen=True):
    """The first message of a link: which worker it is."""

    slot: int
    number: int
    """The number of the process in its slot: its successor has a higher one."""


class SaveUpload(msgspec.Struct, tag="save", array_like=True):
    """Record the durable bytes of an upload (`UploadRow`)."""

    upload: UploadRow


class PublishUpload(msgspec.Struct, tag="publish", array_like=True):
    """Publish a finished upload (`FinishedUpload`)."""

    upload: FinishedUpload


class EndUpload(msgspec.Struct, tag="end", array_like=True):
    """Record the end of an upload."""

    upload: str


class LeaseWanted(msgspec.Struct, tag="lease", array_like=True):
    """A read waits for the read lease. The primary would notice by itself, a moment later."""


class Notes(msgspec.Struct, tag="notes", array_like=True):
    """A worker's periodic report to the primary."""

    traffic: list[Counted] = []
    cut_off: int = 0
    used: list[Digest] = []
    corrupt: list[Corruption] = []
    refused: dict[str, int] = {}
    """Pushes that were refused, by reason."""
    credentials: list[str] = []
    """Credentials that were accepted, by their ids."""


Commit = SaveUpload | PublishUpload | EndUpload
Message = Commit | Notes | LeaseWanted


class Failure(msgspec.Struct, array_like=True):
    """The error of a commit, by the name of its class in `registry.errors`."""

    name: str
    state: dict[str, Any]

    @classmethod
    def of(cls, error: OciError) -> "Failure":
        return cls(type(error).__name__, dict(vars(error)))

    def error(self) -> OciError:
        """Return the error."""
        kind: type[OciError] = getattr(errors, self.name, StorageFailed)
        error = kind.__new__(kind)
        Exception.__init__(error, self.state["message"])
        vars(error).update(self.state)
        return error


class Answer(msgspec.Struct, array_like=True):
    """The answer to one message."""

    number: int
    failure: Failure | None
    is_committed: bool
    """True where the commit is durable, although it may not be acknowledged."""


_introduction_decoder = msgspec.msgpack.Decoder(Introduction)
_batch_decoder = msgspec.msgpack.Decoder(list[tuple[int, Message]])
_answers_decoder = msgspec.msgpack.Decoder(list[Answer])
_encode = msgspec.msgpack.Encoder(enc_hook=str).encode  # the detail of an error may hold anything


class _Outbox:
    """The messages of one turn of the loop, which go in one frame."""

    def __init__(self, kind: bytes) -> None:
        self._kind = kind
        self._waiting: list[Any] = []
        self.link: Link | None = None

    def add(self, message: Any) -> None:
        """Send a message behind the present turn of the loop."""
        self._waiting.append(message)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Send what waits, if there is a link."""
        if self._waiting and self.link is not None and not self.link.is_broken:
            waiting, self._waiting = self._waiting, []
            self.link.write(self._kind, _encode(waiting))

    def put(self, messages: Sequence[Any]) -> None:
        """Have these wait, and nothing else."""
        self._waiting = list(messages)


class PrimaryLink:
    """The worker's end: has the primary commit, and reports to it. `run` keeps the link."""

    def __init__(self, opener: LinkOpener, introduction: Introduction) -> None:
        self._opener = opener
        self._introduction = introduction
        self.admitted = asyncio.Event()
        """Set once a primary has admitted this process: no commit of an earlier one in its slot is under way."""
        self.admissions = 0
        """The number of links to primaries so far."""
        self._outbox = _Outbox(_BATCH)
        self._unanswered: dict[int, tuple[Commit | Notes, asyncio.Future[Answer]]] = {}
        self._number = 0

    async def run(self) -> None:
        """Keep a link to the primary, for ever, and send to a new one what the last one has not answered."""
        while True:
            try:
                link = await self._opener.connect(PRIMARY_SLOT, COMMITS)
            except ConnectionError:
                await asyncio.sleep(RETRY_INTERVAL_S)
                continue
            try:
                with suppress(ConnectionError):
                    link.write(_INTRODUCTION, _encode(self._introduction))
                    await link.read()
                    self.admitted.set()
                    self.admissions += 1
                    self._outbox.put([(number, message) for number, (message, _) in self._unanswered.items()])
                    self._outbox.link = link
                    self._outbox.flush()
                    while True:
                        _, payload = await link.read()
                        self._take(_answers_decoder.decode(payload))
            finally:
                self._outbox.link = None
                link.abort()

    def _take(self, answers: list[Answer]) -> None:
        for answer in answers:
            _, waiting = self._unanswered.pop(answer.number, (None, None))
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    async def send(self, message: Commit | Notes) -> Answer:
        """Have the primary take a message, or its successor. Raises ProcessUnreachable where there is none for long:
        whether it is committed is then unknown."""
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._number += 1
        number = self._number
        self._unanswered[number] = message, waiting
        self._outbox.add((number, message))
        try:
            while not (await asyncio.wait([waiting], timeout=OPEN_TIMEOUT_S))[0]:
                if self._outbox.link is None:
                    raise ProcessUnreachable
            return waiting.result()
        finally:
            self._unanswered.pop(number, None)

    def request_lease(self) -> None:
        """Let the primary know that a read waits for the read lease."""
        if self._outbox.link is not None:
            self._outbox.add((0, LeaseWanted()))


class RemoteCommits:
    """The commits of a worker's uploads, by its primary (`UploadCommits`)."""

    def __init__(self, link: PrimaryLink) -> None:
        self._link = link

    async def save(self, upload: UploadRow) -> None:
        _raise(await self._link.send(SaveUpload(upload)))

    async def publish(self, upload: FinishedUpload) -> Acknowledgement:
        answer = await self._link.send(PublishUpload(upload))
        if not answer.is_committed:
            _raise(answer)

        async def acknowledged() -> None:
            _raise(answer)

        return acknowledged

    async def end(self, upload: str) -> None:
        _raise(await self._link.send(EndUpload(upload)))


def _raise(answer: Answer) -> None:
    """Raise the error of a commit, if it has failed."""
    if answer.failure is not None:
        raise answer.failure.error()


class CommitGate(Protocol):
    """The conditions of the primary under which another process commits."""

    async def await_readiness(self) -> None:
        """Wait until this primary may commit for clients."""

    def writing(self) -> Any:
        """Return a context manager in which a write is counted. Raises Leaving."""


class _Worker:
    """A process that has introduced itself: its links, and the commits that it has begun."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.links: set[asyncio.Task[None]] = set()
        self.under_way: set[asyncio.Task[None]] = set()
        self.earlier: set[asyncio.Task[None]] = set()
        """Commits of earlier processes in its slot."""


class CommitServer:
    """The primary's end of all workers' links."""

    def __init__(
        self,
        commits: UploadCommits,
        gate: CommitGate,
        on_notes: Callable[[Notes], None],
        on_lease_wanted: Callable[[], None],
    ) -> None:
        self._commits = commits
        self._gate = gate
        self._on_notes = on_notes
        self._on_lease_wanted = on_lease_wanted
        self._links: set[asyncio.Task[None]] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self._workers: dict[int, _Worker] = {}

    def serve(self, arriving: Awaitable[Link]) -> None:
        """Take the messages that come on a link."""
        task = asyncio.create_task(self._serve(arriving))
        self._links.add(task)
        task.add_done_callback(self._links.discard)

    async def finish(self, until_s: float | None) -> None:
        """Wait until all links have ended, up to a time of the loop: no worker has any more to commit then."""
        while self._links:
            rest_s = None if until_s is None else until_s - now_s()
            if rest_s is not None and rest_s <= 0:
                return
            await asyncio.wait(self._links, timeout=rest_s)

    async def close(self) -> None:
        """End all links, and wait for the commits that are under way."""
        for task in self._links:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _serve(self, arriving: Awaitable[Link]) -> None:
        link = await arriving
        outbox = _Outbox(_ANSWERS)
        outbox.link = link
        try:
            with suppress(ConnectionError):
                _, payload = await link.read()
                worker = await self._admit(_introduction_decoder.decode(payload))
                if worker is None:
                    return
                link.write(_ADMISSION)
                while True:
                    _, payload = await link.read()
                    for number, message in _batch_decoder.decode(payload):
                        if isinstance(message, LeaseWanted):
                            self._on_lease_wanted()
                        elif isinstance(message, Notes):
                            self._on_notes(message)
                            outbox.add(Answer(number, None, True))
                        else:
                            self._begin(number, message, outbox, worker)
        finally:
            link.close()

    async def _admit(self, introduced: Introduction) -> _Worker | None:
        """Return a worker once nothing of an earlier process in its slot is under way; None if a later one is there."""
        task = asyncio.current_task()
        assert task is not None, "links are served in tasks"
        worker = self._workers.get(introduced.slot)
        if worker is None or worker.number < introduced.number:
            earlier, worker = worker, _Worker(introduced.number)
            if earlier is not None:
                worker.earlier = earlier.earlier | earlier.under_way
                for link in earlier.links:
                    link.cancel()
            self._workers[introduced.slot] = worker
        if worker.number > introduced.number:
            return None
        worker.links.add(task)
        task.add_done_callback(worker.links.discard)
        worker.earlier = {commit for commit in worker.earlier if not commit.done()}
        if worker.earlier:
            await asyncio.wait(worker.earlier)
        return worker

    def _begin(self, number: int, commit: Commit, outbox: _Outbox, worker: _Worker) -> None:
        task = asyncio.create_task(self._answer(number, commit, outbox))
        for tasks in (self._under_way, worker.under_way):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _answer(self, number: int, commit: Commit, outbox: _Outbox) -> None:
        is_committed, failure = False, None
        try:
            acknowledged = await self._commit(commit)
            is_committed = True
            await acknowledged()
        except OciError as error:
            failure = Failure.of(error)
        except Exception:
            log.exception(LogEvent.REQUEST_FAILED, "a commit of another process failed")
            failure = Failure.of(StorageFailed("the commit failed; the log of this instance says why"))
        outbox.add(Answer(number, failure, is_committed))

    async def _commit(self, commit: Commit) -> Callable[[], Awaitable[None]]:
        await self._gate.await_readiness()
        with self._gate.writing():
            if isinstance(commit, PublishUpload):
                return await self._commits.publish(commit.upload)
            if isinstance(commit, SaveUpload):
                await self._commits.save(commit.upload)
            else:
                await self._commits.end(commit.upload)
        return _acknowledged


async def _acknowledged() -> None:
    """Return at once: these commits are this instance's own."""
