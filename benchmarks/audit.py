"""What finding a few differences costs two instances with a million tags: messages and bytes, which are exact.

    python -m benchmarks.audit --kept DIR

DIR is what `python -m benchmarks.large --keep DIR` has kept. Its catalog is copied, the copy takes another identity and
moves 100 tags in 100 repositories, and the two are brought together: first as strangers, who compare everything, then
as acquaintances, one of whom has moved 100 more. The registry's own protocol and messages, without HTTP.
"""

import argparse
import asyncio
import shutil
import tempfile
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.constants import opened, push
from crdt.catchup import (
    Apply,
    AskChanges,
    AskDiffs,
    AskFingerprints,
    AskNames,
    AskSummaries,
    Diff,
    Report,
    Send,
    Step,
    catch_up,
)
from crdt.delta import decode_delta
from crdt.vector import encode_vector
from registry.catalog.catalog import PATH, Catalog
from registry.catalog.incoming import Incoming
from registry.cluster.rpc import messages as m

MOVED = 100


class Exchange:
    """Steps carried out between two catalogs, and what their messages would have weighed."""

    def __init__(self, here: Catalog, there: Catalog) -> None:
        self._here, self._there = here, there
        self.round_trips = self.bytes = self.update_bytes = self.documents = 0

    async def carry_out(self, steps: Generator[Step, Any, Report]) -> Report:
        answer = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                report: Report = done.value
                return report
            answer = await self._answer(step)

    async def _answer(self, step: Step) -> Any:
        replica = self._there.replica
        match step:
            case AskChanges(since):
                changes = replica.changes(since)
                self._count(m.ChangesRequest(since), m.ChangesResponse(*changes))
                return changes
            case AskSummaries(places):
                summaries = replica.summaries(places)
                self._count(m.SummariesRequest.of(places), m.SummariesResponse.of(summaries))
                return summaries
            case AskNames(keys):
                names = replica.names(keys)
                self._count(m.NamesRequest(keys), m.NamesResponse(names))
                return names
            case AskFingerprints(names):
                prints = [replica.state(name).fingerprint() for name in names]
                self._count(m.FingerprintsRequest(names), m.FingerprintsResponse(prints))
                return prints
            case AskDiffs(vectors):
                diffs = [Diff(*replica.state_and_diff(name, vector)) for name, vector in vectors]
                question = m.DiffsRequest([(name, encode_vector(vector)) for name, vector in vectors])
                self._count(question, m.DiffsResponse([m.DiffResponse.of(*diff) for diff in diffs], {}))
                self.update_bytes += sum(len(diff.update) for diff in diffs)
                self.documents += len(diffs)
                return diffs
            case Apply(updates):
                for document, update in updates:
                    await self._here.take_in(Incoming(document, update, decode_delta(update), {}))
            case Send(updates):
                self._count(m.UpdatesRequest(updates, {}, []), m.UpdatesResponse([]))
                self.update_bytes += sum(len(update) for _, update in updates)
                for document, update in updates:
                    await self._there.take_in(Incoming(document, update, decode_delta(update), {}))
        return None

    def _count(self, question: msgspec.Struct, answer: msgspec.Struct) -> None:
        self.round_trips += 1
        self.bytes += len(msgspec.msgpack.encode(question)) + len(msgspec.msgpack.encode(answer))


async def measure(kept: Path, scratch: Path) -> None:
    one, other = [await opened(_copied(kept, scratch / name)) for name in ("one", "other")]
    await other.rename()
    for how, since in (("strangers, by an audit", None), ("acquaintances", other.replica.commit_number())):
        await _move(other, 0 if since is None else MOVED)
        exchange = Exchange(one, other)
        await exchange.carry_out(catch_up(one.replica, since))
        assert one.replica.root() == other.replica.root(), "they agree"
        print(
            f"{how}: {exchange.round_trips} round trips, {exchange.bytes / 1024:.1f} KiB in all, of which "
            f"{exchange.update_bytes / 1024:.1f} KiB are the updates of {exchange.documents} documents"
        )
    for catalog in (one, other):
        await catalog.stop()


def _copied(kept: Path, to: Path) -> Path:
    to.mkdir()
    for file in (kept / "data").glob(f"{PATH}*"):
        shutil.copy(file, to / file.name)
    return to


async def _move(catalog: Catalog, first: int) -> None:
    """Move one tag in each of some repositories."""
    for number in range(MOVED):
        at = 10_000_000 + first + number
        await catalog.database.write(partial(push, catalog, at, f"r{first + number}"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kept", type=Path, required=True)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="concord-audit-") as scratch:
        asyncio.run(measure(given.kept, Path(scratch)))


if __name__ == "__main__":
    main()
