"""One request and its answer, measured as they pass."""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from starlette.types import Message, Receive, Scope, Send

from registry.audit.log import AuditLog
from registry.http.access.audited import note_request
from registry.http.oci.answers import CutOff
from registry.ports import Clock
from registry.telemetry.counters import Served, Traffic
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import LogLimit
from registry.telemetry.request_ids import CURRENT, RAW_HEADER

log = EventLog("concord.http")
access = EventLog("concord.access")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


class Exchange:
    """Stands between the server and the application: counts bytes, takes times, and puts the request's id on the
    answer."""

    __slots__ = ("_begun", "_clock", "_first", "_id", "_receive", "_received", "_scope", "_send", "_sent", "_status")

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str, clock: Clock) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._id = request_id
        self._clock = clock
        self._begun = clock.steady_s()
        self._first = 0.0
        self._status = 0
        self._received = self._sent = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        return message

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self._first = self._clock.steady_s() - self._begun
            self._status = message["status"]
            message["headers"].append((RAW_HEADER, self._id.encode()))
        elif self._scope["method"] != "HEAD":
            self._sent += len(message["body"])
        return self._send(message)

    @property
    def is_answering(self) -> bool:
        """True if the head of an answer has been sent."""
        return self._status != 0

    def served(self, route: str) -> Served:
        """Return the record of the request for the counters, once it is over."""
        method = self._scope["method"]
        method = method if method in METHODS else "other"
        return Served(route, method, self._status, self._first, self._received, self._sent)

    @contextmanager
    def counted(
        self, traffic: Traffic, route: str, is_logged: bool, cut_off: LogLimit, audit: AuditLog
    ) -> Iterator[None]:
        """Count the request while it is served, and record it in the audit log. `cut_off` bounds the log lines about
        answers that were cut off, which clients can cause."""
        CURRENT.set(self._id)  # every request is served in a task of its own
        traffic.under_way += 1
        try:
            yield
        except CutOff as error:
            traffic.cut_off += 1
            if (left_out := cut_off.admit()) is not None:
                message = "an answer to %(path)s was cut off: %(error)s"
                log.warning(LogEvent.RESPONSE_ABORTED, message, path=self._scope["path"], error=error, **left_out)
            raise
        finally:
            traffic.under_way -= 1
            traffic.note(self.served(route))
            note_request(audit, self._scope, self._status)
            if is_logged:
                self.log()

    def log(self) -> None:
        """Log the request, without its query, which may hold secrets."""
        client = self._scope.get("client")
        fields = {
            "status": self._status,
            "first_byte_ms": round(self._first * 1000, 1),
            "whole_ms": round((self._clock.steady_s() - self._begun) * 1000, 1),
            "received_bytes": self._received,
            "sent_bytes": self._sent,
            "client": client[0].removeprefix("::ffff:") if client else "",  # IPv4 on a socket for both families
            "scheme": self._scope.get("scheme", ""),
        }
        access.info(
            LogEvent.REQUEST_SERVED,
            "%(method)s %(path)s",
            method=self._scope["method"],
            path=self._scope["path"],
            **fields,
        )
