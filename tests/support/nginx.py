"""Debian's nginx with the configuration that docs/ has, in front of real instances."""

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


class Nginx:
    """Use as a context manager. Only addresses and TLS are not as they are shipped."""

    def __init__(self, directory: Path, addresses: Sequence[str]) -> None:
        need(shutil.which("nginx") is not None, "nginx is missing")
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.client = Client("127.0.0.1", self.port)
        self._directory = directory
        left = iter(addresses)
        text = re.sub(r"server 10\.1\.0\.\d:5000", lambda _: f"server {next(left)}", SHIPPED.read_text())
        text = re.sub(r"\n *ssl_.*", "", text).replace("listen 443 ssl;", f"listen {self.address};")
        (directory / "concord.conf").write_text(text)
        (directory / "nginx.conf").write_text(AROUND.format(directory=directory))

    def __enter__(self) -> "Nginx":
        log = self._directory / "error.log"
        command = ["nginx", "-c", str(self._directory / "nginx.conf"), "-e", str(log)]
        self._process = subprocess.Popen(command)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    @property
    def errors(self) -> str:
        return (self._directory / "error.log").read_text()
