"""Commits that a worker has its primary make: batches, errors, and messages that arrive twice, late or not at all."""

import asyncio
import contextlib

import pytest

import registry.runtime.commit_link as commit_link_module
from registry import errors
from registry.catalog.content import UploadRow
from registry.errors import BlobUploadUnknown, DiskFull, Leaving, ProcessUnreachable, StorageFailed, WriteConcernTimeout
from registry.oci.names import Digest, Repository
from registry.runtime.commit_link import CommitServer, Failure, Introduction, Notes, PrimaryLink, RemoteCommits
from registry.runtime.frames import FrameLink
from registry.runtime.links import LinkListener, Mailboxes
from registry.storage.checked import Corruption
from registry.storage.upload_commits import FinishedUpload
from registry.telemetry.counters import Counted
from tests.support.seams import StillClock

APP = Repository("app")


def row(number: int) -> UploadRow:
    return UploadRow(f"u{number}", APP, number, "00", 1)


def finished(name: str) -> FinishedUpload:
    return FinishedUpload(name, APP, Digest(f"sha256:{0:064}"), 3_000_000, bytes(range(96)))


class Primary:
    """A primary that notes what it is to commit. It may be slow, and fail."""

    def __init__(self, mailboxes):
        self.committed, self.notes, self.leases, self.frames = [], [], 0, 0
        self.failure = self.not_acknowledged = None
        self.may_commit, self.is_leaving = asyncio.Event(), False
        self.may_commit.set()
        self.server = CommitServer(self, self, self.notes.append, self.note_lease)
        self.listener = LinkListener(mailboxes.receiving[0], StillClock())
        self.listener.start(lambda _, link: self.server.serve(link))

    def note_lease(self):
        self.leases += 1

    async def await_readiness(self):
        await self.may_commit.wait()

    @contextlib.contextmanager
    def writing(self):
        if self.is_leaving:
            raise Leaving("it leaves")
        yield

    async def save(self, upload):
        await self.note("save", upload)

    async def end(self, upload):
        await self.note("end", upload)

    async def publish(self, upload):
        await self.note("publish", upload)

        async def acknowledged():
            if self.not_acknowledged is not None:
                raise self.not_acknowledged

        return acknowledged

    async def note(self, kind, upload):
        if self.failure is not None:
            raise self.failure
        self.committed.append((kind, upload))

    async def die(self):
        """End the links; what is under way is never answered."""
        self.listener.close()
        for task in (*self.server._links, *self.server._under_way):
            task.cancel()
        await asyncio.sleep(0.01)


@pytest.fixture
def mailboxes():
    mailboxes = Mailboxes(2)
    yield mailboxes
    mailboxes.close()


@contextlib.asynccontextmanager
async def worker(mailboxes, number=1, slot=1):
    link = PrimaryLink(mailboxes, Introduction(slot, number))
    running = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_commits_of_one_turn_go_in_one_frame_and_in_order(mailboxes, monkeypatch):
    primary, written, write = Primary(mailboxes), [], FrameLink.write

    def noted(self, kind, payload=b""):
        written.append(kind)
        write(self, kind, payload)

    monkeypatch.setattr(FrameLink, "write", noted)
    async with worker(mailboxes) as link:
        await until(lambda: link._outbox.link is not None)
        commits = RemoteCommits(link)
        await asyncio.gather(*(commits.save(row(number)) for number in range(100)))
    assert primary.committed == [("save", row(number)) for number in range(100)]
    assert written.count(b"M") == 1 and written.count(b"R") <= 3
    await primary.die()


async def test_what_crosses_arrives_as_it_was(mailboxes):
    primary = Primary(mailboxes)
    digests = [Digest(f"sha512:{number:0128x}") for number in range(200)]
    traffic = [Counted("/v2/<name>/manifests/<reference>", "GET", {200: 2**40}, [2**40] * 13, 1e9, 2**60, 2**60)] * 20
    notes = Notes(traffic, 1, digests, [Corruption(digest, 2**62) for digest in digests], {"disk-full": 3})
    async with worker(mailboxes) as link:
        commits = RemoteCommits(link)
        await (await commits.publish(finished("u")))()
        await commits.end("u")
        await link.send(notes)
        link.request_lease()
        await until(lambda: primary.leases)
    assert primary.committed == [("publish", finished("u")), ("end", "u")] and primary.notes == [notes]
    await primary.die()


@pytest.mark.parametrize(
    "error",
    [
        StorageFailed("the disk failed", {"cause": "an error"}),
        DiskFull({"free_bytes": 1}),
        BlobUploadUnknown("there is no such upload"),
        errors.TooManyUploads("too many", {"uploads": 7}, breaks_off=True),
        errors.ContentUnreachable("far away", retry_after_s=17, code="MANIFEST_UNKNOWN"),
        errors.Unsupported("no", 415, {"Accept": "x"}),
        errors.RangeInvalid("outside", 17),
        errors.Ending(),
    ],
)
async def test_errors_of_commits_have_their_types_and_fields(mailboxes, error):
    primary = Primary(mailboxes)
    primary.failure = error
    async with worker(mailboxes) as link:
        with pytest.raises(type(error)) as raised:
            await RemoteCommits(link).save(row(1))
    assert vars(raised.value) == vars(error) and str(raised.value) == str(error)
    assert (raised.value.status, raised.value.code, raised.value.reason) == (error.status, error.code, error.reason)
    await primary.die()


