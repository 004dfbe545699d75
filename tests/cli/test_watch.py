"""`concord status --watch`, as a person at a terminal sees it."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.support import images
from tests.support.server import Server, running_cluster, running_server, wait_until

pytestmark = pytest.mark.slow

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Watching:
    """A `concord status --watch` at a terminal of its own."""

    def __init__(self, url: str, interval: str = "0.2") -> None:
        self._screen, terminal = pty.openpty()
        command = [sys.executable, "-m", "registry", "status", "--watch", "--interval", interval, url]
        plain = {name: value for name, value in os.environ.items() if not name.startswith("CONCORD_")}
        environment = plain | {"COLUMNS": "200", "LINES": "50", "TERM": "xterm"}
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )
        os.close(terminal)
        self._bytes = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._screen, 65536):
                self._bytes += data

    @property
    def raw(self) -> str:
        return self._bytes.decode(errors="replace")

    def shows_from(self, text: str, at: int = 0) -> bool:
        return text in ESCAPES.sub("", self.raw[at:])

    def wait_for(self, text: str, at: int = 0) -> None:
        wait_until(lambda: self.shows_from(text, at) or self.process.poll() is not None)
        assert self.shows_from(text, at), self.raw

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(10)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def watching(url, **options):
    watch = Watching(url, **options)
    try:
        yield watch
    finally:
        watch.end()


def test_members_rates_and_what_is_missing_are_followed(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"]) as cluster, watching(cluster[1].url) as watch:
        watch.wait_for("requests and")
        watch.wait_for("last delay")
        cluster[0].client.push("app", "v1", images.image("watched"))
        watch.wait_for("1 repositories")
        watch.wait_for(" ms ")
        cluster[0].kill()
        watch.wait_for("│ no ")
        assert watch.interrupt() == 0


def test_an_instance_that_goes_away_is_waited_for(tmp_path):
    server = Server(tmp_path / "data")
    try:
        server.start()
        with watching(server.url) as watch:
            watch.wait_for("commit 0")
            server.kill()
            watch.wait_for("cannot be reached")
            server.start()
            server.client.push("app", "v1", images.image("back"))
            watch.wait_for("1 repositories", len(watch.raw))
    finally:
        server.kill()


def test_ctrl_c_ends_it_cleanly_while_an_instance_hangs_too(tmp_path):
    with running_server(tmp_path / "data") as server, watching(server.url) as watch:
        watch.wait_for("state digest")
        server.pause()
        watch.wait_for("does not answer within 2 s")
        begun = time.monotonic()
        assert watch.interrupt() == 0
        assert time.monotonic() - begun < 2
        assert "Traceback" not in watch.raw
        wait_until(lambda: "\x1b[?25h" in watch.raw)  # the cursor is back


@pytest.mark.parametrize("interval", ["0", "-1", "x"])
def test_an_interval_that_is_none_is_refused(interval):
    command = [sys.executable, "-m", "registry", "status", "--watch", "--interval", interval, "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and "--interval" in done.stderr
