"""The ASGI application: which part answers a request, requests counted, and errors rendered in one place."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from registry.cluster.rpc.client import PREFIX as PEERS
from registry.errors import NothingHere, TooManyAnswers
from registry.http.admin import access, access_self, actions, collection, membership, metrics, status, tag_locations
from registry.http.admin.actions import Action
from registry.http.admin.context import AdminContext
from registry.http.admin.paths import ACCESS, ACCESS_SELF, TAG_LOCATIONS, TAG_LOCATIONS_TEMPLATE
from registry.http.context import HttpContext
from registry.http.failures import Failures, cut_off
from registry.http.oci.answers import error_response
from registry.http.oci.paths import PREFIX, TEMPLATES, Path, parse_api_path
from registry.http.oci.routes import answer, relayed
from registry.http.peer import handlers as peer_handlers
from registry.http.wire.exchange import Exchange
from registry.http.wire.fast_path import DirectAnswer, Headers
from registry.http.wire.sending import ResponseMemoryBudget
from registry.storage.uploads import ClientGone
from registry.telemetry.event_log import EventLog
from registry.telemetry.log_limit import LogLimit
from registry.telemetry.request_ids import RequestIds

log = EventLog("concord.http")

INTERNAL: dict[tuple[str, str], Callable[[AdminContext, Request], Awaitable[Response]]] = {
    ("GET", "/healthz"): status.health,
    ("GET", "/readyz"): status.readiness,
    ("GET", "/metrics"): metrics.metrics,
    ("GET", "/_concord/status"): status.status,
    ("GET", "/_concord/digest"): status.digest,
    ("POST", "/_concord/digest"): status.compare,
    ("GET", "/_concord/conflicts"): status.conflicts,
    ("GET", "/_concord/leave"): membership.leaving,
    ("GET", "/_concord/scrub"): status.scrub,
    ("GET", ACCESS_SELF): access_self.own_access,
}
ADMIN_ACTIONS: dict[tuple[str, str], tuple[str, Action]] = {
    ("POST", "/_concord/gc"): ("gc", collection.collect),
    ("POST", "/_concord/forget"): ("forget", membership.forget),
    ("POST", "/_concord/leave"): ("leave", membership.leave),
    ("POST", "/_concord/scrub"): ("scrub", status.begin_scrub),
    **{("POST", ACCESS + path): route for path, route in access.ROUTES.items()},
}
"""Actions that change an instance or cost it much, for authorized callers only: names for the log, and handlers."""
API = PREFIX.encode()
INTERNAL_PATHS = frozenset(path for _, path in (*INTERNAL, *ADMIN_ACTIONS))
WITHOUT_LEASE = frozenset({"base", "uploads", "upload"})
"""Resources of the API whose answers do not depend on the rows of documents."""


class App:
    """Serves an instance: the OCI API, this product's own paths, or both."""

    def __init__(self, context: HttpContext, registry: bool = True, internal: bool = True) -> None:
        self._context = context
        self._registry = registry
        self._internal = internal
        self._ids = RequestIds(context.clock)
        self._response_memory = ResponseMemoryBudget()
        self._failures, self._cut_offs = Failures(context.clock), LogLimit(context.clock)
        self._fast_path = context.fast_path if registry and not context.logs_requests else None
        """None where each request is answered by the application."""
        self._gate = context.gate
        self._lease = context.lease
        self._answers_clients = context.answers_clients

    def direct(self, method: str, target: bytes, headers: Headers) -> DirectAnswer | None:
        """Return an answer that can be given without waiting; None where the application has to be called. The server
        asks this first."""
        fast_path = self._fast_path
        if fast_path is None or not self._answers_clients.is_set():
            return None
        if not target.startswith(API) or not self._lease.allows_read():
            return None
        if not self._gate.lets_in_at_once(target, headers):
            return None
        return fast_path.answer(method, target, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "the server is told not to send anything else"
        context, path = self._context, parse_api_path(scope["path"])
        exchange = Exchange(scope, receive, send, self._ids.begin(scope["headers"]), context.clock)
        context.proxies.resolve(scope)
        admitting = self._gate.admit(scope, path, is_internal=not self._registry)
        refusal = await self._failures.answered(Request(scope), admitting)
        is_upload = path is not None and path.resource == "upload" and refusal is None
        if is_upload and path is not None and await relayed(context.oci, path, scope, receive, send):
            return
        route = _route(scope["path"]) if path is None else TEMPLATES[path.resource]
        is_logged = context.logs_requests and path is not None
        with exchange.counted(context.traffic, route, is_logged, self._cut_offs, self._gate.audit):
            try:
                request = Request(scope, exchange.receive)
                response = refusal or await self._answer_within_memory(request, path)
                await self._response_memory.send(response, scope, exchange.receive, exchange.send)
            except asyncio.CancelledError:
                await cut_off(context.drain, scope, exchange)

    async def _answer_within_memory(self, request: Request, path: Path | None) -> Response:
        """Return a response that fits into the memory budget. A response that has to wait is dropped and computed
        again, so that waiting takes no memory; that is safe, as only reads wait."""
        sending = self._response_memory
        response = await self._answer(request, path)
        while request.method == "GET" and path is not None and not sending.has_room(len(response.body)):
            size_bytes = len(response.body)
            del response
            try:
                await sending.wait_for_room(size_bytes)
            except TooManyAnswers as error:
                return error_response(error)
            response = await self._answer(request, path)
        return response

    async def _answer(self, request: Request, path: Path | None) -> Response:
        return await self._failures.answered(request, self._handle(request, path))

    async def _await_read_lease(self, request: Request) -> None:
        """Wait for the read lease: rows may lack what the site has acknowledged. Raises NotCurrent, and ClientGone
        as `_await_readiness` does."""
        await self._context.site_lease.await_read()
        if request.method == "DELETE" and await request.is_disconnected():
            raise ClientGone

    async def _await_readiness(self, request: Request) -> None:
        """Wait until the instance may answer clients. Its rows may be out of date after a restart, and balancers
        send requests as soon as it listens. Raises ClientGone for a DELETE whose client has given up meanwhile: the
        client may have deleted elsewhere since, and pushed again. A request with a body fails when its body is read."""
        await self._answers_clients.wait()
        if request.method == "DELETE" and await request.is_disconnected():
            raise ClientGone

    async def _handle(self, request: Request, path: Path | None) -> Response:
        if path is not None:
            if self._registry:
                has_waited = not self._answers_clients.is_set()
                if has_waited:
                    await self._await_readiness(request)
                if path.resource not in WITHOUT_LEASE and not self._lease.allows_read():
                    await self._await_read_lease(request)
                    has_waited = True
                if has_waited:
                    await self._gate.admit_again(request.scope, path)
                return await answer(self._context.oci, request, path)
        elif self._internal:
            internal_path, method = request.scope["path"], request.method
            if internal_path.startswith(PEERS):
                return await peer_handlers.answer(self._context.peer, request)
            method = "GET" if method == "HEAD" else method  # the server sends no body to HEAD
            if internal_path.startswith(TAG_LOCATIONS) and method == "GET":
                return await tag_locations.replication(self._context.admin, request)
            handler = INTERNAL.get((method, internal_path))
            if handler is not None:
                return await handler(self._context.admin, request)
            name, act = ADMIN_ACTIONS.get((request.method, internal_path), ("", None))
            if act is not None:
                admin = self._context.admin
                return await actions.perform(admin, request, name, act, is_internal=not self._registry)
        raise NothingHere


def _route(path: str) -> str:
    """Return the metrics label of a path outside the OCI API. There are few labels, whatever clients request."""
    if path.startswith(PEERS):
        return PEERS
    if path.startswith(TAG_LOCATIONS):
        return TAG_LOCATIONS_TEMPLATE
    return path if path in INTERNAL_PATHS else "other"
