"""The packet simulator: decides what happens to each message between two places.

A place is an instance, a Redis server or a client. The simulator draws latency, loss, duplication, resets and changed
bits from the seed, and swallows everything on a link that is blocked, as TigerBeetle's packet simulator does. The
network (`network`) and the bus (`bus`) ask it about every message.
"""

import random

JITTER_S = 0.002


class PacketSimulator:
    """The condition of every link between two places."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.base_latency_s = 0.001
        self.jitter_s = JITTER_S
        self.loss = 0.0
        self.duplication = 0.0
        self.resets = 0.0
        self.body_resets = 0.0
        self.changes = 0.0
        """Of answers between instances that have MACs."""
        self.lost_answers = 0.0
        """Of requests whose work was done."""
        self.flips = 0.0
        """Of pieces of content on their way between instances. What else they say has MACs."""
        self.slow: dict[str, float] = {}
        """Extra seconds to and from a place."""
        self.site_of: dict[str, str] = {}
        self.between_sites_s = 0.0
        self._blocked: set[tuple[str, str]] = set()
        self.fired: dict[str, int] = {}

    def block(self, source: str, target: str) -> None:
        """Swallow everything from one place to another."""
        self._blocked.add((source, target))

    def unblock(self, source: str, target: str) -> None:
        self._blocked.discard((source, target))

    def clear(self) -> None:
        """Repair every link."""
        self._blocked.clear()
        self.slow.clear()
        self.loss = self.duplication = self.resets = self.body_resets = self.flips = 0.0
        self.changes = self.lost_answers = 0.0
        self.jitter_s = JITTER_S

    @property
    def is_clear(self) -> bool:
        """True while no message is lost, late, doubled or changed."""
        rates = (self.loss, self.duplication, self.resets, self.body_resets, self.lost_answers)
        changed = self.changes or self.flips or self.jitter_s != JITTER_S
        return not (any(rates) or changed or self._blocked or self.slow)

    def is_blocked(self, source: str, target: str) -> bool:
        blocked = (source, target) in self._blocked
        if blocked:
            self.count("partition")
        return blocked

    def latency_s(self, source: str, target: str) -> float:
        extra = (self.slow.get(source, 0.0) + self.slow.get(target, 0.0)) * self._rng.random() if self.slow else 0.0
        if extra:
            self.count("slow place")
        if self.between_sites_s:
            one, other = self.site_of.get(source), self.site_of.get(target)
            extra += self.between_sites_s if one is not None and other is not None and one != other else 0.0
        return self.base_latency_s + self._rng.random() * self.jitter_s + extra

    def flipped(self, data: bytes) -> bytes:
        """The same bytes but for a bit."""
        bit = self._rng.randrange(8 * len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    def strikes(self, kind: str, probability: float) -> bool:
        """Draw whether a fault of that probability strikes now, and count it if so."""
        struck = probability > 0 and self._rng.random() < probability
        if struck:
            self.count(kind)
        return struck

    def count(self, kind: str) -> None:
        self.fired[kind] = self.fired.get(kind, 0) + 1
