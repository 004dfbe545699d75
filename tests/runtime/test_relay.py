"""Requests that one process has another one answer: bodies both ways, early ends, and processes that die."""

import asyncio
import contextlib
import os

import pytest

import registry.runtime.relay as relay_module
from registry.errors import Ending, ProcessUnreachable
from registry.http.oci.answers import CutOff
from registry.http.wire.client_certificate import CLIENT_CERTIFICATE
from registry.http.wire.request import CUT_OFF
from registry.runtime.links import LinkListener, Mailboxes
from registry.runtime.relay import MAX_IDLE_LINKS, Relay, RelayServer
from tests.support.seams import StillClock

MIB = 1 << 20
SIZES = [0, 1, 65_536, 65_537, 3_000_001]


class Client:
    """One client's request, as the server hands it to the application."""

    def __init__(self, method="PUT", pieces=(), headers=(), path="/v2/"):
        self.pieces, self.received, self.status, self.headers = list(pieces), bytearray(), 0, None
        self.asked, self.is_over, self.leaves = 0, False, asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()
        body = [(b"transfer-encoding", b"chunked")] if self.pieces else []
        self.scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"a=b%20c",
            "headers": [(b"host", b"x"), *body, *headers],
            "client": ("10.1.2.3", 4567),
        }

    async def receive(self):
        self.asked += 1
        if self.pieces:
            piece = self.pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}
        if not self.is_over and self.asked == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        await self.may_read.wait()
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], message["headers"]
        else:
            self.received += message.get("body", b"")
            self.is_over = not message.get("more_body", False)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def body_of(receive):
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionAbortedError
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def answer(send, status=200, pieces=(b"",), headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    for number, piece in enumerate(pieces):
        await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces) - 1})


async def echo(scope, receive, send):
    body = await body_of(receive)
    await answer(send, 201, [body[at : at + MIB] for at in range(0, max(len(body), 1), MIB)], [(b"x-a", b"b")])


class Process:
    """The other process. It dies with its links, and a successor takes its mailbox."""

    def __init__(self, mailboxes, app):
        self.seen = []

        async def noted(scope, receive, send):
            self.seen.append(scope)
            await app(scope, receive, send)

        self.server = RelayServer(noted)
        self.listener = LinkListener(mailboxes.receiving[1], StillClock())
        self.listener.start(lambda _, link: self.server.serve(link))

    async def die(self):
        self.listener.close()
        tasks = list(self.server._links)
        self.server.close()
        if tasks:
            await asyncio.wait(tasks, timeout=10)


@pytest.fixture
async def mailboxes():
    mailboxes = Mailboxes(2)
    yield mailboxes
    mailboxes.close()


@contextlib.asynccontextmanager
async def serving(mailboxes, app):
    process, relay = Process(mailboxes, app), Relay(mailboxes)
    yield process, relay
    relay.close()
    await process.die()


async def relayed(relay, client, timeout_s=20):
    async with asyncio.timeout(timeout_s):
        await relay.relay(1, client.scope, client.receive, client.send)
    return client


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece_bytes", [1000, 100_000, 3_000_001])
async def test_bodies_of_any_size_pass_both_ways_on_one_link(mailboxes, size, piece_bytes):
    content = os.urandom(size)
    pieces = [content[at : at + piece_bytes] for at in range(0, size, piece_bytes)]
    async with serving(mailboxes, echo) as (process, relay):
        for _ in range(3):
            client = await relayed(relay, Client(pieces=pieces))
            assert (client.status, bytes(client.received), client.is_over) == (201, content, True)
            assert client.headers == [(b"x-a", b"b")]
        assert len(process.server._links) == 1
        scope, sent = process.seen[0], client.scope
        for name in ("method", "scheme", "path", "raw_path", "query_string", "headers", "client"):
            assert scope[name] == sent[name] if name != "headers" else [*map(tuple, scope[name])] == sent[name]


@pytest.mark.parametrize("subject", [None, "", "CN=ci"])
async def test_the_certificate_of_a_client_goes_along_with_its_request(mailboxes, subject):
    async with serving(mailboxes, echo) as (process, relay):
        client = Client()
        client.scope |= {} if subject is None else {CLIENT_CERTIFICATE: subject}
        await relayed(relay, client)
        assert process.seen[0].get(CLIENT_CERTIFICATE) == subject


async def test_as_many_requests_as_come_are_relayed_at_once_and_few_links_are_kept(mailboxes):
    async with serving(mailboxes, echo) as (process, relay):
        clients = [Client(pieces=[os.urandom(100), b"x" * number]) for number in range(3 * MAX_IDLE_LINKS)]
        expected = [b"".join(client.pieces) for client in clients]
        await asyncio.gather(*(relayed(relay, client) for client in clients))
        assert [bytes(client.received) for client in clients] == expected
        await until(lambda: len(process.server._links) <= MAX_IDLE_LINKS)


