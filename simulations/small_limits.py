"""Large things, made small: what the registry does differently from some size on, it does here from a few bytes on.

The constants are patched from outside for the time of a run. So changes are announced and bodies deposited, documents
compacted, content streamed and transfers resumed in its middle, catching up goes by pages, and audits come due.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import crdt.catchup as catchup
import crdt.trie as trie
import registry.catalog.documents as documents
import registry.catalog.manifest_walk as manifest_walk
import registry.catalog.referrers as few_referrers
import registry.catalog.replica as replica
import registry.catalog.repository as repository
import registry.catalog.view as view
import registry.cluster.placement.garbage_collection as collect
import registry.cluster.placement.replicator as copies
import registry.cluster.replication.anti_entropy as anti_entropy
import registry.cluster.replication.frame_sender as frame_sender
import registry.cluster.transfer.blob_reader as contents
import registry.cluster.transfer.range_fetch as range_fetch
import registry.cluster.transfer.range_reader as range_reader
import registry.cluster.transfer.scrubber as scrub
import registry.cluster.transfer.transfer as fetch
import registry.event_loop.steps as steps
import registry.http.oci.referrers as referrers
import registry.http.oci.tags as tags
import registry.http.peer.procedures as procedures
import registry.http.wire.fast_path as direct
import registry.instance as instance
import registry.storage.checked as checked
import registry.storage.checks as checks
import registry.storage.ingest as ingest
import registry.storage.quarantine as quarantine
import registry.storage.store as store
import registry.storage.upload_hashes as upload_hashes
import registry.storage.upload_memory as upload_memory

SPANS = (checks, checked, quarantine, scrub, fetch, range_fetch, range_reader)
SMALL_LIMITS: tuple[tuple[Any, str, float], ...] = (
    *((module, "CHECK_SPAN_BYTES", 128) for module in SPANS),
    (contents, "WHOLE_BYTES", 40),
    (store, "READ_BYTES", 128),
    (upload_hashes, "STEP_BYTES", 128),
    (upload_memory, "MAX_BYTES", 100),
    (fetch, "READ_BYTES", 128),
    (ingest, "PIECE_BYTES", 256),
    (direct, "MAX_BODY_BYTES", 40),
    (frame_sender, "MAX_DELTA_BYTES", 620),
    (frame_sender, "MAX_NEEDS", 4),
    (frame_sender, "BODY_ROOM_BYTES", 565),
    *((module, "ROWS_PER_STEP", 1) for module in (steps, view, documents, repository, manifest_walk)),
    (documents, "HASHES_A_STEP", 2),
    (trie, "STEP_ENTRIES", 1),
    (replica, "SNAPSHOT_AFTER_COUNT", 8),
    (replica, "SNAPSHOT_AFTER_BYTES", 4096),
    (replica, "CHANGES_PER_ANSWER", 2),
    (replica, "LOADED_DOCUMENTS", 1),
    (catchup, "DIFFS_PER_REQUEST", 2),
    (catchup, "NAMES_PER_REQUEST", 1),
    (procedures, "MAX_DIFFS_BYTES", 700),
    (anti_entropy, "AUDIT_INTERVAL_S", 2.0),
    (instance, "MAINTENANCE_INTERVAL_S", 2.0),
    (instance, "SWEEP_INTERVAL_S", 3.0),
    (collect, "BATCH", 2),
    (collect, "PAGE", 2),
    (copies, "PAGE", 2),
    (tags, "PAGE", 2),
    (referrers, "PAGE_BYTES", 1),
    (few_referrers, "FEW", 1),
)
"""Modules, constants, and what they are in a run of small sizes."""


@contextlib.contextmanager
def small_limits(small: bool) -> Iterator[None]:
    """The sizes of a run."""
    with contextlib.ExitStack() as stack:
        for module, name, value in SMALL_LIMITS if small else ():
            stack.enter_context(patch.object(module, name, value))
        yield
