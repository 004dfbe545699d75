"""What refers to a manifest (OCI distribution specification, "Listing Referrers" and "Referrers Tag Schema").

Manifests whose subject is the one asked about, and what lists pushed under the tag schema name besides: of all live
facts about such a tag, since two sites that each pushed a list have both said something true.
"""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from registry.catalog.queries import Queries, ReferrerRow
from registry.http.answers import JsonResponse, next_link
from registry.instance import Instance
from registry.manifest import OCI_INDEX
from registry.names import Digest, Repository, Tag, is_digest

PAGE_BYTES = 1024 * 1024
PAGE = 1000


async def list_referrers(instance: Instance, request: Request, repository: Repository, subject: Digest) -> Response:
    """GET of a manifest's referrers, those of one artifactType if that is asked for."""
    wanted = request.query_params.get("artifactType")
    last = request.query_params.get("last", "")
    if not instance.catalog.queries.repository_exists(repository):
        await instance.cluster.learn_for_miss(repository)
    entries, after = _page(instance.catalog.queries, repository, subject, last, wanted)
    headers = {"Content-Type": OCI_INDEX}
    if wanted is not None:
        headers["OCI-Filters-Applied"] = "artifactType"
    if after is not None:
        parameters = {"last": after} | ({"artifactType": wanted} if wanted is not None else {})
        headers |= next_link(f"/v2/{repository}/referrers/{subject}", parameters)
    return JsonResponse({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, headers=headers)


def _page(
    queries: Queries, repository: Repository, subject: Digest, last: str, wanted: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Descriptors in the order of their digests, and the digest behind which the next page begins, if there is one."""
    rows = queries.referrers(repository, subject, last, PAGE)
    found = {row.digest: _descriptor(row) for row in rows}
    upto = rows[-1].digest if len(rows) == PAGE else None
    for entry in _listed_by_tag(queries, repository, subject):
        digest = entry.get("digest")
        if isinstance(digest, str) and digest > last and (upto is None or digest <= upto):
            found.setdefault(Digest(digest), entry)
    entries: list[dict[str, Any]] = []
    size = 0
    for digest in sorted(found):
        if wanted is not None and found[digest].get("artifactType") != wanted:
            continue
        size += len(msgspec.json.encode(found[digest]))
        if size > PAGE_BYTES and entries:
            return entries, entries[-1]["digest"]
        entries.append(found[digest])
    return entries, upto


def _descriptor(row: ReferrerRow) -> dict[str, Any]:
    descriptor: dict[str, Any] = {"mediaType": row.media_type, "digest": row.digest, "size": row.size}
    if row.artifact_type:
        descriptor["artifactType"] = row.artifact_type
    if row.annotations:
        descriptor["annotations"] = msgspec.json.decode(row.annotations)
    return descriptor


def _listed_by_tag(queries: Queries, repository: Repository, subject: Digest) -> list[dict[str, Any]]:
    """Entries of the lists under the subject's tag whose manifests are in this repository."""
    tag = Tag(subject.replace(":", "-", 1)[: len("sha256-") + 64])
    entries: list[dict[str, Any]] = []
    for fact in queries.facts_of_tag(repository, tag):
        body = queries.body(fact.digest)
        try:
            content = msgspec.json.decode(body) if body else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # the catalog keeps what other versions accepted
        listed = content.get("manifests") if isinstance(content, dict) else None
        for entry in listed if isinstance(listed, list) else []:
            digest = entry.get("digest") if isinstance(entry, dict) else None
            if isinstance(digest, str) and is_digest(digest) and queries.manifest(repository, Digest(digest)):
                entries.append(entry)
    return entries