async def test_a_body_that_is_announced_is_asked_for_only_when_it_is_wanted(mailboxes):
    async def refuse(scope, receive, send):
        await answer(send, 413, [b"too large"])

    expects = [(b"expect", b"100-continue")]
    async with serving(mailboxes, refuse) as (_, relay):
        client = await relayed(relay, Client(pieces=[b"never"], headers=expects))
        assert (client.status, client.asked) == (413, 0), "no 100 (Continue) was sent"
    async with serving(mailboxes, echo) as (_, relay):
        client = await relayed(relay, Client(pieces=[b"wanted"], headers=expects))
        assert (client.status, bytes(client.received)) == (201, b"wanted")


async def test_a_request_that_is_refused_early_leaves_the_next_one_untouched(mailboxes):
    async def refuse_puts(scope, receive, send):
        if scope["method"] == "PUT":
            await answer(send, 400, [b"refused"])
        else:
            await answer(send, 200, [await body_of(receive)])

    async with serving(mailboxes, refuse_puts) as (_, relay):
        for number in range(20):
            refused = await relayed(relay, Client(pieces=[bytes(MIB)] * (number % 4 + 1)))
            assert (refused.status, bytes(refused.received)) == (400, b"refused")
            following = await relayed(relay, Client("POST", pieces=[b"b%d" % number]))
            assert (following.status, bytes(following.received)) == (200, b"b%d" % number)


async def test_a_client_that_leaves_is_noticed_at_the_other_end(mailboxes):
    left = []

    async def wait_for_it(scope, receive, send):
        try:
            await body_of(receive)
        except ConnectionAbortedError:
            left.append(scope["path"])

    class Leaving(Client):
        async def receive(self):
            if not self.pieces:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": self.pieces.pop(0), "more_body": True}

    async with serving(mailboxes, wait_for_it) as (process, relay):
        client = await relayed(relay, Leaving(pieces=[b"some", b"more"]))
        await until(lambda: left)
        assert client.status == 0
        await until(lambda: not process.server._links)


async def test_a_client_that_leaves_while_it_is_answered_ends_the_answer(mailboxes):
    async def endless(scope, receive, send):
        gone = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done() or gone.result()["type"] != "http.disconnect":
            if gone.done():
                gone = asyncio.ensure_future(receive())
            await send({"type": "http.response.body", "body": bytes(MIB), "more_body": True})

    async with serving(mailboxes, endless) as (process, relay):
        client = Client("GET")
        under_way = asyncio.create_task(relayed(relay, client))
        await until(lambda: len(client.received) > 10 * MIB)
        client.leaves.set()
        async with asyncio.timeout(20):
            await under_way
        await until(lambda: not process.server._links)


async def test_a_client_that_reads_slowly_does_not_fill_memory(mailboxes):
    sent = 0

    async def much(scope, receive, send):
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(MIB), "more_body": True})
            sent += MIB
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with serving(mailboxes, much) as (_, relay):
        client = Client("GET")
        client.may_read.clear()
        under_way = asyncio.create_task(relayed(relay, client))
        await asyncio.sleep(0.5)
        assert sent <= 8 * MIB
        client.may_read.set()
        await under_way
        assert len(client.received) == 64 * MIB


async def test_a_process_that_reads_a_body_slowly_does_not_have_it_gather(mailboxes):
    may_read = asyncio.Event()

    async def slow(scope, receive, send):
        await receive()
        await may_read.wait()
        await body_of(receive)
        await answer(send, 201)

    async with serving(mailboxes, slow) as (_, relay):
        client = Client(pieces=[bytes(MIB)] * 64)
        under_way = asyncio.create_task(relayed(relay, client))
        await asyncio.sleep(0.5)
        assert len(client.pieces) >= 56
        may_read.set()
        assert (await under_way).status == 201


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_safe_request_is_sent_again_to_the_successor_of_a_dead_process(mailboxes, method):
    async def hang(scope, receive, send):
        await asyncio.Event().wait()

    async def serve(scope, receive, send):
        await answer(send, 200, [b"found"], [(b"content-length", b"5")])

    first, relay = Process(mailboxes, hang), Relay(mailboxes)
    client = Client(method)
    under_way = asyncio.create_task(relayed(relay, client))
    await until(lambda: first.seen)
    await first.die()
    await asyncio.sleep(0.05)
    second = Process(mailboxes, serve)
    await under_way
    assert (client.status, bytes(client.received), len(second.seen)) == (200, b"found", 1)
    relay.close()
    await second.die()


