"""Debian's nginx in front of real instances."""

import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support import kustomize
from tests.support.client import Client
from tests.support.needs import need
from tests.support.server import free_port, wait_until
from tests.support.tls import Certificate

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "docs" / "nginx.conf"
SHIPPED_FOR_SITES = ROOT / "docs" / "nginx-site.conf"
INGRESSES = ROOT / "k8s" / "base"
REGIONS = ROOT / "k8s" / "components" / "regions"
AROUND = """
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
INGRESS = """
upstream concord {{
    server {backend};
    keepalive 32;
}}
server {{
    listen {address};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    {locations}
    location / {{ return 404; }}
}}
"""
ANNOTATION = "nginx.ingress.kubernetes.io/"
DIRECTIVES = {
    "proxy-body-size": "client_max_body_size {}",
    "client-body-buffer-size": "client_body_buffer_size {}",
    "proxy-request-buffering": "proxy_request_buffering {}",
    "proxy-buffering": "proxy_buffering {}",
    "proxy-connect-timeout": "proxy_connect_timeout {}s",
    "proxy-read-timeout": "proxy_read_timeout {}s",
    "proxy-send-timeout": "proxy_send_timeout {}s",
    "proxy-next-upstream": "proxy_next_upstream {}",
    "proxy-next-upstream-tries": "proxy_next_upstream_tries {}",
    "proxy-next-upstream-timeout": "proxy_next_upstream_timeout {}s",
}
"""The directives that ingress-nginx makes of its annotations."""
_BACKENDS = re.compile(r"    server (10\.1\.0\.\d:\d+) .*\n")
_LOCATION = re.compile(r'location (?:~\*? )?"?\^?(/v2[^"\s]*)"? \{[^}]*?(proxy_pass http://\w+;)')


class Server:
    """One nginx with a configuration of its own. Use as a context manager."""

    def __init__(
        self, directory: Path, host: str, port: int, text: str, namespace: str | None = None, whole: bool = False
    ) -> None:
        """`text` is a file of conf.d, or nginx.conf itself where it is `whole`."""
        need(shutil.which("nginx") is not None, "nginx is missing")
        directory.mkdir(exist_ok=True)
        self.address = f"{host}:{port}"
        self.client = Client(host, port)
        self._directory = directory
        self._on_host = ["ip", "netns", "exec", namespace] if namespace else []
        (directory / "concord.conf").write_text(text)
        (directory / "nginx.conf").write_text(text if whole else AROUND.format(directory=directory))

    def __enter__(self) -> "Server":
        log = self._directory / "error.log"
        command = [*self._on_host, "nginx", "-c", str(self._directory / "nginx.conf"), "-e", str(log)]
        command += ["-g", "daemon off;"]
        self._process = subprocess.Popen(command)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def wait_listening(self) -> "Server":
        """Wait until it takes connections."""
        wait_until(self._takes_connections)
        return self

    def _takes_connections(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.client.host, self.client.port), 1):
            return True
        return False

    @property
    def errors(self) -> str:
        return (self._directory / "error.log").read_text()


def for_clients(directory: Path, addresses: Sequence[str]) -> Server:
    """With the configuration that docs/ has: only addresses and TLS are not as they are shipped."""
    port = free_port()
    return Server(directory, "127.0.0.1", port, _of_nginx_conf(addresses, f"127.0.0.1:{port}"))


def with_tls(directory: Path, addresses: Sequence[str], certificate: Certificate) -> Server:
    """With the configuration that docs/ has, TLS included: only addresses and the files' names are not as shipped."""
    port = free_port()
    text = _with_backends(SHIPPED.read_text(), addresses)
    for shipped, here in {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/nginx/registry.crt": str(certificate.certificate),
        "/etc/nginx/registry.key": str(certificate.key),
    }.items():
        assert shipped in text
        text = text.replace(shipped, here)
    return Server(directory, "127.0.0.1", port, text)


