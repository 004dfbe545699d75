"""The transport of a connection with TLS, which ends as one without TLS does.

The event loop's own gives one time to all that was written and not sent yet, and to the client to agree to the end
(`close_notify`, RFC 8446, section 6.1). A short time would cut off what a slow client reads; a long one would let a
client that answers nothing hold up the end of an instance. So the end begins here once the client's system has received
everything, and the client then has a moment to agree.

One direction of such a connection cannot be closed alone.
"""

import asyncio
import fcntl
import struct
import termios

from registry.units import KIB

WRITE_BUFFER_BYTES = 64 * KIB
"""As on a connection without TLS."""
CLOSE_NOTIFY_TIMEOUT_S = 0.5
"""Time that a client has to agree to the end."""
POLL_INTERVAL_S = 0.05
UNREAD_TIMEOUT_S = 60.0
"""Time after which a client that reads nothing is disconnected."""


class TlsTransport(asyncio.Transport):
    """The transport of TLS, with an end in two steps."""

    def __init__(self, tls: asyncio.Transport) -> None:
        super().__init__()
        self._tls = tls
        self._descriptor = tls.get_extra_info("socket").fileno()
        self._is_closing = False
        tls.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self.write = tls.write  # type: ignore[method-assign]
        self.get_write_buffer_size = tls.get_write_buffer_size  # type: ignore[method-assign]
        self.pause_reading = tls.pause_reading  # type: ignore[method-assign]
        self.resume_reading = tls.resume_reading  # type: ignore[method-assign]
        self.set_protocol = tls.set_protocol  # type: ignore[method-assign]
        self.get_protocol = tls.get_protocol  # type: ignore[method-assign]
        self.get_extra_info = tls.get_extra_info  # type: ignore[method-assign]
        self.abort = tls.abort  # type: ignore[method-assign]

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self._is_closing or self._tls.is_closing()

    def close(self) -> None:
        """Close after what was written."""
        if not self.is_closing():
            self._is_closing = True
            self._tls.pause_reading()
            self._wait(self._unreceived_bytes(), UNREAD_TIMEOUT_S)

    def _wait(self, left_bytes: int, timeout_s: float) -> None:
        """Wait before the next look, also before the first: the event loop may have bytes that it counts nowhere, and
        passes them on to the system meanwhile."""
        asyncio.get_running_loop().call_later(POLL_INTERVAL_S, self._look, left_bytes, timeout_s - POLL_INTERVAL_S)

    def _look(self, before_bytes: int, timeout_s: float) -> None:
        """Close where the client has received everything. It had not received `before_bytes` at the last look."""
        if self._tls.is_closing():
            return
        left_bytes = self._unreceived_bytes()
        if left_bytes == 0:
            self._tls.close()
        elif timeout_s <= 0:
            self._tls.abort()
        else:
            self._wait(left_bytes, UNREAD_TIMEOUT_S if left_bytes != before_bytes else timeout_s)

    def _unreceived_bytes(self) -> int:
        """Return how many bytes were written and not acknowledged by the client's system, as far as can be told."""
        in_system = fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, bytes(4))
        return self._tls.get_write_buffer_size() + int(struct.unpack("i", in_system)[0])
