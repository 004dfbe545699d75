"""The requests in the audit log: those that change something, sign in, or are refused.

Reads are recorded too where the operator wants that. Administrative acts are recorded with their details where they are
performed (`admin.actions`).
"""

from starlette.types import Scope

from registry.access.rights import ANONYMOUS
from registry.audit.log import AuditLog
from registry.cluster.rpc.client import PREFIX as PEERS
from registry.http.access.admission import permissions_of
from registry.http.oci.paths import TOKEN_PATH

REFUSED = frozenset({401, 403, 429})
MAX_PATH_CHARACTERS = 300
"""The longest path of a repository has fewer, and those who are refused must not fill the log."""
_READING = frozenset({"GET", "HEAD"})
_ADMINISTRATION = "/_concord/"


def note_request(audit: AuditLog, scope: Scope, status: int) -> None:
    """Record a request that is over. Of one that was let in while access control is not enforced, nothing is known."""
    path, method, permissions = scope["path"], scope["method"], permissions_of(scope)
    if path.startswith(PEERS) or (permissions is None and status not in REFUSED):
        return
    caller = permissions.admission.caller if permissions is not None else ANONYMOUS
    if status in REFUSED:
        event = "refused"
    elif path == TOKEN_PATH:
        event = "login"
        if not caller.account:
            return
    elif audit.takes_reads or (method not in _READING and not path.startswith(_ADMINISTRATION)):
        event = "request"
    else:
        return
    left_out = audit.admit_stranger() if permissions is None else {}
    if left_out is None:
        return
    client = scope.get("client")
    audit.note(
        event,
        account=caller.account,
        name=caller.name,
        client=client[0].removeprefix("::ffff:") if client else "",
        method=method,
        path=path[:MAX_PATH_CHARACTERS],
        status=status,
        **left_out,
    )
