"""This product's own API, for people and for `concord`: health, status, state digest, conflicts, checks of content."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from crdt.clock import COUNTER_BITS
from crdt.errors import Malformed
from crdt.trie import DIGEST_SIZE, Prefix
from registry import __version__
from registry.catalog.queries import TagFact, document_name
from registry.catalog.sums import content_sums
from registry.catalog.understanding import not_understood, not_understood_count
from registry.cluster.transfer.scrubber import Scrubber
from registry.errors import NameUnknown, Unsupported
from registry.http.admin.actions import Outcome
from registry.http.admin.context import AdminContext, CatalogContext, MembersContext
from registry.http.admin.status_fields import (
    access_state,
    addresses,
    instance_state,
    maintenance_times,
    member_state,
    policy,
)
from registry.http.oci.answers import JsonResponse
from registry.http.wire.request import small_body
from registry.oci.names import Repository, Tag, parse_repository
from registry.units import KIB

PAGE = 1000
CONFLICTS_A_STEP = 64
"""Conflicts whose facts are read before the loop turns: 2 ms of processor time where each has a few."""
MAX_NAMED = 10
"""Documents that the answer on readiness names."""
MAX_REQUEST_BYTES = 64 * KIB


async def health(admin: AdminContext, request: Request) -> Response:
    """Return 200 while the process answers."""
    return PlainTextResponse("ok\n")


async def readiness(admin: AdminContext, request: Request) -> Response:
    """Return 200 if a load balancer should send requests here, else 503. It asks no other instance.

    An instance that does not understand some repositories is ready, and names them: while most instances are old, the
    other repositories would not be served at all. Where access control is enforced it names none, since anyone may ask.
    """
    process = admin.process
    shown = [] if process.access.is_enforced else not_understood(admin.catalog.database, MAX_NAMED)
    blocked = "".join(
        f"not served before an upgrade: {document} (facts of kind {', '.join(kinds)})\n" for document, kinds in shown
    )
    is_ready = process.readiness.ready
    return PlainTextResponse(f"ready\n{blocked}") if is_ready else PlainTextResponse(f"not ready\n{blocked}", 503)


async def status(admin: AdminContext, request: Request) -> Response:
    """Return this instance's state, its members and their state."""
    process, catalog, members = admin.process, admin.catalog, admin.members
    replication, placement = admin.replication, admin.placement
    await process.space.look()
    done = await maintenance_times(placement)
    last = placement.garbage_collector.last
    blocked = last.blocked if last else None
    counts = await catalog.queries.counts()
    return JsonResponse(
        {
            "instance": catalog.catalog.instance_id,
            **instance_state(process),
            "site": process.config.site,
            "version": __version__,
            "capabilities": process.abilities.capabilities,
            "ready": process.readiness.ready,
            "root": catalog.replica.root().hex(),
            "access": access_state(admin.access),
            "digest_matches_last_shutdown": catalog.catalog.digest_matches_last_shutdown,
            "commit": catalog.replica.commit_number(),
            **counts,
            "not_understood": [found._asdict() for found in not_understood(catalog.database)],
            "not_understood_count": not_understood_count(catalog.database),
            "uploads": process.usage.uploads,
            "cluster_key": {
                "wrong": members.acceptance.is_wrong,
                "accepted_by": members.acceptance.accepting,
                "refused_by": members.acceptance.refusing(),
            },
            **addresses(members),
            "members": [_member(members, m.instance) for m in members.members.all()],
            "bus": replication.bus.servers(),
            "frames": dict(replication.gossip.frames),
            "anti_entropy_rounds": dict(replication.anti_entropy.rounds),
            "copies": {
                "policy": policy(placement),
                "policy_digest": placement.policy.digest,
                "sites_without_instances": members.watch.empty_sites(),
                "pending": placement.replicator.pending,
                "missing": placement.replicator.missing,
                "fetched": placement.replicator.fetched,
            },
            "evicted": {"blobs": placement.evictor.evicted, "bytes": placement.evictor.evicted_bytes},
            "collected": {
                "blobs": placement.garbage_collector.removed,
                "bytes": placement.garbage_collector.removed_bytes,
                "blocked": blocked.answer() if blocked else None,
            },
            "maintenance": {
                "collection_ms": done.collection_ms,
                "scrub_ms": done.scrub_ms,
                "oldest_check_ms": done.oldest_check_ms,
                "backup": done.backup,
            },
            "acknowledgements_missed": replication.acknowledgements.missed,
            "read_lease_exclusions": replication.acknowledgements.excluded,
            "read_lease_waits_for": replication.site_lease.waits_for(),
            "content_quarantined": placement.quarantine.found,
            "content_repaired": placement.blob_reader.repaired,
            "requests": process.traffic.total(),
            "fetched_bytes": placement.transfers.fetched_bytes + placement.blob_reader.ranges.fetched_bytes,
            "peer_requests": process.peer_requests.answered,
            "peer_requests_refused": dict(process.peer_requests.refused),
        }
    )


def _member(context: MembersContext, other: str) -> dict[str, Any]:
    member = context.members.get(other)
    assert member is not None, "it was just listed"
    delays = context.delays.by_member
    delay = delays.get(other)
    return {
        "instance": other,
        "site": member.beat.site,
        "address": context.members.url(member),
        "version": member.beat.version,
        "capabilities": member.capabilities,
        "live": member.live,
        "reachable": member.reachable,
        "in_sync": member.beat.root == context.replica.root(),
        "missing_changes": member.missing_changes,
        "last_replication_delay_s": delay.last_s if delay is not None else None,
        **member_state(context, member),
    }


