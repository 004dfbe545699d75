"""The fast path: the most frequent reads, answered without a task.

It serves manifests and small blobs that are on this disk and checked, pages of tags, and misses of which no member can
know more. It waits for nothing. A response is cached and used again as long as its repository has not changed, which
one short query of the repository revision tells, whichever process has written. Requests that are not plain (a
condition, a range, a query, content that is elsewhere or due for a check) take the slow path, and so do large
responses, whose memory is bounded over all requests.

A body is compared with its digest before it is cached, so cached bodies are right whatever the disk does later.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import NamedTuple

import apsw

from crdt.fact import BLOB, MANIFEST, TAG
from registry.catalog.content import content_checked, is_due
from registry.catalog.database import Reads
from registry.catalog.queries import Queries, document_name
from registry.catalog.understanding import NO_OTHER_BLOCKS, blocking_all
from registry.cluster.replication.read_lease import ReadLease
from registry.errors import OciError
from registry.http.oci.answers import error_response, list_page, missing_blob, missing_manifest
from registry.http.oci.conditions import blob_headers, content_headers
from registry.http.oci.paths import API_VERSION, PREFIX, TEMPLATES, Path, parse_path
from registry.oci.names import Digest, Repository, algorithm_of, digest_of, is_tag, parse_digest, parse_repository
from registry.ports import Clock
from registry.storage.checked import Corrupt
from registry.storage.store import BlobStore
from registry.telemetry.counters import Served, Traffic
from registry.telemetry.request_ids import RAW_HEADER, RequestIds
from registry.units import KIB, MIB, to_ms

MAX_BODY_BYTES = 64 * KIB
CACHE_BYTES = 16 * MIB
OVERHEAD_BYTES = 1024
MAX_PAGE = 1000

Headers = Collection[tuple[bytes, bytes]]

_CHANGED = f"SELECT changed FROM documents WHERE name = ? AND not_understood = 0 AND {NO_OTHER_BLOCKS}"
_IS_MISSING = f"""
SELECT NOT EXISTS (
    SELECT 1 FROM documents d LEFT JOIN facts f ON f.document = d.id AND f.kind = ?1 AND f.key = ?2
    WHERE d.name = ?3 AND (f.key IS NOT NULL OR d.not_understood > 0)
) AND {NO_OTHER_BLOCKS}
"""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
_PAGE = re.compile(r"/v2/([a-z0-9._/-]+)/tags/list\?n=([1-9][0-9]{0,3})(?:&last=([A-Za-z0-9_.-]{0,128}))?\Z", re.ASCII)
_PLAIN = re.compile(rb"[^\x00-\x20%?#\x7f-\xff]+\Z")
_NOT_PLAIN = frozenset((b"if-none-match", b"if-range", b"range", b"content-length", b"transfer-encoding", b"expect"))


class CachedResponse(NamedTuple):
    """A response, and the document revision for which it is valid. Only those of status 200 are cached."""

    route: str
    head: bytes
    """The headers as they are on the wire."""
    body: bytes
    document: str
    changed: int
    blob: Digest | None = None
    """The blob in the response, whose use must be noted; None for a manifest."""
    checked_ms: int = 0
    """The time of the blob's last check. A manifest is checked when it is cached."""
    status: int = 200


class DirectAnswer(NamedTuple):
    """A response that is sent without a task."""

    status: int
    head: bytes
    """The headers as they are on the wire."""
    body: bytes


