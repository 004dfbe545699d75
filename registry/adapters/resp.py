"""Parsing what a Redis server sends to a subscriber (RESP2, "Redis serialization protocol specification").

    *3 $7 message $<length> <channel> $<length> <payload>     a message
    *3 $9 subscribe $<length> <channel> :<count>              a subscription that stands
    -<text>                                                   an error

Any client that may publish decides how long a payload is, and Redis takes 512 MB. So a payload beyond the bound is
passed over as it comes and never in memory, and nothing is made of a message but its two parts. The library's own
parser keeps a payload whole, and takes ten times as long for a short one.
"""

import re

_MESSAGE = re.compile(rb"\*3\r\n\$7\r\nmessage\r\n\$[0-9]{1,4}\r\n([^\r\n]{1,1000})\r\n\$([0-9]{1,10})\r\n")
_SUBSCRIBED = re.compile(rb"\*3\r\n\$9\r\nsubscribe\r\n\$[0-9]{1,4}\r\n[^\r\n]{1,1000}\r\n:[0-9]{1,10}\r\n")
_ERROR = re.compile(rb"-([^\r\n]{0,1000})\r\n")
MAX_HEAD_BYTES = 1100
"""The longest prefix of a message that one of the expressions above matches."""
_END = len(b"\r\n")


class NoSubscription(Exception):
    """The server has answered with an error, or with something that is no message."""


class MessageParser:
    """Parses the data of one connection, which arrives in pieces of any size."""

    def __init__(self, max_payload_bytes: int) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._unparsed = b""
        self._to_skip_bytes = 0
        self.too_large = 0
        """The number of messages whose payload exceeded the bound."""

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Parse one more piece. Return the messages that it completes, as channel and payload. Raises
        NoSubscription."""
        if self._unparsed:
            data = self._unparsed + data
        messages, at = [], 0
        while True:
            if self._to_skip_bytes:
                skipped = min(self._to_skip_bytes, len(data) - at)
                at += skipped
                self._to_skip_bytes -= skipped
            head = _MESSAGE.match(data, at)
            if head is None:
                other = self._other(data, at)
                if other is None:
                    break
                at = other
                continue
            size, start = int(head[2]), head.end()
            if size > self._max_payload_bytes:
                self.too_large += 1
                self._to_skip_bytes, at = size + _END, start
                continue
            end = start + size
            if len(data) < end + _END:
                break
            messages.append((head[1], data[start:end]))
            at = end + _END
        self._unparsed = data[at:]
        return messages

    @staticmethod
    def _other(data: bytes, at: int) -> int | None:
        """Return where data that is no message ends; None where its end has not arrived yet."""
        subscribed = _SUBSCRIBED.match(data, at)
        if subscribed is not None:
            return subscribed.end()
        error = _ERROR.match(data, at)
        if error is not None:
            raise NoSubscription(error[1].decode(errors="replace"))
        if len(data) - at > MAX_HEAD_BYTES:
            raise NoSubscription("the server sent something that is no message")
        return None
