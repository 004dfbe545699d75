"""The ASGI application: which part answers a request, and errors rendered in one place."""

import logging
from collections.abc import Awaitable, Callable

import apsw
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from registry.blobs.uploads import ClientGone
from registry.cluster.fetch import TransferFailed
from registry.cluster.peers import PREFIX as PEERS
from registry.errors import ContentUnreachable, OciError, StorageFailed, Unsupported
from registry.http import collection, membership, own, peers, routes
from registry.http.answers import CutOff, error_response
from registry.instance import Instance

log = logging.getLogger("concord.http")

OWN: dict[tuple[str, str], Callable[[Instance, Request], Awaitable[Response]]] = {
    ("GET", "/healthz"): own.health,
    ("GET", "/readyz"): own.readiness,
    ("GET", "/_concord/status"): own.status,
    ("GET", "/_concord/digest"): own.digest,
    ("POST", "/_concord/digest"): own.compare,
    ("GET", "/_concord/conflicts"): own.conflicts,
    ("POST", "/_concord/gc"): collection.collect,
    ("POST", "/_concord/forget"): membership.forget,
    ("GET", "/_concord/leave"): membership.leave,
    ("POST", "/_concord/leave"): membership.leave,
    ("GET", "/_concord/scrub"): own.scrub,
    ("POST", "/_concord/scrub"): own.begin_scrub,
}


class App:
    """Serves an instance: the OCI API, this product's own paths, or both."""

    def __init__(self, instance: Instance, registry: bool = True, internal: bool = True) -> None:
        self._instance = instance
        self._registry = registry
        self._internal = internal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "the server is told not to send anything else"
        response = await self._answer(Request(scope, receive))
        try:
            await response(scope, receive, send)
        except CutOff as error:
            log.warning("an answer to %s was cut off: %s", scope["path"], error)
            raise

    async def _answer(self, request: Request) -> Response:
        is_head = request.method == "HEAD"
        try:
            return await self._route(request)
        except OciError as error:
            return error_response(error, is_head)
        except TransferFailed as error:
            return error_response(ContentUnreachable(str(error)), is_head)
        except ClientGone:
            return Response(status_code=408)
        except Exception as error:
            if _is_of_the_disk(error):
                log.error("storage failed: %s", error)
                return error_response(StorageFailed("this instance's storage does not answer"), is_head)
            log.exception("a request failed: %s %s", request.method, request.scope["path"])
            return error_response(Unsupported("something went wrong here; it was logged", 500), is_head)

    async def _route(self, request: Request) -> Response:
        path = request.scope["path"]
        if path == "/v2" or path.startswith(routes.PREFIX):
            if self._registry:
                return await routes.answer(self._instance, request)
        elif self._internal:
            if path.startswith(PEERS):
                return await peers.answer(self._instance, request)
            handler = OWN.get((request.method, path))
            if handler is not None:
                return await handler(self._instance, request)
        raise Unsupported("there is nothing here", 404)


def _is_of_the_disk(error: Exception) -> bool:
    if isinstance(error, (TimeoutError, ConnectionError)):
        return False  # these are OSErrors too, but of the network
    return isinstance(error, (OSError, apsw.IOError, apsw.FullError, apsw.CorruptError))
