"""The bounded table of uploads under way, and which of them is preempted when it is full.

An upload takes a place with its first byte and keeps it until it ends. A client that begins many and goes away would
keep all others from pushing until its uploads expire, a day later. So a full table preempts: the upload that has been
idle for longest, of the client network that has the most places. A client whose network has few loses none to one that
has many.

An upload is idle since its last byte or request. One with a request under way may be preempted too, once that request
has brought nothing for a while: else as many connections as there are places would do the same harm, a byte a minute.

Networks are forgotten at a restart: what was there before counts as one network until its next request.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from registry.storage.shared_usage import OwnUsage

IDLE_AFTER_S = 3.0
"""Between two requests of one upload clients pause for less. Uploads that are idle for longer are preempted first."""
UNKNOWN_NETWORK = ""


@dataclass(slots=True)
class _Place:
    network: str
    size_bytes: int
    used_s: float


class UploadPlaces:
    """Every upload of this process that has a session or a row, with its bytes and its client's network. `most` is how
    many there may be at all processes together."""

    def __init__(self, most: int, usage: OwnUsage) -> None:
        self._most = most
        self._usage = usage
        self._places: dict[str, _Place] = {}
        self._networks: dict[str, OrderedDict[str, None]] = {}
        """By network, the uploads in the order of their last use."""
        self.held_bytes = 0
        """Bytes of all uploads here."""

    def __contains__(self, upload: str) -> bool:
        return upload in self._places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def is_full(self) -> bool:
        return len(self._places) >= self._usage.room_for(self._most)

    def use(self, upload: str, size_bytes: int, now_s: float, network: str | None = None) -> None:
        """Record that an upload is used now and how many bytes it has. Without a `network` it stays in its own."""
        place = self._places.get(upload)
        if place is None:
            place = self._places[upload] = _Place(network or UNKNOWN_NETWORK, 0, now_s)
        elif network is not None and place.network != network:
            self._leave_network(upload, place.network)
            place.network = network
        place.used_s = now_s
        self.resize(upload, size_bytes)
        uploads = self._networks.setdefault(place.network, OrderedDict())
        uploads[upload] = None
        uploads.move_to_end(upload)

    def resize(self, upload: str, size_bytes: int) -> None:
        """Record how many bytes an upload has, which is no use of it."""
        place = self._places[upload]
        self.held_bytes += size_bytes - place.size_bytes
        place.size_bytes = size_bytes
        self._usage.set_uploads(len(self._places), self.held_bytes)

    def drop(self, upload: str) -> None:
        """Free the place of an upload that has ended. It may have none."""
        place = self._places.pop(upload, None)
        if place is not None:
            self.held_bytes -= place.size_bytes
            self._leave_network(upload, place.network)
            self._usage.set_uploads(len(self._places), self.held_bytes)

    def recount(self, sizes: Mapping[str, int], now_s: float) -> None:
        """Correct the table: `sizes` has every upload with its bytes, those that are new here least recently used
        first."""
        for upload in self._places.keys() - sizes.keys():
            self.drop(upload)
        for upload, size_bytes in sizes.items():
            if upload in self._places:
                self.resize(upload, size_bytes)
            else:
                self.use(upload, size_bytes, now_s)

    def next_to_preempt(self, now_s: float, may_be_preempted: Callable[[str, float], bool]) -> str | None:
        """Return the upload to preempt next, or None. `may_be_preempted` takes an upload and for how many seconds it
        has been idle."""
        for least_idle_s in (IDLE_AFTER_S, 0.0):
            for upload, idle_s in self._in_order(now_s, least_idle_s):
                if may_be_preempted(upload, idle_s):
                    return upload
        return None

    def _in_order(self, now_s: float, least_idle_s: float) -> Iterator[tuple[str, float]]:
        for uploads in sorted(self._networks.values(), key=len, reverse=True):
            for upload in uploads:
                idle_s = now_s - self._places[upload].used_s
                if idle_s < least_idle_s:
                    break
                yield upload, idle_s

    def _leave_network(self, upload: str, network: str) -> None:
        uploads = self._networks[network]
        del uploads[upload]
        if not uploads:
            del self._networks[network]