class FastPath:
    """The fast path of one process, with its cache."""

    def __init__(
        self,
        database: Reads,
        store: BlobStore,
        clock: Clock,
        verify_after_s: float,
        traffic: Traffic,
        lease: ReadLease,
        on_used: Callable[[Digest], None],
        on_corrupt: Callable[[Digest], None],
    ) -> None:
        """`on_used` is called for each blob that is served, `on_corrupt` for each whose file does not match its
        digest."""
        self._database = database
        self._traffic = traffic
        self._lease = lease
        self._ids = RequestIds(clock)
        self._queries = Queries(database)
        self._store = store
        self._clock = clock
        self._verify_after_ms = to_ms(verify_after_s)
        self._on_used = on_used
        self._on_corrupt = on_corrupt
        self._cached: OrderedDict[bytes, CachedResponse] = OrderedDict()
        self._cached_bytes = 0

    def answer(self, method: str, target: bytes, headers: Headers) -> DirectAnswer | None:
        """Return an answer, or None where a route has to answer."""
        begun = self._clock.steady_s()
        try:
            found = self._find(method, target, headers)
        except (apsw.Error, OSError):
            return None  # the route meets the same, and says so
        if found is None:
            return None
        body = b"" if method == "HEAD" else found.body
        self._traffic.note(Served(found.route, method, found.status, self._clock.steady_s() - begun, 0, len(body)))
        head = b"%b%b: %b\r\n" % (found.head, RAW_HEADER, self._ids.of(headers).encode())
        return DirectAnswer(found.status, head, body)

    def _find(self, method: str, target: bytes, headers: Headers) -> CachedResponse | None:
        if method not in ("GET", "HEAD") or any(name in _NOT_PLAIN for name, _ in headers):
            return None
        if target == BASE:
            return _BASE_ANSWER if blocking_all(self._database) is None else None
        if method == "HEAD" and (b"/blobs/" in target or b"?" in target):
            return self._missed(plain_path(target) or _NO_PATH)  # where the blob exists, the route takes a lease of it
        found = self._cached.get(target)
        if found is not None and self._is_current(found):
            self._cached.move_to_end(target)
        else:
            found = self._read_and_cache(target)
        if found is not None and found.blob is not None:
            self._on_used(found.blob)
        return found

    def _missed(self, path: Path) -> CachedResponse | None:
        """Return the answer that a blob or a manifest does not exist, where no member can know more."""
        if path.resource not in _MISSES or not self._lease.allows_miss():
            return None
        try:
            repository = parse_repository(path.name)
            if path.resource == "blob" or ":" in path.reference:
                key: str = parse_digest(path.reference)
                kind = BLOB if path.resource == "blob" else MANIFEST
            elif is_tag(path.reference):
                kind, key = TAG, path.reference
            else:
                return None
        except OciError:
            return None  # the route says what is wrong
        (is_missing,) = self._database.row(_IS_MISSING, (kind, key, document_name(repository)))
        return _MISSES[path.resource].response(key) if is_missing else None

    def _is_current(self, cached: CachedResponse) -> bool:
        if cached.blob is not None and self._is_due(cached.checked_ms):
            return False
        return self._changed(cached.document) == cached.changed

    def _changed(self, document: str) -> int | None:
        """The number of a document's last change; None where it may not be served."""
        row = self._database.row(_CHANGED, (document,))
        return row[0] if row else None

    def _is_due(self, checked_ms: int) -> bool:
        return is_due(checked_ms, self._clock.now_ms(), self._verify_after_ms)

    def _read_and_cache(self, target: bytes) -> CachedResponse | None:
        """Read the content of a request and cache the response. A miss is not cached."""
        self._drop(target)
        path = plain_path(target) or _NO_PATH
        if (missed := self._missed(path)) is not None:
            return missed
        resource, name, reference = path
        try:
            with self._database.one_step():
                if resource == "manifest":
                    found = self._manifest(parse_repository(name), reference)
                elif resource == "blob":
                    found = self._blob(parse_repository(name), parse_digest(reference))
                elif page := _PAGE.match(target.decode("latin-1")):
                    found = self._page(parse_repository(page[1]), int(page[2]), page[3] or "")
                else:
                    found = None
        except OciError:
            return None  # the route answers with the error
        if found is not None:
            self._cache(target, found)
        return found

    def _manifest(self, repository: Repository, reference: str) -> CachedResponse | None:
        if ":" in reference:
            row = self._queries.manifest(repository, parse_digest(reference))
        else:
            row = self._queries.manifest_by_tag(repository, reference) if is_tag(reference) else None
        if row is None or row.body is None or len(row.body) > MAX_BODY_BYTES or not _has_digest(row.body, row.digest):
            return None
        headers = content_headers(row.digest) | {"Content-Type": row.media_type, "Content-Length": str(row.size)}
        return self._ready("manifest", repository, headers, row.body)

    def _blob(self, repository: Repository, digest: Digest) -> CachedResponse | None:
        row = self._queries.blob(repository, digest)
        if row is None or row.size > MAX_BODY_BYTES or digest in self._store.pending_quarantine:
            return None
        found = content_checked(self._database, digest)
        if found is None or self._is_due(found[1]):
            return None
        body = self._read(digest, row.size)
        if body is not None and not _has_digest(body, digest):
            self._on_corrupt(digest)
        if body is None or digest in self._store.pending_quarantine:
            return None
        ready = self._ready("blob", repository, blob_headers(digest, row.size), body)
        return ready and ready._replace(blob=digest, checked_ms=found[1])

    def _page(self, repository: Repository, count: int, last: str) -> CachedResponse | None:
        if count > MAX_PAGE or not self._queries.repository_exists(repository):
            return None
        names = self._queries.tags(repository, last, count + 1)
        body, headers = list_page(f"/v2/{repository}/tags/list", {"name": repository}, "tags", names, count)
        return self._ready("tags", repository, headers | {"Content-Length": str(len(body))}, body)

    def _ready(
        self, resource: str, repository: Repository, headers: dict[str, str], body: bytes
    ) -> CachedResponse | None:
        document = document_name(repository)
        changed = self._changed(document)
        if changed is None or len(body) > MAX_BODY_BYTES or any(_CONTROL.search(value) for value in headers.values()):
            return None
        return CachedResponse(TEMPLATES[resource], on_the_wire(headers), body, document, changed)

    def _read(self, digest: Digest, size: int) -> bytes | None:
        """Return the bytes of a file if that needs no waiting."""
        try:
            file = self._store.open(digest)
            try:
                piece = file.pread_nowait(0, size)
            finally:
                file.close()
        except (OSError, Corrupt):
            return None
        return bytes(piece) if piece is not None else None

    def _cache(self, target: bytes, answer: CachedResponse) -> None:
        self._cached[target] = answer
        self._cached_bytes += _cost(target, answer)
        while self._cached_bytes > CACHE_BYTES:
            self._drop(next(iter(self._cached)))

    def _drop(self, target: bytes) -> None:
        cached = self._cached.pop(target, None)
        if cached is not None:
            self._cached_bytes -= _cost(target, cached)