async def digest(admin: AdminContext, request: Request) -> Response:
    """Return the state digest as `root`; with `?repositories` that of each repository, with `?repository=NAME` that of
    one with its tag facts. Lists are paged by `last`. `?content=PREFIX` sums up the content that the manifests need and
    that the disk holds, with what is missing and what dangles; 404 if no repository's name begins with the prefix."""
    context = admin.catalog
    prefix = request.query_params.get("content")
    if prefix is not None:
        if prefix and not context.queries.any_begins(prefix):
            raise NameUnknown(f"no repository's name begins with {prefix[:255]!r}", {"prefix": prefix[:255]})
        sums = await context.database.read_aside(lambda reading: content_sums(reading, prefix, PAGE))
        return JsonResponse(
            {"prefix": prefix} | sums._asdict() | {"needed": sums.needed._asdict(), "held": sums.held._asdict()}
        )
    with context.database.one_step():
        return JsonResponse(_digest(context, request.query_params))


def _digest(context: CatalogContext, query: Mapping[str, str]) -> dict[str, Any]:
    replica, queries = context.replica, context.queries
    last = query.get("last", "")
    answer: dict[str, Any] = {"root": replica.root().hex(), "commit": replica.commit_number()}
    if "repository" in query:
        name = parse_repository(query["repository"])
        if not queries.repository_exists(name):
            raise NameUnknown("there is no such repository", {"name": name})
        tags = queries.tags(name, last, PAGE)
        facts = queries.tag_facts(name, tags[0], tags[-1]) if tags else {}
        answer |= {
            "repository": name,
            "digest": replica.digest(document_name(name)).hex(),
            "tags": {tag: [_fact(context, fact) for fact in facts.get(tag, [])] for tag in tags},
            "last": tags[-1] if len(tags) == PAGE else None,
        }
    elif "repositories" in query:
        names = queries.repositories(last, PAGE)
        answer |= {
            "repositories": {name: replica.digest(document_name(name)).hex() for name in names},
            "last": names[-1] if len(names) == PAGE else None,
        }
    return answer


class PlacesRequest(msgspec.Struct):
    """Places in the trie over all documents: bits as hexadecimal digits, and depth."""

    places: list[tuple[str, int]]


async def compare(admin: AdminContext, request: Request) -> Response:
    """Return summaries of places in the Merkle trie over all documents (`crdt.audit`), by which `concord diff` compares
    two instances."""
    context = admin.catalog
    body = await small_body(
        request,
        MAX_REQUEST_BYTES,
        Unsupported(f"the request body is too long: expected at most {MAX_REQUEST_BYTES} bytes", 413),
    )
    replica = context.replica
    try:
        wanted = msgspec.json.decode(body, type=PlacesRequest)
        summaries = replica.summaries([Prefix(int(bits, 16), depth) for bits, depth in wanted.places])
    except (msgspec.DecodeError, ValueError, RecursionError, Malformed) as error:
        raise Unsupported(f"malformed request body: {error}", 400) from None
    return JsonResponse(
        {
            "summaries": [
                {
                    "digests": [digest.hex() for digest in summary.digests],
                    "entries": [
                        {"entry": entry.hex(), "document": "".join(replica.names([entry[:DIGEST_SIZE]]))}
                        for entry in summary.entries
                    ],
                }
                for summary in summaries
            ]
        }
    )


async def conflicts(admin: AdminContext, request: Request) -> Response:
    """List conflicts: tags that several sites pushed concurrently, each with the winner and the others."""
    context = admin.catalog
    queries = context.queries
    listed = []
    for number, (repository, tag) in enumerate(queries.conflicts(limit=PAGE), 1):
        if number % CONFLICTS_A_STEP == 0:
            await asyncio.sleep(0)
        facts = queries.facts_of_tag(repository, tag)
        if facts:  # else it was deleted since the list was read
            listed.append(_conflict(context, repository, tag, facts))
    return JsonResponse({"count": await queries.conflict_count(), "conflicts": listed})


def _conflict(context: CatalogContext, repository: Repository, tag: Tag, facts: list[TagFact]) -> dict[str, Any]:
    winner, *others = facts
    return {
        "repository": repository,
        "tag": tag,
        "winner": _fact(context, winner),
        "others": [_fact(context, fact) for fact in others if fact.digest != winner.digest],
    }


async def scrub(admin: AdminContext, request: Request) -> Response:
    """Return how far a requested scrub is (`running`), what the last one found (`last`), and totals since the start."""
    return JsonResponse(_scrub(admin.placement.scrubber))


async def begin_scrub(admin: AdminContext, body: bytes) -> Outcome:
    """Begin to scrub all content; 202. If a scrub is under way already, `begun` is false."""
    scrubber = admin.placement.scrubber
    begun = scrubber.begin()
    return Outcome(_scrub(scrubber) | {"begun": begun}, {"begun": begun}, 202)


def _scrub(scrub: Scrubber) -> dict[str, Any]:
    return {
        "running": scrub.running,
        "last": scrub.last,
        "since_start": scrub.all,
        "oldest_check_ms": scrub.oldest_check_ms(),
    }


def _fact(context: CatalogContext, fact: TagFact) -> dict[str, Any]:
    owner = context.queries.instance_of(fact.writer)
    return {
        "digest": fact.digest,
        "time_ms": fact.time >> COUNTER_BITS,
        "time": f"{fact.time:016x}",
        "writer": f"{fact.writer:x}",
        "instance": owner,
        "name": context.members.name_of(owner),
        "site": _site_of(context, owner),
    }


def _site_of(context: CatalogContext, owner: str | None) -> str | None:
    if owner == context.catalog.instance_id:
        return context.config.site
    member = context.members.get(owner or "")
    return member.beat.site if member is not None else None
