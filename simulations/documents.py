"""Documents alone: a few replicas in memory, gossip that is late, lost and doubled, catching up, restarts.

What a replica must show follows from its state vector: every fact that the operations its vector counts have said, less
every fact that they have ended. After each step the replica that was touched is held to that.
"""

import random
from collections.abc import Iterator

from crdt.fact import tag_fact
from crdt.gate import CausalBuffer, requirements
from crdt.vector import Vector
from simulations.checkers import Violation
from simulations.replica import MemoryReplica, bring_together, decoded

NAMES = ("repository/app", "repository/base")
TAGS = ("v1", "v2", "v3", "latest")
LATE_MS = 60

Identity = tuple[int, int]


class Meaning:
    """All operations ever made, and what a state vector means by them."""

    def __init__(self) -> None:
        self._said: dict[str, dict[int, list[tuple[int, Identity, str]]]] = {name: {} for name in NAMES}
        """By writer: the clock and identity of each fact, and the fact."""
        self._ended: dict[str, dict[int, list[tuple[int, Identity]]]] = {name: {} for name in NAMES}
        """By writer: the clock of each operation that ended a fact, and which."""

    def add(self, name: str, raw: bytes) -> None:
        delta = decoded(raw)
        ((writer, (first, length)),) = delta.spans.items()
        said, ended = self._said[name].setdefault(writer, []), self._ended[name].setdefault(writer, [])
        said += ((clock, (writer, clock), text) for _, clock, text in delta.added)
        for owner, ranges in delta.deleted.items():
            for start, count in ranges:
                ended += ((first + length - 1, (owner, clock)) for clock in range(start, start + count))

    def of(self, name: str, vector: Vector) -> dict[Identity, str]:
        """The facts that are live at a state vector."""
        said, ended = self._said[name], self._ended[name]
        gone = {fact for writer, upto in vector.items() for clock, fact in ended.get(writer, ()) if clock < upto}
        return {
            fact: text
            for writer, upto in vector.items()
            for clock, fact, text in said.get(writer, ())
            if clock < upto and fact not in gone
        }


class Site:
    """One replica, with what is on its way to it and what it holds back."""

    def __init__(self, number: int, writers: Iterator[int]) -> None:
        self.number = number
        self._writers = writers
        self.replica = MemoryReplica(next(writers))
        self.gate: CausalBuffer[tuple[str, bytes, Vector]] = CausalBuffer()
        self.arriving: list[tuple[int, str, bytes, Vector]] = []

    def restart(self) -> None:
        """Documents stay; what was held back does not, and the writer is never used again."""
        self.replica.writer = next(self._writers)
        self.gate = CausalBuffer()


class DocumentsRun:
    """One run of `operations` steps. Raises Violation."""

    def __init__(self, seed: int, replicas: int = 3) -> None:
        self._rng = random.Random(f"{seed} documents")
        writers = iter(lambda: self._rng.getrandbits(53), None)
        self.sites = [Site(number, writers) for number in range(replicas)]
        self.meaning = Meaning()
        self._now_ms = 0
        self._said = 0

    def play(self, operations: int) -> None:
        steps = (self._write, self._deliver, self._catch_up, self._restart)
        for _ in range(operations):
            (step,) = self._rng.choices(steps, (40, 50, 4, 1))
            step(self._rng.choice(self.sites))
            self._now_ms += self._rng.randrange(20)
        self._settle()

    # Steps

    def _write(self, site: Site) -> None:
        name, tag = self._rng.choice(NAMES), self._rng.choice(TAGS)
        replica = site.replica
        live = replica.texts(name)
        ended = [text for text in live if text.startswith(f"t\0{tag}\0")]
        said = []
        if self._rng.random() < 0.75 or not ended:
            self._said += 1
            said = [tag_fact(tag, f"sha256:{self._said:064x}", self._said, replica.writer).text()]
        vector = dict(replica.held(name).vector)
        raw = replica.write(name, said, ended)
        self.meaning.add(name, raw)
        self._check(site, name)
        for other in self.sites:
            if other is not site and self._rng.random() < 0.85:
                for _ in range(2 if self._rng.random() < 0.1 else 1):
                    other.arriving.append((self._now_ms + self._rng.randrange(LATE_MS), name, raw, vector))

    def _deliver(self, site: Site) -> None:
        due = [entry for entry in site.arriving if entry[0] <= self._now_ms]
        site.arriving = [entry for entry in site.arriving if entry[0] > self._now_ms]
        for _, name, raw, needs in due:
            self._take_in(site, name, raw, needs)
        site.gate.overdue(self._now_ms)

    def _take_in(self, site: Site, name: str, raw: bytes, needs: Vector) -> None:
        if not site.replica.apply(name, raw, needs):
            required = requirements(decoded(raw), needs)
            site.gate.hold(name, required, (name, raw, needs), len(raw), self._now_ms)
            return
        self._check(site, name)
        for released in site.gate.release(name, site.replica.held(name).vector):
            self._take_in(site, *released)

    def _catch_up(self, site: Site) -> None:
        other = self._rng.choice([one for one in self.sites if one is not site])
        bring_together(site.replica, other.replica)
        for name in NAMES:
            self._check(site, name)
            self._check(other, name)

    def _restart(self, site: Site) -> None:
        site.restart()

    # What must hold

    def _check(self, site: Site, name: str) -> None:
        held = site.replica.held(name)
        if held.facts != self.meaning.of(name, held.vector):
            raise Violation(f"replica {site.number} does not show what its vector of {name} means")

    def _settle(self) -> None:
        for _ in range(2):
            for site in self.sites:
                self._catch_up_all(site)
        for name in NAMES:
            # Vectors may differ by operations that left nothing behind: what is compared is what is live.
            if len({site.replica.state(name).digest for site in self.sites}) > 1:
                raise Violation(f"replicas differ in {name} after catching up")
            for site in self.sites:
                held = site.replica.held(name)
                if sorted(held.document.texts()) != sorted(held.facts.values()):
                    raise Violation(f"the document of {name} at replica {site.number} is not what its updates said")

    def _catch_up_all(self, site: Site) -> None:
        for other in self.sites:
            if other is not site:
                report = bring_together(site.replica, other.replica)
                if report.forked:
                    raise Violation(f"equal vectors and other facts: {report.forked}")


def run_documents(seed: int, operations: int = 300) -> str | None:
    """Play a run of this seed. Return its violation, or None."""
    try:
        DocumentsRun(seed, replicas=2 + seed % 3).play(operations)
    except Violation as violation:
        return f"seed {seed}: {violation}"
    return None