def on_the_wire(headers: dict[str, str]) -> bytes:
    return "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items()).encode("latin-1")


class _Miss:
    """The answer that something does not exist, rendered but for what was asked for."""

    def __init__(self, resource: str, error: Callable[[str], OciError]) -> None:
        rendered = error_response(error(_ASKED_FOR))
        self._route, self._status = TEMPLATES[resource], rendered.status_code
        self._before, self._after = bytes(rendered.body).split(_ASKED_FOR.encode())
        del rendered.headers["Content-Length"]
        self._head = on_the_wire(dict(rendered.headers))

    def response(self, asked_for: str) -> CachedResponse:
        """Return the answer for a digest or a tag, neither of which JSON has to escape."""
        body = b"%b%b%b" % (self._before, asked_for.encode(), self._after)
        head = b"%bcontent-length: %d\r\n" % (self._head, len(body))
        return CachedResponse(self._route, head, body, "", 0, status=self._status)


_ASKED_FOR = "what-was-asked-for"
_MISSES = {"blob": _Miss("blob", missing_blob), "manifest": _Miss("manifest", missing_manifest)}

BASE = b"/v2/"
_NO_PATH = Path("", "", "")
_BASE_HEADERS = API_VERSION | {"Content-Type": "application/json", "Content-Length": "2"}
_BASE_ANSWER = CachedResponse(TEMPLATES["base"], on_the_wire(_BASE_HEADERS), b"{}", "", 0)
"""The response to the request by which clients discover the API."""


def plain_path(target: bytes) -> Path | None:
    """Parse a path of the API as it is on the wire. Return None for a path with a query, or with anything encoded."""
    if not target.startswith(PREFIX.encode()) or not _PLAIN.match(target):
        return None
    return parse_path(target.decode("ascii"))


def _has_digest(body: bytes, digest: Digest) -> bool:
    return digest_of(body, algorithm_of(digest)) == digest


def _cost(target: bytes, answer: CachedResponse) -> int:
    return len(target) + len(answer.head) + len(answer.body) + OVERHEAD_BYTES
