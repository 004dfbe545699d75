"""The demands of each route: which right on which resource a request needs.

Tests enumerate the routes and compare them with these tables. A route without a rule is not answered.
"""

from enum import Enum
from typing import NamedTuple

from registry.access.patterns import EVERYTHING
from registry.access.rights import Right
from registry.access.scopes import ADMINISTRATION, CATALOG, REPOSITORY
from registry.cluster.rpc.client import PREFIX as PEERS
from registry.http.admin.paths import ACCESS, ACCESS_SELF, TAG_LOCATIONS
from registry.http.oci.paths import Path


class Demand(Enum):
    """A demand of a route on its caller."""

    NOTHING = "nothing"
    """Anyone may ask, as for health, and for a token."""
    PEER = "peer"
    """Another instance asks, which the handlers for peers verify."""
    CREDENTIAL = "credential"
    """Any valid credential or token, that of an anonymous caller included."""
    CATALOG = "catalog"
    """As `CREDENTIAL`; the answer names only what the caller may pull."""
    METRICS = "metrics"
    """As the setting `metrics_access` says."""
    RIGHT = "right"
    """A right on a resource."""
    SIGNED = "signed"
    """A right on a resource, or the signature of a holder of the cluster key."""
    DELEGATED = "delegated"
    """A valid credential, or the signature of a holder of the cluster key. The body of the request names repositories,
    and the handler demands a right on these. A token needs the scope of the resource."""
    NO_ROUTE = "no route"
    """The path leads nowhere."""


class Rule(NamedTuple):
    """The demand of one request."""

    demand: Demand
    resource: str = ""
    """The resource that the token's scope must name."""
    repository: str = ""
    """The repository, or EVERYTHING, on which the right is needed."""
    right: Right = Right.PULL


_READING = {"GET": Right.PULL, "HEAD": Right.PULL}
_UPLOADING = dict.fromkeys(("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"), Right.PUSH)
"""An upload is a part of a push, its status and its end included."""
RIGHTS: dict[str, dict[str, Right]] = {
    "tags": _READING,
    "referrers": _READING,
    "manifest": {**_READING, "PUT": Right.PUSH, "DELETE": Right.DELETE},
    "blob": {**_READING, "DELETE": Right.DELETE},
    "uploads": {"POST": Right.PUSH},
    "upload": _UPLOADING,
}
"""The rights on the repository in the path, by resource of `/v2` and method."""
WITHOUT_REPOSITORY: dict[str, Rule] = {
    "base": Rule(Demand.CREDENTIAL),
    "": Rule(Demand.CREDENTIAL),
    "catalog": Rule(Demand.CATALOG, CATALOG),
    "token": Rule(Demand.NOTHING),
}
"""The rules of the resources of `/v2` that name no repository."""

_ADMINISTER = Rule(Demand.RIGHT, ADMINISTRATION, EVERYTHING, Right.ADMIN)
_ACT = _ADMINISTER._replace(demand=Demand.SIGNED)
_ACCESS_PATHS = (
    *("account/create", "account/remove", "account/password", "account/block", "account/unblock", "account/list"),
    *("robot/create", "key/create", "key/revoke", "key/list", "certificate/create"),
    *("binding/create", "binding/revoke", "binding/list"),
    *("group/add", "group/remove", "group/list"),
    *("conflicts", "confirmations", "approve", "enforce"),
)
_DELEGATED_PATHS = ("grant", "revoke", "list", "explain")
INTERNAL: dict[tuple[str, str], Rule] = {
    ("GET", "/healthz"): Rule(Demand.NOTHING),
    ("GET", "/readyz"): Rule(Demand.NOTHING),
    ("GET", "/metrics"): Rule(Demand.METRICS, ADMINISTRATION, EVERYTHING, Right.ADMIN),
    ("GET", "/_concord/status"): _ADMINISTER,
    ("GET", "/_concord/digest"): _ADMINISTER,
    ("POST", "/_concord/digest"): _ADMINISTER,
    ("GET", "/_concord/conflicts"): _ADMINISTER,
    ("GET", "/_concord/leave"): _ADMINISTER,
    ("GET", "/_concord/scrub"): _ADMINISTER,
    ("GET", ACCESS_SELF): Rule(Demand.CREDENTIAL),
    ("POST", "/_concord/gc"): _ACT,
    ("POST", "/_concord/forget"): _ACT,
    ("POST", "/_concord/leave"): _ACT,
    ("POST", "/_concord/scrub"): _ACT,
    **{("POST", ACCESS + path): _ACT for path in _ACCESS_PATHS},
    **{("POST", ACCESS + path): _ACT._replace(demand=Demand.DELEGATED) for path in _DELEGATED_PATHS},
}
"""The rules of the paths outside `/v2`."""
_NO_ROUTE = Rule(Demand.NO_ROUTE)


def rule_of(method: str, path: Path) -> Rule:
    """Return the rule of a request of `/v2`. A method that the resource has not needs what reading it needs, and is
    refused by the routes afterwards."""
    rights = RIGHTS.get(path.resource)
    if rights is None:
        return WITHOUT_REPOSITORY.get(path.resource, _NO_ROUTE)
    right = rights.get(method) or rights.get("GET", Right.PUSH)
    return Rule(Demand.RIGHT, REPOSITORY + path.name, path.name, right)


def internal_rule_of(method: str, path: str) -> Rule:
    """Return the rule of a request outside `/v2`."""
    if path.startswith(PEERS):
        return Rule(Demand.PEER)
    method = "GET" if method == "HEAD" else method
    if path.startswith(TAG_LOCATIONS) and method == "GET":
        name = path.removeprefix(TAG_LOCATIONS).rpartition("/")[0]
        return Rule(Demand.RIGHT, REPOSITORY + name, name, Right.ADMIN)
    return INTERNAL.get((method, path), _NO_ROUTE)
