"""Instances started from a process that has imported the server already.

Imports are most of what a start costs, and the suite starts hundreds of instances. The starter forks at each request,
as the registry's own supervisor does; from there on the child is what `python -m registry serve` is. Which process that
is it answers at once, and how it ended it writes into a pipe that comes with the request.
"""

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUEST_BYTES = 128 * 1024
CLONE_NEWNET = 0x4000_0000
CAN_FORK = hasattr(os, "pidfd_open")


class Started:
    """A process that the starter has forked, with as much of `subprocess.Popen` as tests use."""

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended
        self._looking = threading.Lock()

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"instance {self.pid}", timeout or 0)
        return code

    def _look(self, timeout_s: float | None) -> int | None:
        with self._looking:
            if self.returncode is None:
                waiting = select.poll()
                waiting.register(self._ended, select.POLLIN)
                if waiting.poll(None if timeout_s is None else timeout_s * 1000):
                    self.returncode = int(os.read(self._ended, 16))
                    os.close(self._ended)
            return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Starter:
    """The tests' side. The process is begun when it is first needed, and ends with that of the tests."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self, environment: Mapping[str, str], log: int, namespace: str | None = None, prepare: str | None = None
    ) -> Started:
        """Start an instance with these settings, which writes to that file: in a network namespace, where one is named,
        and after a call of the function `prepare` ("module:name") in the new process."""
        with self._asking:
            if self._channel is None:
                self._channel = self._begin()
            ended, ends = os.pipe()
            request = json.dumps([os.getcwd(), dict(environment), namespace, prepare]).encode()
            socket.send_fds(self._channel, [request], [log, ends])
            os.close(ends)
            return Started(int(self._channel.recv(16)), ended)

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
        return ours


STARTER = Starter()


def serve_requests(channel: socket.socket) -> None:
    """Fork at each request, and tell of each end. Returns in the children alone."""
    running: dict[int, tuple[int, int]] = {}
    while True:
        for ready in select.select([channel, *running], [], [])[0]:
            if ready is channel:
                request, descriptors, _, _ = socket.recv_fds(channel, REQUEST_BYTES, 2)
                if not request:
                    os._exit(0)  # the tests are over
                log, ends = descriptors
                pid = os.fork()
                if pid == 0:
                    channel.detach()
                    _become(request, log)
                    return
                os.close(log)
                running[os.pidfd_open(pid)] = pid, ends
                channel.send(str(pid).encode())
            else:
                pid, ends = running.pop(ready)
                os.close(ready)
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(BrokenPipeError):  # no caller asks for it any more
                    os.write(ends, str(os.waitstatus_to_exitcode(status)).encode())
                os.close(ends)


def _become(request: bytes, log: int) -> None:
    """Nothing of the starter is left, but for what is imported."""
    directory, environment, namespace, prepare = json.loads(request)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = ["serve"]
    if namespace is not None:
        _enter(namespace)
    if prepare is not None:
        module, _, function = prepare.partition(":")
        getattr(importlib.import_module(module), function)()


def _enter(namespace: str) -> None:
    """Move this process into a network namespace, as `ip netns exec` does before it becomes another program."""
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")
    os.close(descriptor)


if __name__ == "__main__":
    import registry.cli.serve  # noqa: F401  # the command imports it when it is called
    from registry.cli.main import run

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its end is that of the tests
    serve_requests(socket.socket(fileno=int(sys.argv[1])))
    run()
