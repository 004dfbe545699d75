"""`POST /_concord/gc`: collection on demand, which explains what becomes of all content that no manifest names."""

import asyncio
from functools import partial
from typing import Any

import msgspec

from registry.catalog.queries import document_name
from registry.catalog.understanding import is_understood
from registry.catalog.untagged import remove_untagged, untagged
from registry.cluster.placement.garbage_collection import Decision
from registry.errors import Unsupported
from registry.http.admin.actions import Outcome
from registry.http.admin.context import AdminContext, CollectionContext
from registry.storage.leftovers import Swept
from registry.units import to_ms

MAX_DECISIONS = 10_000
PAGE = 1000
AT_ONCE = 100


class CollectionRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of a collection. `dry_run` changes nothing."""

    dry_run: bool = False
    untagged_older_than_s: float | None = None


async def collect(admin: AdminContext, body: bytes) -> Outcome:
    """Collect garbage now, and remove content files that a killed process left. The JSON body may have `dry_run` and
    `untagged_older_than_s`: untagged manifests of that age are deleted first."""
    context = admin.collection
    try:
        wanted = msgspec.json.decode(body or b"{}", type=CollectionRequest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unsupported(f"malformed request body: {error}", 400) from None
    age_s = wanted.untagged_older_than_s
    if age_s is not None and not 0 <= age_s < 1e10:
        raise Unsupported("invalid untagged_older_than_s: expected a number of seconds from 0 to 1e10", 400)
    removed = await _untagged(context, age_s, wanted.dry_run) if age_s is not None else {}
    swept = Swept(0, 0) if wanted.dry_run else await context.leftovers.sweep()
    report = await context.garbage_collector.once(wanted.dry_run)
    return Outcome(
        {
            "dry_run": wanted.dry_run,
            "untagged": removed,
            "blocked": report.blocked.answer() if report.blocked else None,
            "removed": report.removed,
            "removed_bytes": report.removed_bytes,
            "would_be_removed": sum(one.would_be_removed for one in report.decisions),
            "would_be_removed_bytes": sum(one.size for one in report.decisions if one.would_be_removed),
            "bodies": report.bodies,
            "orphaned_files": swept.files,
            "orphaned_bytes": swept.bytes,
            "decisions_count": len(report.decisions),
            "decisions": [_shown(one) for one in report.decisions[:MAX_DECISIONS]],
        },
        {
            "dry_run": wanted.dry_run,
            "untagged": sum(map(len, removed.values())),
            "removed": report.removed,
            "removed_bytes": report.removed_bytes,
            "bodies": report.bodies,
            "orphaned_files": swept.files,
            "blocked": report.blocked.code if report.blocked else "no",
        },
    )


def _shown(decision: Decision) -> dict[str, Any]:
    return {
        "digest": decision.digest,
        "size": decision.size,
        "removed": decision.removed,
        "would_be_removed": decision.would_be_removed,
        **decision.reason.answer(),
    }


async def _untagged(context: CollectionContext, age_s: float, dry: bool) -> dict[str, list[str]]:
    """Delete the untagged manifests of every repository that are old enough, and return their digests by repository."""
    found: dict[str, list[str]] = {}
    last = ""
    before_ms = context.clock.now_ms() - to_ms(age_s)
    while repositories := context.queries.repositories(last, PAGE):
        for repository in repositories:
            if not is_understood(context.database, document_name(repository)):
                continue
            digests = await untagged(context.database, repository, before_ms)
            for at in range(0, len(digests) if not dry else 0, AT_ONCE):
                page = digests[at : at + AT_ONCE]
                await context.database.write_in_steps(
                    partial(remove_untagged, documents=context.documents, repository=repository, digests=page)
                )
            if digests:
                found[repository] = list(digests)
            await asyncio.sleep(0)
        last = repositories[-1]
    return found
