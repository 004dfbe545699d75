"""The reasons why garbage collection keeps or removes content, or is blocked: codes with details, and their texts.

Answers hold the code and its details, which are stable. The log and the command line turn them into text by `describe`;
the text may change in any version.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple


class Code(StrEnum):
    """A reason. The first six are those of one content, the others block the whole collection."""

    UNREFERENCED = "unreferenced"
    GRACE_PERIOD = "grace_period"
    REFERENCED_HERE = "referenced_here"
    REFERENCED_ELSEWHERE = "referenced_elsewhere"
    REUSED = "reused"
    BLOCKED = "blocked"

    MANIFEST_MISSING = "manifest_missing"
    MANIFEST_UNREADABLE = "manifest_unreadable"
    DOCUMENT_NOT_UNDERSTOOD = "document_not_understood"
    MEMBER_SILENT = "member_silent"
    MEMBER_UNREACHABLE = "member_unreachable"
    MEMBER_BLOCKED = "member_blocked"
    UPDATES_MISSING = "updates_missing"


_HAS_LEASE = (
    "has told a client within the last hour that it exists, and the client may now push a manifest that names it"
)
_SILENT = (
    "and what was pushed to it is not known; start it again, or if it is gone for good: concord forget {url} {short}"
)
_TEXTS: Mapping[str, str] = {
    Code.UNREFERENCED: "no manifest names it, and no instance relies on it",
    Code.GRACE_PERIOD: (
        "no manifest names it, but one that does may be on its way; unless it comes, this is removed after another "
        "{remaining} (gc_grace_s)"
    ),
    Code.REFERENCED_HERE: f"this instance relies on it: a manifest names it by now, or it {_HAS_LEASE}",
    Code.REFERENCED_ELSEWHERE: f"{{member}} relies on it: a manifest there names it, or that instance {_HAS_LEASE}",
    Code.REUSED: "it has come into use again in this moment",
    Code.BLOCKED: "nothing can be removed now",
    Code.MANIFEST_MISSING: (
        "a manifest is on its way here, and what it names is not known before it has come; it comes as soon as an "
        "instance that has it can be reached"
    ),
    Code.MANIFEST_UNREADABLE: (
        "manifest {digest} of {repository} is of a kind that this version cannot read, and may name anything; upgrade "
        "this instance, or delete the manifest"
    ),
    Code.DOCUMENT_NOT_UNDERSTOOD: (
        "{document} holds facts that this version does not understand; upgrade this instance"
    ),
    Code.MEMBER_SILENT: f"{{member}} ({{address}}) has not been heard of, {_SILENT}",
    Code.MEMBER_UNREACHABLE: f"{{member}} ({{address}}) does not answer ({{error}}), {_SILENT}",
    Code.MEMBER_BLOCKED: "{member} cannot say what it relies on; it says: {cause}",
    Code.UPDATES_MISSING: "changes of other instances could not be fetched from them yet; try again",
}


class Reason(NamedTuple):
    """A code and its details, as an answer holds them."""

    code: str
    detail: Mapping[str, Any] = MappingProxyType({})

    def describe(self, url: str = "URL") -> str:
        """Return the text of a reason; the code itself for one that only other versions know. `url` is the address
        that the command which a text recommends is to ask."""
        try:
            return _TEXTS[self.code].format_map(self._words() | {"url": url})
        except KeyError:
            return self.code

    def _words(self) -> dict[str, Any]:
        detail = dict(self.detail)
        if "instance" in detail:
            instance, name = detail["instance"], detail.get("name")
            shown = f"{name} ({instance})" if name else f"instance {instance}"
            detail |= {"member": f"{shown} at site {detail.get('site') or '-'}", "short": instance[:12]}
        if "remaining_s" in detail:
            detail["remaining"] = _duration(detail["remaining_s"])
        return detail

    def answer(self) -> dict[str, Any]:
        """Return the fields of an answer."""
        return {"reason": self.code, "detail": dict(self.detail)}


def _duration(seconds: float) -> str:
    """Return a duration in the largest unit of which it has two, rounded."""
    for unit, length_s in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} seconds"
