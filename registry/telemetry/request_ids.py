"""The id of the request that is being served, which follows it through logs and to other instances.

It is kept in a context variable, so whatever a request begins carries it. Work that serves many requests at once is
begun in `without_request` context.
"""

import re
from collections.abc import Iterable
from contextvars import Context, ContextVar, copy_context

from registry.ports import Clock

HEADER = "X-Request-Id"
DRAWN_SIZE = 8

CURRENT: ContextVar[str] = ContextVar("request_id", default="")
"""Empty where no request is served."""

RAW_HEADER = HEADER.lower().encode()
_HARMLESS = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")


class RequestIds:
    """Ids for requests, drawn by the hundred."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._drawn: list[str] = []

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The id that a request brings, if it is short and harmless in a log, else one that is drawn."""
        for name, value in headers:
            if name == RAW_HEADER and _HARMLESS.match(value):
                return value.decode()
        if not self._drawn:
            text = self._clock.entropy(DRAWN_SIZE * 100).hex()
            self._drawn = [text[at : at + 2 * DRAWN_SIZE] for at in range(0, len(text), 2 * DRAWN_SIZE)]
        return self._drawn.pop()


def forwarded_headers() -> list[tuple[str, str]]:
    """Return the header that carries the id of the current request to another instance."""
    current = CURRENT.get()
    return [(HEADER, current)] if current else []


def without_request() -> Context:
    """Return a copy of the present context without the request id."""
    context = copy_context()
    context.run(CURRENT.set, "")
    return context
