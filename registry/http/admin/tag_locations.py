"""The locations of a tag: `GET /_concord/replication/<repository>/<tag>`.

The instance asks every live member at once whether it has the winning fact, the manifest, and the content that the
manifest refers to at all levels. The list of that content comes from manifest bodies on this instance; a body that is
missing here hides its parts. The request repairs nothing: the answer shows the present state.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from crdt.clock import COUNTER_BITS
from crdt.fact import BLOB, MANIFEST
from registry.catalog.content import lacking
from registry.catalog.database import Database
from registry.catalog.manifest_walk import ManifestWalk
from registry.catalog.queries import Queries, TagFact
from registry.catalog.winner import winner_key
from registry.cluster.membership.members import Member
from registry.cluster.rpc.messages import ReplicationRequest, ReplicationResponse
from registry.errors import ManifestUnknown
from registry.http.admin.context import AdminContext, CatalogContext
from registry.http.admin.paths import TAG_LOCATIONS
from registry.http.oci.answers import JsonResponse
from registry.oci.names import Digest, parse_repository, parse_tag
from registry.oci.stored_manifest import UNREADABLE
from registry.ports import PeerUnreachable

MAX_PARTS = 2000  # a few milliseconds to look up
MAX_LOOKED_UP = 100_000
"""Parts that are read over all levels, those that several manifests share once for each."""
MAX_LISTED = 20
REQUEST_TIMEOUT_S = 2.0
"""A member that takes longer is shown as one that does not answer: a person is waiting."""


class Parts(NamedTuple):
    """The content that a manifest depends on, itself included, as far as the bodies on this instance tell."""

    manifests: list[str]
    blobs: list[str]
    whole: bool
    """True if that is all: no manifest is missing here, and there are not too many parts."""


class MemberAnswer(NamedTuple):
    """The answer of one instance, or the reason why there is none."""

    instance: str
    site: str
    address: str
    answer: ReplicationResponse | None
    problem: str


async def replication(admin: AdminContext, request: Request) -> Response:
    """Return which members have the tag as it is, its manifest, and how much of what the manifest refers to."""
    context = admin.catalog
    name, _, reference = request.scope["path"].removeprefix(TAG_LOCATIONS).rpartition("/")
    repository, tag = parse_repository(name), parse_tag(reference)
    facts = context.queries.facts_of_tag(repository, tag)
    parts = await parts_of(context.queries, facts[0].digest) if facts else Parts([], [], False)
    query = ReplicationRequest(repository, tag, parts.manifests, parts.blobs)
    own = MemberAnswer(
        context.catalog.instance_id,
        context.config.site,
        context.config.own_url,
        local_answer(context.queries, context.database, query),
        "",
    )
    answers = await asyncio.gather(*(_ask(context, member, query) for member in context.members.all()))
    standings = [own, *answers]
    winners = (_fact_of(standing.answer) for standing in standings)
    winner = max(filter(None, winners), key=winner_key, default=None)
    if winner is None:
        raise ManifestUnknown("no instance that answers has this tag", {"tag": tag})
    if not facts or winner.digest != facts[0].digest:
        parts = Parts([], [], False)  # these are the parts of another manifest
    digest, time, writer = winner
    return JsonResponse(
        {
            "repository": repository,
            "tag": tag,
            "digest": digest,
            "time_ms": time >> COUNTER_BITS,
            "writer": f"{writer:x}",
            "manifests": len(parts.manifests),
            "blobs": len(parts.blobs),
            "whole": parts.whole,
            "instances": [
                {"name": context.members.name_of(standing.instance)} | _shown(standing, winner, parts)
                for standing in standings
            ],
        }
    )


async def parts_of(queries: Queries, digest: Digest) -> Parts:
    """Walk down from a manifest, as far as MAX_PARTS, in bounded steps. No body is read."""
    manifests, blobs, whole = {digest: None}, dict[str, None](), True
    walk = ManifestWalk([digest], queries.parts_of)
    for current in walk:
        if len(manifests) + len(blobs) > MAX_PARTS or walk.parts_read > MAX_LOOKED_UP:
            whole = False
            break
        whole &= queries.has_body(current)
        for part in walk.parts(current):
            whole &= part.digest != UNREADABLE
            if part.kind == MANIFEST:
                manifests[part.digest] = None
                walk.descend(part.digest)
            elif part.kind == BLOB and part.required:
                blobs[part.digest] = None
            if walk.may_pause:
                await asyncio.sleep(0)
    kept = list[str](manifests)[:MAX_PARTS]
    return Parts(kept, list(blobs)[: MAX_PARTS - len(kept)], whole and len(manifests) + len(blobs) <= MAX_PARTS)


def local_answer(queries: Queries, database: Database, query: ReplicationRequest) -> ReplicationResponse:
    """Return the part of a tag that this instance has. Raises OciError for invalid names."""
    repository, tag = parse_repository(query.repository), parse_tag(query.tag)
    with database.one_step():
        facts = queries.facts_of_tag(repository, tag)
        absent = lacking(database, query.manifests, query.blobs)
    return ReplicationResponse((*facts[0],) if facts else None, absent)


async def _ask(context: CatalogContext, member: Member, query: ReplicationRequest) -> MemberAnswer:
    """Ask one member. A member that is presumed dead is not asked."""
    about = (member.instance, member.beat.site, context.members.url(member))
    if not member.live:
        return MemberAnswer(*about, None, "it is not heard")
    try:
        peers = context.peers
        answer = await peers.ask(member, "/replication", query, ReplicationResponse, REQUEST_TIMEOUT_S)
    except PeerUnreachable as error:
        return MemberAnswer(*about, None, str(error))
    return MemberAnswer(*about, answer, "")


def _fact_of(answer: ReplicationResponse | None) -> TagFact | None:
    """Return the fact that wins at the instance that answered."""
    if answer is None or answer.fact is None:
        return None
    digest, time, writer = answer.fact
    return TagFact(Digest(digest), time, writer)


def _shown(standing: MemberAnswer, winner: TagFact, parts: Parts) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "instance": standing.instance,
        "site": standing.site,
        "address": standing.address,
        "answers": standing.answer is not None,
        "problem": standing.problem or None,
    }
    if standing.answer is None:
        return shown
    absent = set(standing.answer.missing)
    listed = [digest for digest in (*parts.manifests, *parts.blobs) if digest in absent]
    return shown | {
        "fact": _fact_state(_fact_of(standing.answer), winner),
        "manifest": winner.digest not in absent if parts.manifests else None,
        "manifests_held": _held(parts.manifests, absent),
        "blobs_held": _held(parts.blobs, absent),
        "missing": listed[:MAX_LISTED],
        "missing_count": len(listed),
    }


def _fact_state(fact: TagFact | None, winner: TagFact) -> str:
    if fact is None:
        return "none"
    return "wins" if fact == winner else "older"


def _held(digests: Iterable[str], absent: set[str]) -> int:
    return sum(digest not in absent for digest in digests)
