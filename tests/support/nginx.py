"""Debian's nginx in front of real instances."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.client import Client
from tests.support.needs import need
from tests.support.server import free_port

SHIPPED = Path(__file__).parents[2] / "docs" / "nginx.conf"
AROUND = """
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/answers;
    fastcgi_temp_path {directory}/unused;
    uwsgi_temp_path {directory}/unused;
    scgi_temp_path {directory}/unused;
    include {directory}/concord.conf;
}}
"""
WITHIN_SITE = """
upstream instances {{
    {servers}
    keepalive 32;
}}
server {{
    listen {address};
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_request_buffering off;
    proxy_buffering off;
    proxy_connect_timeout 2s;
    location / {{ proxy_pass http://instances; }}
}}
"""


class Server:
    """One nginx with a configuration of its own. Use as a context manager."""

    def __init__(self, directory: Path, host: str, port: int, text: str, namespace: str | None = None) -> None:
        need(shutil.which("nginx") is not None, "nginx is missing")
        directory.mkdir(exist_ok=True)
        self.address = f"{host}:{port}"
        self.client = Client(host, port)
        self._directory = directory
        self._on_host = ["ip", "netns", "exec", namespace] if namespace else []
        (directory / "concord.conf").write_text(text)
        (directory / "nginx.conf").write_text(AROUND.format(directory=directory))

    def __enter__(self) -> "Server":
        log = self._directory / "error.log"
        command = [*self._on_host, "nginx", "-c", str(self._directory / "nginx.conf"), "-e", str(log)]
        self._process = subprocess.Popen(command)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    @property
    def errors(self) -> str:
        return (self._directory / "error.log").read_text()


def for_clients(directory: Path, addresses: Sequence[str]) -> Server:
    """With the configuration that docs/ has: only addresses and TLS are not as they are shipped."""
    port = free_port()
    left = iter(addresses)
    text, backends = SHIPPED.read_text(), re.compile(r"    server 10\.1\.0\.\d(:5000.*\n)")
    shipped = backends.findall(text)
    assert len(addresses) <= len(shipped)
    text = backends.sub(lambda line: line[0].replace(_address(line[0]), one) if (one := next(left, "")) else "", text)
    text = re.sub(r"\n *ssl_.*", "", text).replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    return Server(directory, "127.0.0.1", port, text)


def for_other_sites(directory: Path, host: str, namespace: str, addresses: Sequence[str]) -> Server:
    """The one address of a site, on a host of its own: `--advertise-site` names it."""
    servers = "\n    ".join(f"server {address} max_fails=1 fail_timeout=1s;" for address in addresses)
    return Server(directory, host, 5000, WITHIN_SITE.format(servers=servers, address=f"{host}:5000"), namespace)


def _address(line: str) -> str:
    return line.split()[1]
