"""An HTTP/1.1 connection that costs the client little, which shares the processor with the server it measures."""

import contextlib
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

READ_BYTES = 1 << 20


class Answer(NamedTuple):
    """The status and header fields of a response, whose body was read."""

    status: int
    headers: dict[str, str]
    size: int


class Connection:
    """A connection that is opened again when the server closes it between two requests."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._buffer = memoryview(bytearray(READ_BYTES))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def request(self, method: str, path: str, body: Sequence[bytes] = (), **headers: str) -> Answer:
        """Send a request whose body is the pieces of `body`, and read the whole response."""
        size = sum(map(len, body))
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._address}", f"Content-Length: {size}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        if self._socket is not None:
            with contextlib.suppress(ConnectionError):
                return self._exchange(self._socket, head, body, method)
            self.close()
        host, _, port = self._address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._exchange(self._socket, head, body, method)

    def _exchange(self, connection: socket.socket, head: bytes, body: Sequence[bytes], method: str) -> Answer:
        first = head + body[0] if body and len(body[0]) < 65536 else head
        connection.sendall(first)
        for piece in body[0 if first is head else 1 :]:
            connection.sendall(piece)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            count = connection.recv_into(self._buffer)
            if not count:
                raise ConnectionResetError("the server closed the connection")
            received += self._buffer[:count]
        first_line, *fields = received[:end].decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        status, size = int(first_line.split(" ", 2)[1]), 0
        if method != "HEAD" and status not in {204, 304}:
            size = self._read_body(connection, len(received) - end - 4, received[end + 4 :], headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, size)

    def _read_body(self, connection: socket.socket, have: int, begun: bytearray, headers: dict[str, str]) -> int:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while not begun.endswith(b"0\r\n\r\n"):
                begun += connection.recv(READ_BYTES)
            return len(begun)
        size = int(headers.get("content-length", 0))
        while have < size:
            count = connection.recv_into(self._buffer, min(READ_BYTES, size - have))
            if not count:
                raise ConnectionResetError("the server closed the connection within a body")
            have += count
        return size
