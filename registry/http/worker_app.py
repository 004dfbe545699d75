"""The ASGI application of a worker: answers reads of what is here, and uploads, and relays every other request.

Reads are answered from committed rows and content files (`http.oci.read_only`), under the read lease. Uploads are
received here by the process that is their home; the primary commits them. Every other request is relayed to the
primary, which answers it (`runtime.relay`).
"""

import asyncio
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from registry.audit.log import AuditLog
from registry.cluster.replication.read_lease import READ_WAIT_S
from registry.errors import NotCurrent, OciError, ProcessUnreachable
from registry.event_loop.now import now_s
from registry.http.access.gate import Gate
from registry.http.access.password_checks import Logins
from registry.http.access.token_endpoint import TokenEndpoint
from registry.http.app import API, WITHOUT_LEASE
from registry.http.failures import Failures, cut_off
from registry.http.oci.answers import CutOff, StreamResponse, error_response
from registry.http.oci.context import OwnUploadContext
from registry.http.oci.paths import TEMPLATES, Path, parse_api_path, parse_path
from registry.http.oci.read_only import ReadOnlyApp
from registry.http.oci.routes import answer_own_upload, answer_token_request
from registry.http.oci.uploads import METHODS, serving_slot
from registry.http.wire.exchange import Exchange
from registry.http.wire.fast_path import DirectAnswer, Headers
from registry.ports import Clock
from registry.settings.trusted_proxies import TrustedProxies
from registry.storage.upload_homes import PRIMARY_SLOT
from registry.telemetry.log_limit import LogLimit
from registry.telemetry.request_ids import RequestIds

LEASE_POLL_S = 0.003
UPLOADS_WAIT_S = 10.0
"""Time that a request waits for a process that has just begun, as for one that is restarting."""
_UPLOAD_METHODS = {"uploads": frozenset({"POST"}), "upload": METHODS}
_BODY_HEADERS = (b"content-length", b"transfer-encoding")


class LeaseRequests(Protocol):
    """The way to ask the primary for the read lease."""

    def request_lease(self) -> None:
        """Let the primary know that a read waits for the read lease."""


class WorkerApp:
    """The application of one worker."""

    def __init__(
        self,
        gate: Gate,
        reading: ReadOnlyApp,
        uploads: OwnUploadContext,
        are_uploads_ready: asyncio.Event,
        primary: LeaseRequests,
        clock: Clock,
        proxies: TrustedProxies,
        logs_requests: bool,
    ) -> None:
        """`are_uploads_ready` is set once this process may touch the uploads whose home it is."""
        self._gate, self._tokens = gate, TokenEndpoint(gate)
        self._reading = reading
        self._are_uploads_ready = are_uploads_ready
        self._uploads = uploads
        self._primary = primary
        self._proxies = proxies
        self._logs_requests = logs_requests
        self._ids = RequestIds(clock)
        self._failures, self._cut_offs = Failures(clock), LogLimit(clock)
        self.needs_primary = 0
        """The number of requests under way that the primary takes part in."""

    @property
    def audit(self) -> AuditLog:
        return self._gate.audit

    @property
    def logins(self) -> Logins:
        return self._gate.logins

    def direct(self, method: str, target: bytes, headers: Headers) -> DirectAnswer | None:
        """Return a response by the fast path, as `App.direct` does."""
        if not self._gate.lets_in_at_once(target, headers):
            return None
        return self._reading.direct(method, target, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        except OciError as error:  # of a relay, or for want of the lease: no answer has begun
            await error_response(error)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = parse_api_path(scope["path"])
        request_id = self._ids.begin(scope["headers"])
        self._proxies.resolve(scope)
        refusal = None
        if self._gate.decides:  # else it is for the primary to say who administers
            refusal = await self._failures.answered(Request(scope), self._gate.admit(scope, path))
        if refusal is not None or (path is not None and path.resource == "token" and self._gate.view.is_enforced):
            exchange = Exchange(scope, receive, send, request_id, self._gate.clock)
            await self._authorize(refusal, path, scope, exchange)
            return
        stream = await self._stream(scope)
        if stream is not None:
            try:
                await self._reading.serve(stream, scope, receive, send, request_id, self.audit)
            except asyncio.CancelledError:
                if not self._uploads.drain.draining:
                    raise
                raise CutOff("this instance has ended") from None
            return
        self.needs_primary += 1
        try:
            if path is not None and scope["method"] in _UPLOAD_METHODS.get(path.resource, ()):
                await self._upload(path, scope, receive, send, request_id)
            else:
                await self._uploads.relay.relay(PRIMARY_SLOT, scope, receive, send)
        finally:
            self.needs_primary -= 1

    async def _authorize(self, refusal: Response | None, path: Path | None, scope: Scope, exchange: Exchange) -> None:
        """Send a refusal, or answer a request for a token."""
        request = Request(scope, exchange.receive)
        route = TEMPLATES[path.resource if path is not None else ""]
        is_logged = self._logs_requests and path is not None
        with exchange.counted(self._reading.traffic, route, is_logged, self._cut_offs, self._gate.audit):
            if refusal is None:
                response = await self._failures.answered(request, answer_token_request(self._tokens, request))
            else:
                response = refusal
            await response(scope, exchange.receive, exchange.send)

    async def _stream(self, scope: Scope) -> StreamResponse | None:
        """Return a response that sends content of this disk, under the read lease; None for any other request. Raises
        NotCurrent, and as `Gate.admit_again` does."""
        method, target, headers = scope["method"], scope["raw_path"], scope["headers"]
        if method not in ("GET", "HEAD") or not target.startswith(API):
            return None
        path = parse_path(scope["path"])
        if path.resource in WITHOUT_LEASE:
            return None
        if not self._reading.lease.allows_read():
            await self._await_lease()
            await self._gate.admit_again(scope, path)
        has_body = any(name in _BODY_HEADERS for name, _ in headers)
        if has_body or scope["query_string"] or scope["http_version"] != "1.1":
            return None
        return self._reading.stream(method, target, headers)

    async def _await_lease(self) -> None:
        """Wait for the read lease. Raises NotCurrent."""
        lease = self._reading.lease
        until = now_s() + READ_WAIT_S
        self._primary.request_lease()
        while not lease.allows_read():
            if now_s() > until:
                raise NotCurrent("this instance cannot tell whether it is current: its primary process is busy")
            await asyncio.sleep(LEASE_POLL_S)

    async def _await_uploads(self) -> None:
        """Wait until this process has taken over the uploads of its slot. Raises ProcessUnreachable."""
        if not self._are_uploads_ready.is_set():
            try:
                async with asyncio.timeout(UPLOADS_WAIT_S):
                    await self._are_uploads_ready.wait()
            except TimeoutError:
                raise ProcessUnreachable from None

    async def _upload(self, path: Path, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        context, query = self._uploads, scope["query_string"]
        slot = serving_slot(context, path, scope["method"], query)
        if slot != context.slot.number:
            await self._uploads.relay.relay(slot, scope, receive, send)
            return
        await self._await_uploads()
        exchange = Exchange(scope, receive, send, request_id, self._gate.clock)
        request = Request(scope, exchange.receive)
        traffic, route = self._reading.traffic, TEMPLATES[path.resource]
        with exchange.counted(traffic, route, self._logs_requests, self._cut_offs, self._gate.audit):
            try:
                response = await self._failures.answered(request, answer_own_upload(context, request, path))
                await response(scope, exchange.receive, exchange.send)
            except asyncio.CancelledError:
                await cut_off(context.drain, scope, exchange)
