"""The responses to requests that fail: by an error, by a bug, or because this instance ends."""

from collections.abc import Awaitable
from typing import TypeVar

import apsw
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from registry.cluster.transfer.transfer import TransferFailed
from registry.disk_errors import storage_failure
from registry.errors import ContentUnreachable, Ending, OciError, Unsupported
from registry.http.drain_state import DrainState
from registry.http.oci.answers import CutOff, error_response
from registry.http.wire.exchange import Exchange
from registry.ports import Clock
from registry.storage.uploads import ClientGone
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import LogLimit

log = EventLog("concord.http")

T = TypeVar("T")


class Failures:
    """The failures of one process' requests: the answer to each, and a bounded number of lines in the log."""

    def __init__(self, clock: Clock) -> None:
        self._disk, self._bugs = LogLimit(clock), LogLimit(clock)

    async def answered(self, request: Request, handled: Awaitable[T]) -> T | Response:
        """Return the result of a handler, or the response that says why it has failed."""
        try:
            return await handled
        except OciError as error:
            return error_response(error)
        except TransferFailed as error:
            return error_response(ContentUnreachable(str(error)))
        except ClientGone:
            return Response(status_code=408)
        except Exception as error:
            if _is_disk_error(error):
                failure = storage_failure("this instance's storage does not answer", error)
                if (left_out := self._disk.admit()) is not None:
                    log.error(LogEvent.STORAGE_FAILED, "storage failed: %(error)s", error=failure, **left_out)
                return error_response(failure)
            if (left_out := self._bugs.admit()) is not None:
                asked = {"method": request.method, "path": request.scope["path"]}
                log.exception(LogEvent.REQUEST_FAILED, "a request failed: %(method)s %(path)s", **asked, **left_out)
            return error_response(
                Unsupported("internal error; the log of this instance has the details under this request id", 500)
            )


async def cut_off(drain: DrainState, scope: Scope, exchange: Exchange) -> None:
    """End a request that was cancelled because it has not ended in the time that there was for draining. Call it where
    CancelledError is handled; it raises that again where the request was cancelled for another reason, and CutOff where
    the answer has begun."""
    if not drain.draining:
        raise  # the CancelledError that is being handled
    if exchange.is_answering:
        raise CutOff("this instance has ended") from None
    await error_response(Ending())(scope, exchange.receive, exchange.send)


def log_aborted(requests: int, drain_s: float) -> None:
    """Log that so many requests are cut off at the end of a drain."""
    log.warning(
        LogEvent.REQUESTS_ABORTED,
        "%(requests)d requests did not end within %(drain_s)g s and are cut off",
        requests=requests,
        drain_s=drain_s,
    )


def _is_disk_error(error: Exception) -> bool:
    if isinstance(error, (TimeoutError, ConnectionError)):
        return False  # these are OSErrors too, but of the network
    return isinstance(error, (OSError, apsw.IOError, apsw.FullError, apsw.CorruptError))
