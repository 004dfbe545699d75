"""A stretch of network between two processes on this machine, which can be slow and can be cut."""

import contextlib
import socket
import threading
import time

from tests.support.server import free_port

PIECE = 64 * 1024


class Link:
    """Forwards connections to an address. Use as a context manager."""

    def __init__(self, target: str, bytes_per_s: float | None = None) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._rate = bytes_per_s
        self._open: set[socket.socket] = set()
        self._is_cut = False
        self.returned_bytes = 0
        """Bytes that came back from the target."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._listening = socket.create_server(("127.0.0.1", self.port))

    def __enter__(self) -> "Link":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._listening.close()

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        self._is_cut = True
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._is_cut = False

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                if self._is_cut:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(self._target)
                except OSError:  # the target is dead, and may come back
                    near.close()
                    continue
                self._open |= {near, far}
                threading.Thread(target=self._pump, args=(near, far, None), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, self._rate), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, rate: float | None) -> None:
        counts = rate is not None or source.getpeername() == self._target
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE):
                sink.sendall(data)
                if counts:
                    self.returned_bytes += len(data)
                if rate:
                    time.sleep(len(data) / rate)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
