"""What a process answers that only reads: manifests and blobs that are here and in order.

Several processes may serve one data directory. One of them owns the instance: it writes, gossips and keeps content. The
others answer what they can from committed rows and content files, which is most of what is asked, and pass every other
connection on to the owner (`workers.handover`). Nothing here waits for anybody, and nothing is changed: what the owner
has to know of it is noted, and told it now and then.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

import apsw
from starlette.datastructures import Headers as HeaderView
from starlette.types import Receive, Scope, Send

from registry.blobs.checked import Damaged
from registry.blobs.store import BlobStore
from registry.catalog.content import content_checked
from registry.catalog.database import Reads
from registry.catalog.queries import Queries
from registry.errors import OciError
from registry.http.answers import CutOff, StreamResponse
from registry.http.asked import asked_part
from registry.http.direct import DirectAnswers, Headers
from registry.http.exchange import Exchange
from registry.http.routes import PREFIX, TEMPLATES, parse_path
from registry.measures import Traffic
from registry.names import Digest, parse_digest, parse_repository
from registry.request_ids import CURRENT, RequestIds
from registry.seams import Clock, Disk

log = logging.getLogger("concord.http")

MAX_NOTED = 10_000


class Damage(NamedTuple):
    """Content that could not be read, and at which byte."""

    digest: Digest
    offset: int


class Reading:
    """See the module. For one process, over committed rows and content files."""

    def __init__(self, database: Reads, disk: Disk, clock: Clock, check_after_s: float, log_requests: bool) -> None:
        self._database = database
        self._queries = Queries(database)
        self._store = BlobStore(disk, database)
        self._clock = clock
        self._check_after_ms = int(check_after_s * 1000)
        self._log_requests = log_requests
        self._ids = RequestIds(clock)
        self.traffic = Traffic()
        self.used: set[Digest] = set()
        """Blobs that were read, for the owner to know."""
        self.damaged: list[Damage] = []
        """What turned out damaged while it was sent, for the owner to see to."""
        self._direct = DirectAnswers(database, self._store, clock, check_after_s, self.traffic, self._note_used)

    def direct(self, method: str, target: bytes, headers: Headers) -> tuple[bytes, bytes] | None:
        """As `App.direct`."""
        return None if self._log_requests else self._direct.answer(method, target, headers)

    def stream(self, method: str, target: bytes, headers: Headers) -> StreamResponse | None:
        """A blob, or a part of it, as an answer that sends it; None where the owner has to answer."""
        if method != "GET" or b"?" in target or b"%" in target or b"#" in target:
            return None
        path = target.decode("latin-1")
        if not path.startswith(PREFIX):
            return None
        resource, name, reference = parse_path(path)
        if resource != "blob":
            return None
        try:
            return self._blob(name, reference, headers)
        except (OciError, OSError, Damaged, apsw.Error):
            return None

    def _blob(self, name: str, reference: str, headers: Headers) -> StreamResponse | None:
        repository, digest = parse_repository(name), parse_digest(reference)
        with self._database.one_step():
            row = self._queries.blob(repository, digest)
            found = content_checked(self._database, digest)
        if row is None or found is None or not 0 <= self._clock.now_ms() - found[1] < self._check_after_ms:
            return None
        asked = asked_part(HeaderView(raw=list(headers)), digest, row.size)
        if asked is None:
            return None
        pieces = self._store.read(self._store.open(digest), asked.first, asked.length)
        self._note_used(digest)
        return StreamResponse(self._watched(digest, pieces), asked.status, asked.headers)

    async def _watched(
        self, digest: Digest, pieces: AsyncGenerator[bytes | bytearray, None]
    ) -> AsyncGenerator[bytes | bytearray, None]:
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece
        except Damaged as damage:
            if len(self.damaged) < MAX_NOTED:
                self.damaged.append(Damage(digest, damage.offset))
            raise

    def _note_used(self, digest: Digest) -> None:
        if len(self.used) < MAX_NOTED:
            self.used.add(digest)

    async def serve(self, response: StreamResponse, scope: Scope, receive: Receive, send: Send) -> None:
        """Send an answer, and count it."""
        request_id = self._ids.of(scope["headers"])
        exchange = Exchange(scope, receive, send, request_id, self._clock)
        CURRENT.set(request_id)
        self.traffic.under_way += 1
        try:
            await response(scope, exchange.receive, exchange.send)
        except CutOff as error:
            self.traffic.cut_off += 1
            log.warning("an answer to %s was cut off: %s", scope["path"], error)
            raise
        finally:
            self.traffic.under_way -= 1
            self.traffic.note(exchange.served(TEMPLATES["blob"]))
            if self._log_requests:
                exchange.log()
