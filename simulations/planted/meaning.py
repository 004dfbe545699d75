"""Bugs in what pushes, deletes and lists mean."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import registry.catalog.incoming as incoming
import registry.catalog.queries as queries
import registry.catalog.repository as repository
import registry.http.oci.blobs as blobs
import registry.http.oci.tags as tags
import registry.http.oci.uploads as uploads
from crdt.clock import HybridClock
from crdt.delta import decode_delta
from registry.catalog.winner import winner_first
from registry.cluster.node import Cluster
from registry.cluster.replication import anti_entropy
from registry.cluster.replication.heartbeat_reactions import HeartbeatReactions
from registry.event_loop.steps import Steps
from registry.http.wire.fast_path import FastPath
from registry.oci.manifest import Manifest
from simulations.planted.bug import Bug, nothing, nothing_async, together


def delete_of_the_winner_alone() -> Bug:
    """A delete ends the winning fact, and leaves those it won over."""
    observed = repository._observed_in
    return patch.object(repository, "_observed_in", lambda *arguments: observed(*arguments)[:1])


def delete_without_asking() -> Bug:
    return patch.object(Cluster, "sync_before_delete", nothing_async)


def answers_kept_for_ever() -> Bug:
    """A cached answer is given again, whatever has happened to the repository."""
    return patch.object(FastPath, "_is_current", lambda self, kept: True)


def miss_without_asking() -> Bug:
    """Nor does a heartbeat that tells of more lead to a question, and rounds of anti-entropy are rare."""
    return together(
        patch.object(Cluster, "read_repair", nothing_async),
        patch.object(HeartbeatReactions, "_catch_up_if_missing", nothing),
        patch.object(HeartbeatReactions, "_catch_up_at_once", nothing),
        patch.object(anti_entropy, "ROUND_INTERVAL_S", 30.0),
    )


def push_of_the_tag_alone() -> Bug:
    """A push says its tag and manifest, and not again what they stand on."""

    def silent(self: Any, time: int, writer: int, without: Any) -> Steps[list[Any]]:
        yield from ()
        self.facts = [fact for fact in self.facts if fact.kind == "t" or fact.key == without]
        return []

    return patch.object(repository._Observed, "repeated", silent)


def push_beside_the_older() -> Bug:
    """A push does not end the older facts of its tag."""
    repeated = repository._Observed.repeated

    def keeping(self: Any, *arguments: Any, **named: Any) -> Any:
        self.facts = [fact for fact in self.facts if fact.kind != "t"]
        return repeated(self, *arguments, **named)

    return patch.object(repository._Observed, "repeated", keeping)


def lowest_time_wins() -> Bug:
    turned = queries._BY_TAG.replace(winner_first("t"), "t.time, t.writer")
    return patch.object(queries, "_BY_TAG", turned)


def any_clock_followed() -> Bug:
    def follow(self: HybridClock, remote: int, now_ms: int) -> None:
        self.last = max(self.last, remote)

    return patch.object(HybridClock, "observe", follow)


def wall_clock_alone() -> Bug:
    """Stamps are wall times, whatever was seen."""
    return together(
        patch.object(HybridClock, "tick", lambda self, now_ms: now_ms << 16),
        patch.object(HybridClock, "observe", nothing),
    )


def delete_not_waited_for() -> Bug:
    await_acknowledgements = Cluster.await_acknowledgements

    async def hasty(self: Cluster, change: Any) -> None:
        if decode_delta(change.delta).added:
            await await_acknowledgements(self, change)

    return patch.object(Cluster, "await_acknowledgements", hasty)


def mount_not_waited_for() -> Bug:
    mount = blobs.mount_blob

    async def hasty(context: Any, *arguments: Any) -> Any:
        with patch.object(context.replication, "await_acknowledgements", nothing_async):
            return await mount(context, *arguments)

    return patch.object(uploads, "mount_blob", hasty)


def list_without_its_last() -> Bug:
    listed = tags._listed

    def short(request: Any, path: str, head: Any, key: str, page: Callable[[str, int], list[str]]) -> Any:
        return listed(request, path, head, key, lambda after, limit: page(after, limit)[:-1])

    return patch.object(tags, "_listed", short)


def referrers_lost() -> Bug:
    """The subjects of manifests that came from elsewhere are forgotten."""

    def read_stored(body: bytes, media_type: str) -> Steps[Manifest]:
        yield from ()
        return Manifest(media_type, (), (), None, None, None)

    return patch.object(incoming, "read_stored", read_stored)