async def test_an_error_that_cannot_cross_fails_its_own_commit_alone(mailboxes):
    """The answers of the same turn were lost with it, and their workers waited for ever."""
    primary = Primary(mailboxes)
    async with worker(mailboxes) as link:
        commits = RemoteCommits(link)
        primary.failure = StorageFailed("the disk failed", {"cause": object()})
        async with asyncio.timeout(20):
            outcomes = await asyncio.gather(
                commits.save(row(1)),
                commits.publish(finished("u")),
                link.send(Notes(cut_off=1)),
                return_exceptions=True,
            )
    assert [type(outcome).__name__ for outcome in outcomes] == ["StorageFailed", "StorageFailed", "Answer"]
    await primary.die()


async def test_a_bug_in_a_commit_is_answered_and_the_link_goes_on(mailboxes):
    primary = Primary(mailboxes)
    async with worker(mailboxes) as link:
        commits = RemoteCommits(link)
        primary.failure = RuntimeError("a bug")
        with pytest.raises(StorageFailed):
            await commits.save(row(1))
        primary.failure = None
        await commits.save(row(2))
    assert primary.committed == [("save", row(2))]
    await primary.die()


async def test_a_publication_that_is_not_acknowledged_is_committed_all_the_same(mailboxes):
    primary = Primary(mailboxes)
    primary.not_acknowledged = WriteConcernTimeout("too few")
    async with worker(mailboxes) as link:
        acknowledged = await RemoteCommits(link).publish(finished("u"))
        with pytest.raises(WriteConcernTimeout):
            await acknowledged()
    await primary.die()


async def test_an_instance_that_leaves_takes_no_commits(mailboxes):
    primary = Primary(mailboxes)
    primary.is_leaving = True
    async with worker(mailboxes) as link:
        with pytest.raises(Leaving):
            await RemoteCommits(link).end("u")
    assert not primary.committed
    await primary.die()


async def test_what_a_dead_primary_has_not_answered_is_sent_to_its_successor_in_order(mailboxes):
    first = Primary(mailboxes)
    async with worker(mailboxes) as link:
        commits = RemoteCommits(link)
        await commits.save(row(0))
        first.may_commit.clear()
        waiting = [asyncio.create_task(commits.save(row(number))) for number in range(1, 20)]
        gone = asyncio.create_task(commits.save(row(99)))
        await until(lambda: len(first.server._under_way) == 20)
        gone.cancel()
        await first.die()
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        second = Primary(mailboxes)
        async with asyncio.timeout(20):
            await asyncio.gather(*waiting)
    assert first.committed == [("save", row(0))]
    assert second.committed == [("save", row(number)) for number in range(1, 20)], "not of a caller that is gone"
    assert not link._unanswered
    await second.die()


async def test_without_a_primary_a_commit_is_given_up_and_never_sent(mailboxes, monkeypatch):
    monkeypatch.setattr(commit_link_module, "OPEN_TIMEOUT_S", 0.1)
    async with worker(mailboxes) as link:
        with pytest.raises(ProcessUnreachable):
            await RemoteCommits(link).save(row(1))
        primary = Primary(mailboxes)
        await link.admitted.wait()
        await RemoteCommits(link).save(row(2))
        assert primary.committed == [("save", row(2))]
        await primary.die()


async def test_a_worker_is_admitted_once_nothing_of_its_predecessor_is_under_way(mailboxes):
    """What a dead worker had left on its way moved the file to which its successor wrote, under a digest that it had
    not."""
    primary = Primary(mailboxes)
    primary.may_commit.clear()
    async with worker(mailboxes, 1) as first:
        lost = asyncio.create_task(RemoteCommits(first).publish(finished("u")))
        await until(lambda: primary.server._under_way)
        lost.cancel()
    async with worker(mailboxes, 2) as second, worker(mailboxes, 1, slot=2) as other:
        await other.admitted.wait()
        await asyncio.sleep(0.1)
        assert not second.admitted.is_set()
        primary.may_commit.set()
        async with asyncio.timeout(20):
            await second.admitted.wait()
        assert primary.committed == [("publish", finished("u"))]
        await RemoteCommits(second).save(row(1))
    await primary.die()


async def test_messages_that_a_dead_worker_left_in_the_mailbox_are_not_taken_after_its_successors(mailboxes):
    async with worker(mailboxes, 2) as second:
        primary = Primary(mailboxes)
        await second.admitted.wait()
        async with worker(mailboxes, 1) as first:
            late = asyncio.create_task(RemoteCommits(first).publish(finished("u")))
            await asyncio.sleep(0.1)
            assert not first.admitted.is_set() and not late.done()
            late.cancel()
        await RemoteCommits(second).save(row(1))
        assert primary.committed == [("save", row(1))]
        await primary.die()


async def test_the_primary_ends_once_no_worker_has_anything_to_commit(mailboxes):
    primary = Primary(mailboxes)
    async with worker(mailboxes) as link:
        await RemoteCommits(link).save(row(1))
        finishing = asyncio.create_task(primary.server.finish(None))
        await asyncio.sleep(0.05)
        assert not finishing.done()
    async with asyncio.timeout(20):
        await finishing
    await primary.server.close()
    primary.listener.close()


def test_every_error_can_cross():
    for name in ("NotCurrent", "NeedsUpgrade", "SizeInvalid", "DigestInvalid", "ChunkOutOfOrder"):
        error = getattr(errors, name)("a message", {"a": 1})
        error.headers["X"] = "y"
        assert vars(Failure.of(error).error()) == vars(error)