@pytest.mark.parametrize(("method", "pieces"), [("DELETE", []), ("POST", []), ("PUT", [b"a"])])
async def test_any_other_request_whose_process_dies_is_not_sent_again(mailboxes, method, pieces):
    async def hang(scope, receive, send):
        await asyncio.Event().wait()

    first, relay = Process(mailboxes, hang), Relay(mailboxes)
    under_way = asyncio.create_task(relayed(relay, Client(method, pieces)))
    await until(lambda: first.seen)
    await first.die()
    second = Process(mailboxes, echo)
    with pytest.raises(ProcessUnreachable):
        await under_way
    assert not second.seen
    relay.close()
    await second.die()


async def test_an_answer_whose_process_dies_is_cut_off_and_never_ended_cleanly(mailboxes):
    async def begin(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await asyncio.Event().wait()

    first, relay = Process(mailboxes, begin), Relay(mailboxes)
    client = Client("GET")
    under_way = asyncio.create_task(relayed(relay, client))
    await until(lambda: client.received)
    await first.die()
    with pytest.raises(CutOff):
        await under_way
    assert not client.is_over
    relay.close()


async def test_an_answer_that_is_cut_off_at_the_other_end_is_cut_off_here(mailboxes):
    async def begin(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise CutOff("damaged")

    async with serving(mailboxes, begin) as (_, relay):
        client = Client("GET")
        with pytest.raises(CutOff):
            await relayed(relay, client)
        assert bytes(client.received) == b"half" and not client.is_over


async def test_a_bug_at_the_other_end_fails_its_own_request_alone(mailboxes, caplog):
    async def fail(scope, receive, send):
        if scope["method"] == "DELETE":
            raise RuntimeError("a bug")
        await echo(scope, receive, send)

    async with serving(mailboxes, fail) as (_, relay):
        with pytest.raises(ProcessUnreachable):
            await relayed(relay, Client("DELETE"))
        assert (await relayed(relay, Client(pieces=[b"x"]))).status == 201
    assert "a relayed request failed" in caplog.text


async def test_a_request_that_was_relayed_is_not_relayed_again(mailboxes):
    """Two processes that each took the other one for the home had a request go round until no descriptor was left."""
    relay = Relay(mailboxes)

    async def back(scope, receive, send):
        await relay.relay(1, scope, receive, send)

    async with serving(mailboxes, back) as (process, _):
        with pytest.raises(ProcessUnreachable):
            await relayed(relay, Client("DELETE"))
        assert len(process.seen) == 1
    relay.close()


async def test_a_request_that_is_cut_off_by_the_end_of_a_drain_is_answered_so(mailboxes):
    async def until_gone(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass

    async with serving(mailboxes, until_gone) as (process, relay):
        under_way = asyncio.create_task(relayed(relay, Client("DELETE")))
        await until(lambda: process.seen)
        under_way.cancel(CUT_OFF)
        with pytest.raises(Ending):
            await under_way
        await until(lambda: not process.server.is_busy)


async def test_few_requests_wait_for_a_process_that_does_not_begin_with_them(mailboxes, monkeypatch):
    """Each that waits for a primary that hangs takes descriptors and buffers, and there was no bound."""
    monkeypatch.setattr(relay_module, "MAX_WAITING", 5)
    relay = Relay(mailboxes)
    waiting = [asyncio.create_task(relayed(relay, Client("GET"))) for _ in range(5)]
    await asyncio.sleep(0.05)
    with pytest.raises(ProcessUnreachable):
        await relayed(relay, Client("GET"), timeout_s=1)
    process = Process(mailboxes, echo)
    assert [client.status for client in await asyncio.gather(*waiting)] == [201] * 5
    assert (await relayed(relay, Client("GET"))).status == 201
    relay.close()
    await process.die()


async def test_requests_that_the_other_process_has_begun_with_are_not_counted(mailboxes, monkeypatch):
    monkeypatch.setattr(relay_module, "MAX_WAITING", 5)
    may_end = asyncio.Event()

    async def slow(scope, receive, send):
        await receive()
        await may_end.wait()
        await answer(send)

    async with serving(mailboxes, slow) as (process, relay):
        under_way = []
        for number in range(1, 20):
            under_way.append(asyncio.create_task(relayed(relay, Client(pieces=[b"a", b"b"]))))
            await until(lambda number=number: len(process.seen) == number and not relay._waiting)
        may_end.set()
        assert [client.status for client in await asyncio.gather(*under_way)] == [200] * 19
