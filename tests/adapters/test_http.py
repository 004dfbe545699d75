"""The contract of registry.ports.PeerTransport. Every implementation passes these; this one against a real server."""

import asyncio
import random

import pytest
import uvicorn

from registry.adapters.http import HttpTransport
from registry.ports import PeerUnreachable
from simulations.network import Network, SimulatedTransport
from simulations.packet_simulator import PacketSimulator
from simulations.process import Process
from tests.support.server import free_port


async def app(scope, receive, send):
    """Answers by path."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(b"content-length", b"1000")] if scope["path"] == "/cut" else [(b"x-method", scope["method"].encode())]
    status = 418 if scope["path"] == "/teapot" else 302 if scope["path"] == "/elsewhere" else 200
    if scope["path"] == "/elsewhere":
        headers.append((b"location", b"/echo"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if scope["path"] == "/slow":
        await asyncio.sleep(30)
    if scope["path"] == "/cut":
        await send({"type": "http.response.body", "body": b"x" * 500, "more_body": True})
        raise RuntimeError("cut")
    await send({"type": "http.response.body", "body": body, "more_body": False})


@pytest.fixture(params=["real", "simulated"])
def kind(request):
    return request.param


@pytest.fixture
def network():
    return Network(PacketSimulator(random.Random(1)))


@pytest.fixture
async def url(kind, network):
    if kind == "simulated":
        network.serve("there", Process("there", 1), app)
        yield "http://there"
        return
    config = uvicorn.Config(app, port=free_port(), lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{config.port}"
    server.should_exit = server.force_exit = True
    await serving


@pytest.fixture
async def transport(kind, network):
    if kind == "simulated":
        yield SimulatedTransport(network, Process("here", 1))
        return
    opened = HttpTransport(None)
    yield opened
    await opened.close()


async def body_of(response):
    return b"".join([chunk async for chunk in response.chunks()])


async def test_a_request_and_its_answer(transport, url):
    async with transport.request("PUT", f"{url}/echo", [("X-Y", "z")], b"hello") as response:
        assert (response.status, response.headers["x-method"]) == (200, "PUT")
        assert await body_of(response) == b"hello"


async def test_a_streamed_body(transport, url):
    async def parts():
        for number in range(100):
            yield b"%03d" % number

    async with transport.request("POST", f"{url}/echo", body=parts()) as response:
        assert await body_of(response) == b"".join(b"%03d" % number for number in range(100))


async def test_any_status_is_an_answer_and_redirects_are_not_followed(transport, url):
    for path, status in (("/teapot", 418), ("/elsewhere", 302)):
        async with transport.request("GET", url + path) as response:
            assert response.status == status


async def test_a_body_that_is_cut_never_ends_cleanly(transport, url):
    async with transport.request("GET", f"{url}/cut") as response:
        with pytest.raises(PeerUnreachable):
            await body_of(response)


async def test_nobody_there_is_unreachable(transport):
    with pytest.raises(PeerUnreachable):
        async with transport.request("GET", f"http://127.0.0.1:{free_port()}/"):
            pass


@pytest.mark.parametrize("address", ["http://", "nonsense", "http://127.0.0.1:99999/", "http://[::1/"])
async def test_an_address_that_is_none_is_unreachable(transport, address):
    with pytest.raises(PeerUnreachable):
        async with transport.request("GET", address):
            pass


async def test_the_failure_of_a_streamed_body_is_its_own(transport, url):
    async def broken():
        yield b"one"
        raise KeyError("ours")

    with pytest.raises(KeyError):
        async with transport.request("POST", f"{url}/echo", body=broken()):
            pass


async def test_the_caller_may_give_up(transport, url):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            async with transport.request("GET", f"{url}/slow") as response:
                await body_of(response)
    async with transport.request("GET", f"{url}/echo") as response:
        assert response.status == 200
