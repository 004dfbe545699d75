"""HTTP to other instances with TLS: never without it where it is mutual, and always with the newest context."""

import asyncio
import socket
import ssl

import pytest

from registry.adapters.http import HttpTransport
from registry.adapters.tls import load
from registry.ports import PeerUnreachable
from registry.settings.tls_files import TlsFiles
from tests.support.tls import Authority


class Peers:
    """The TLS of instances, by files that may change."""

    def __init__(self, authority, own):
        self.connecting = load(TlsFiles("peer_tls", str(own.certificate), str(own.key), str(authority.file))).connecting


async def serve(context, seen):
    """Serve requests on kept connections, and note the serial number of each one's certificate."""

    async def on_connection(reader, writer):
        while await reader.readline():
            while await reader.readline() != b"\r\n":
                pass
            certificate = writer.get_extra_info("peercert")
            seen.append(int(certificate["serialNumber"], 16))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    return await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=context)


async def body_of(transport, url):
    async with asyncio.timeout(20), transport.request("GET", url) as response:
        return b"".join([chunk async for chunk in response.chunks()])


async def test_the_next_request_uses_the_newest_certificate(tmp_path):
    authority, seen = Authority(tmp_path), []
    accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    accepting.verify_mode, own = ssl.CERT_REQUIRED, authority.issue()
    accepting.load_cert_chain(*own)
    peers, certificates = Peers(authority, own), [own, authority.issue()]
    transport = HttpTransport(peers, is_mutual=True)
    async with await serve(accepting, seen) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for certificate in certificates:
            peers.connecting = Peers(authority, certificate).connecting
            assert [await body_of(transport, url) for _ in range(2)] == [b"ok", b"ok"]
        await transport.close()
    assert seen == [one.serial for one in certificates for _ in range(2)]


async def test_nothing_is_sent_without_tls_where_it_is_mutual(tmp_path):
    authority = Authority(tmp_path)
    transport = HttpTransport(Peers(authority, authority.issue()), is_mutual=True)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        address = "{}:{}".format(*listening.getsockname())
        with pytest.raises(PeerUnreachable, match=f"http://{address} is no https:// address"):
            await body_of(transport, f"http://{address}/_concord/peer/session")
        with pytest.raises(BlockingIOError):
            listening.accept()
    await transport.close()
