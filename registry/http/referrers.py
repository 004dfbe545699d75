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
ENTRY_BYTES = 200
"""About what an entry takes beside its annotations."""


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
    sizes = queries.referrer_sizes(repository, subject, last, PAGE)
    listed = _listed_by_tag(queries, repository, subject)
    digests = sorted({*sizes, *(digest for digest in listed if digest > last)})[:PAGE]
    entries: list[dict[str, Any]] = []
    size = 0
    for digest in digests:
        size += sizes.get(digest, ENTRY_BYTES)
        if size > PAGE_BYTES and digest != digests[0]:
            return entries, last
        entry = _entry(queries, repository, digest, listed.get(digest))
        if entry is not None and (wanted is None or entry.get("artifactType") == wanted):
            entries.append(entry)
        last = digest
    return entries, last if len(digests) == PAGE else None


def _entry(
    queries: Queries, repository: Repository, digest: Digest, listed: dict[str, Any] | None
) -> dict[str, Any] | None:
    """What is said of a referrer: by itself, or by the list that names it if it is in this repository."""
    row = queries.referrer(repository, digest) if listed is None else None
    if row is not None:
        return _descriptor(row)
    return listed if queries.manifest(repository, digest) else None


def _descriptor(row: ReferrerRow) -> dict[str, Any]:
    descriptor: dict[str, Any] = {"mediaType": row.media_type, "digest": row.digest, "size": row.size}
    if row.artifact_type:
        descriptor["artifactType"] = row.artifact_type
    if row.annotations:
        descriptor["annotations"] = msgspec.json.decode(row.annotations)
    return descriptor


def _listed_by_tag(queries: Queries, repository: Repository, subject: Digest) -> dict[Digest, dict[str, Any]]:
    """Entries of the lists under the subject's tag."""
    tag = Tag(subject.replace(":", "-", 1)[: len("sha256-") + 64])
    entries: dict[Digest, dict[str, Any]] = {}
    for fact in queries.facts_of_tag(repository, tag):
        body = queries.body(fact.digest)
        try:
            content = msgspec.json.decode(body) if body else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # the catalog keeps what other versions accepted
        listed = content.get("manifests") if isinstance(content, dict) else None
        for entry in listed if isinstance(listed, list) else []:
            digest = entry.get("digest") if isinstance(entry, dict) else None
            if isinstance(digest, str) and is_digest(digest):
                entries.setdefault(Digest(digest), entry)
    return entries
