"""Fetching the keys of identity providers, by HTTP and from files."""

import asyncio
import ssl
import subprocess
import sys

import pytest

from registry.adapters import identity_providers as adapter
from registry.adapters.http import HttpTransport
from registry.adapters.identity_providers import IdentityProviders, identity_providers
from registry.config import Config, load_config
from registry.errors import CannotStart
from registry.ports import IssuerUnreachable
from tests.support.issuer import Issuer


@pytest.fixture
def issuer():
    with Issuer() as serving:
        yield serving


@pytest.fixture
async def providers():
    made = IdentityProviders(HttpTransport(None), {})
    yield made
    await made.close()


async def refused(providers, issuer, match):
    with pytest.raises(IssuerUnreachable, match=match):
        await providers.fetch(issuer if isinstance(issuer, str) else issuer.url)


async def test_the_keys_of_an_issuer_are_fetched(providers, issuer):
    assert await providers.fetch(issuer.url) == issuer.key_set()
    issuer.configuration = {"issuer": f"{issuer.url}/"}
    assert await providers.fetch(f"{issuer.url}/") == issuer.key_set()


async def test_a_configuration_of_another_issuer_is_refused(providers, issuer):
    for named in ("https://another.example", f"{issuer.url}/", issuer.url.upper()):
        issuer.configuration = {"issuer": named}
        await refused(providers, issuer, "another issuer")
    assert issuer.fetches == 0


@pytest.mark.parametrize(
    "uri",
    ["http://192.0.2.1/keys", "file:///etc/passwd", "ftp://127.0.0.1/", "keys", "", "http://", "http://[", "https://"],
)
async def test_keys_at_an_address_without_tls_are_refused(providers, issuer, uri):
    issuer.configuration = {"jwks_uri": uri}
    await refused(providers, issuer, "https://")


def test_an_issuer_elsewhere_does_not_lead_to_this_machine():
    assert not adapter._is_trusted("http://127.0.0.1/keys", "https://issuer.example")
    assert adapter._is_trusted("https://keys.example/keys", "https://issuer.example")
    assert adapter._is_trusted("http://127.0.0.1/keys", "http://localhost:8080")


@pytest.mark.parametrize("members", [{"jwks_uri": 1}, {"issuer": None}, {"jwks_uri": None}])
async def test_a_configuration_without_its_members_is_refused(providers, issuer, members):
    issuer.configuration = members
    await refused(providers, issuer, "no issuer and jwks_uri")


async def test_an_issuer_by_plain_http_elsewhere_is_not_contacted(providers):
    await refused(providers, "http://192.0.2.1", "expected https")


async def test_an_issuer_that_is_down_is_unreachable(providers, issuer):
    issuer.is_down = True
    await refused(providers, issuer, "answered 503")
    issuer.close()
    await refused(providers, issuer, "refused|reached")


async def test_answers_have_a_bound(providers, issuer, monkeypatch):
    monkeypatch.setattr(adapter, "MAX_KEYS_BYTES", 100)
    await refused(providers, issuer, "longer than 100")
    monkeypatch.setattr(adapter, "MAX_CONFIGURATION_BYTES", 10)
    await refused(providers, issuer, "longer than 10 ")


async def test_an_issuer_that_does_not_answer_is_given_up(providers, monkeypatch):
    monkeypatch.setattr(adapter, "TIMEOUT_S", 0.2)
    server = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(5):
            await refused(providers, f"http://127.0.0.1:{port}", "in time")


async def test_redirects_are_not_followed(providers, issuer, monkeypatch):
    async def redirect(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {issuer.url}/keys\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await refused(providers, f"http://127.0.0.1:{port}", "answered 302")
    assert not issuer.requests


async def test_keys_in_a_file_need_no_issuer_and_are_read_again(tmp_path):
    issuer, file = Issuer("https://kubernetes.default.svc"), tmp_path / "keys.json"
    file.write_bytes(issuer.key_set())
    providers = identity_providers(Config(oidc_keys=[f"{issuer.url}={file}"]))
    assert await providers.fetch(issuer.url) == issuer.key_set()
    file.write_bytes(b"other keys")
    assert await providers.fetch(issuer.url) == b"other keys"
    file.write_bytes(b"x" * (adapter.MAX_KEYS_BYTES + 1))
    await refused(providers, issuer.url, "longer")
    file.unlink()
    await refused(providers, issuer.url, "cannot be read")
    await providers.close()


def test_files_that_cannot_be_read_prevent_the_start(tmp_path):
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.write_text("")
    with pytest.raises(CannotStart, match="oidc_keys"):
        identity_providers(Config(oidc_keys=[f"https://issuer.example={missing}"]))
    for file in (missing, empty):
        with pytest.raises(CannotStart, match="oidc_ca"):
            identity_providers(Config(oidc_ca=str(file)))


@pytest.mark.parametrize(
    "settings",
    [
        {"oidc_keys": "https://issuer.example"},
        {"oidc_keys": "https://issuer.example="},
        {"oidc_keys": "http://issuer.example=keys.json"},
        {"oidc_keys": "=keys.json"},
        {"oidc_audience": ""},
    ],
)
def test_settings_that_are_wrong_prevent_the_start(settings):
    with pytest.raises(CannotStart):
        load_config(settings, None)


async def test_an_authority_of_ones_own_is_trusted_beside_those_of_the_system(tmp_path):
    import trustme

    file = tmp_path / "authority.pem"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    issuer = Issuer()

    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        body = issuer.answer(head.split(b" ")[1].decode())
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "localhost", 0, ssl=context)
    async with server:
        issuer.url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        trusting, other = identity_providers(Config(oidc_ca=str(file))), identity_providers(Config())
        assert await trusting.fetch(issuer.url) == issuer.key_set()
        await refused(other, issuer, "TLS")
        assert len(adapter._Authorities(str(file)).connecting.get_ca_certs()) >= 1
        for one in (trusting, other):
            await one.close()


def test_the_libraries_are_loaded_at_the_first_token():
    loaded = "import registry.runtime.primary, registry.runtime.worker_service, sys"
    words = f"{loaded}; print({{*sys.modules}} & {{'joserfc', 'aiohttp'}})"
    assert subprocess.run([sys.executable, "-c", words], capture_output=True, text=True).stdout == "set()\n"