def _of_nginx_conf(addresses: Sequence[str], listen: str) -> str:
    text = _with_backends(SHIPPED.read_text(), addresses)
    return re.sub(r"\n *ssl_.*", "", text).replace("listen 443 ssl;", f"listen {listen};")


def _with_backends(text: str, addresses: Sequence[str]) -> str:
    """Return `text` with these addresses in place of the shipped ones, in every upstream, and no line for the rest."""
    shipped = list(dict.fromkeys(_BACKENDS.findall(text)))
    assert len(addresses) <= len(shipped)
    here = dict(zip(shipped, addresses, strict=False))
    return _BACKENDS.sub(lambda line: line[0].replace(line[1], here[line[1]]) if line[1] in here else "", text)


def _of_ingress(backend: str, listen: str) -> str:
    """Raises KeyError for an annotation that this does not know."""
    ingresses = [one for one in kustomize.build(INGRESSES) if one["kind"] == "Ingress"]
    paths = [(path["path"], one) for one in ingresses for path in one["spec"]["rules"][0]["http"]["paths"]]
    paths.sort(key=lambda path: -len(path[0]))
    return INGRESS.format(
        backend=backend, address=listen, locations="\n    ".join(_location(path, one) for path, one in paths)
    )


def _location(path: str, ingress: kustomize.Object) -> str:
    annotations = {name.removeprefix(ANNOTATION): value for name, value in ingress["metadata"]["annotations"].items()}
    assert annotations.pop("use-regex") == "true"
    directives = [DIRECTIVES[name].format(value) for name, value in annotations.items()]
    return f'location ~* "^{path}" {{ {"; ".join(directives)}; proxy_pass http://concord; }}'


def for_ingress(directory: Path, address: str) -> Server:
    """With what ingress-nginx makes of k8s/base: a location for each path, the longest first, and case ignored."""
    port = free_port()
    return Server(directory, "127.0.0.1", port, _of_ingress(address, f"127.0.0.1:{port}"))


def naming_locations(directory: Path, shipped: str) -> Server:
    """One that answers each path with the location that takes it; `shipped` is "nginx.conf" or "ingress.yaml"."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    text = _of_nginx_conf(["127.0.0.1:1"], address) if shipped == "nginx.conf" else _of_ingress("127.0.0.1:1", address)
    text, number = _LOCATION.subn(
        # A dollar would begin a variable.
        lambda found: found[0].replace(found[2], f"return 200 '{found[1].rstrip('$')}';"),
        text,
    )
    assert number == 3, f"{shipped} has a location for manifests, one for beginning uploads, and one for the rest"
    return Server(directory, "127.0.0.1", port, text)


def for_other_sites(
    directory: Path, host: str, namespace: str | None, addresses: Sequence[str], port: int = 5000, ranges: str = "all"
) -> Server:
    """The one address of a site, perhaps on a host of its own, as docs/nginx-site.conf configures it."""
    text = _with_backends(SHIPPED_FOR_SITES.read_text(), addresses).replace("192.0.2.0/24", ranges)
    text = text.replace("listen 10.1.0.2:5001;", f"listen {host}:{port};")
    return Server(directory, host, port, text, namespace)


def for_other_regions(directory: Path, address: str, port: int) -> Server:
    """The same of a region in Kubernetes: the configuration of k8s/components/regions."""
    [text] = [one["data"]["nginx.conf"] for one in kustomize.build(REGIONS) if one["kind"] == "ConfigMap"]
    for shipped, here in {
        "server concord-site-instances:5001;": f"server {address};",
        "listen 5001;": f"listen 127.0.0.1:{port};",
        "/tmp/": f"{directory}/",  # first, since the directory may be in there
        "/dev/stderr": f"{directory}/error.log",
    }.items():
        assert shipped in text
        text = text.replace(shipped, here)
    return Server(directory, "127.0.0.1", port, text, whole=True)
