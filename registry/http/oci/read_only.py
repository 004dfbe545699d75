"""The requests that a worker answers: manifests and blobs that are on this disk and checked, and pages of tags.

Several processes may serve one data directory. The primary runs the instance: it writes, gossips and keeps content. The
workers answer reads from committed rows and content files, which are most requests (`http.worker_app`). Invariant: this
code waits for no other process and changes nothing. It records what the primary has to know, and the worker reports
that periodically.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import apsw
from starlette.datastructures import Headers as HeaderView
from starlette.types import Receive, Scope, Send

from registry.audit.log import AuditLog
from registry.catalog.content import content_checked, is_due
from registry.catalog.database import Reads
from registry.catalog.queries import Queries, document_name
from registry.catalog.understanding import require_understood
from registry.cluster.replication.read_lease import ReadLease
from registry.errors import OciError
from registry.http.oci.answers import StreamResponse
from registry.http.oci.conditions import evaluate_conditions
from registry.http.oci.multipart import GAP_BYTES, Pieces, assembled
from registry.http.oci.paths import PREFIX, TEMPLATES
from registry.http.wire.exchange import Exchange
from registry.http.wire.fast_path import DirectAnswer, FastPath, Headers, plain_path
from registry.oci.names import Digest, parse_digest, parse_repository
from registry.oci.ranges import ByteRange
from registry.ports import Clock, Disk
from registry.storage.checked import Corrupt, Corruption
from registry.storage.store import BlobStore
from registry.telemetry.counters import Traffic
from registry.telemetry.log_limit import LogLimit
from registry.units import to_ms

API = PREFIX.encode()
MAX_NOTED = 10_000


class ReadOnlyApp:
    """The application of one worker, over committed rows and content files."""

    def __init__(
        self,
        database: Reads,
        disk: Disk,
        clock: Clock,
        lease: ReadLease,
        verify_after_s: float,
        log_requests: bool,
    ) -> None:
        self.lease = lease
        self._database = database
        self._queries = Queries(database)
        self._store = BlobStore(disk, database)
        self._clock = clock
        self._verify_after_ms = to_ms(verify_after_s)
        self._log_requests = log_requests
        self._cut_offs = LogLimit(clock)
        self.traffic = Traffic()
        self.used: set[Digest] = set()
        """Blobs that were read, for the primary's eviction."""
        self.corrupt: list[Corruption] = []
        """Content that proved corrupt while it was sent, for the primary to repair."""
        self._fast_path = FastPath(
            database, self._store, clock, verify_after_s, self.traffic, lease, self._note_used, self._note_corruption
        )

    def direct(self, method: str, target: bytes, headers: Headers) -> DirectAnswer | None:
        """Return a response by the fast path, as `App.direct` does."""
        if self._log_requests or not target.startswith(API) or not self.lease.allows_read():
            return None
        return self._fast_path.answer(method, target, headers)

    def stream(self, method: str, target: bytes, headers: Headers) -> StreamResponse | None:
        """Return a response that sends a blob or ranges of it; None if the primary has to answer."""
        path = plain_path(target) if method == "GET" else None
        if path is None or path.resource != "blob" or not self.lease.allows_read():
            return None
        try:
            return self._blob(path.name, path.reference, headers)
        except (OciError, OSError, Corrupt, apsw.Error):
            return None

    def _blob(self, name: str, reference: str, headers: Headers) -> StreamResponse | None:
        repository, digest = parse_repository(name), parse_digest(reference)
        with self._database.one_step():
            require_understood(self._database, document_name(repository))
            row = self._queries.blob(repository, digest)
            found = content_checked(self._database, digest)
        if row is None or found is None or is_due(found[1], self._clock.now_ms(), self._verify_after_ms):
            return None
        if digest in self._store.pending_quarantine:
            return None  # the primary is notified and repairs it
        selected = evaluate_conditions(HeaderView(raw=list(headers)), digest, row.size, self._clock.entropy)
        if selected is None:
            return None
        file = self._store.open(digest)
        if selected.multipart is None:
            pieces = self._store.read(file, selected.first, selected.length)
        else:
            file.close()  # each run of parts opens it
            pieces = assembled(selected.multipart, GAP_BYTES, partial(self._read, digest))
        self._note_used(digest)
        return StreamResponse(self._watched(digest, pieces), selected.status, selected.headers)

    def _read(self, digest: Digest, span: ByteRange) -> Pieces:
        return self._store.read(self._store.open(digest), span.first, span.length)

    async def _watched(
        self, digest: Digest, pieces: AsyncGenerator[bytes | bytearray, None]
    ) -> AsyncGenerator[bytes | bytearray, None]:
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece
        except Corrupt as corrupt:
            self._note_corruption(digest, corrupt.offset)
            raise

    def _note_corruption(self, digest: Digest, offset: int = 0) -> None:
        """Record that content is corrupt. This process sends none of it from now on."""
        if digest not in self._store.pending_quarantine and len(self.corrupt) < MAX_NOTED:
            self.corrupt.append(Corruption(digest, offset))
        self._store.pending_quarantine[digest] = offset

    def _note_used(self, digest: Digest) -> None:
        if len(self.used) < MAX_NOTED:
            self.used.add(digest)

    async def serve(
        self, response: StreamResponse, scope: Scope, receive: Receive, send: Send, request_id: str, audit: AuditLog
    ) -> None:
        """Send a response and count it."""
        exchange = Exchange(scope, receive, send, request_id, self._clock)
        with exchange.counted(self.traffic, TEMPLATES["blob"], self._log_requests, self._cut_offs, audit):
            await response(scope, exchange.receive, exchange.send)
