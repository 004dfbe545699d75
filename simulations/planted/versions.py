"""Bugs in what an instance does that does not understand a later version."""

from typing import Any
from unittest.mock import patch

import crdt.frame
import registry.catalog.documents as documents_module
import registry.http.oci.read_only as reading_module
import registry.http.oci.routes as routes_module
import registry.http.wire.fast_path as direct_module
from registry.catalog import view
from registry.catalog.understanding import Understanding
from simulations.planted.bug import Bug, nothing, together


def critical_flag_ignored() -> Bug:
    """Critical facts that are not understood count as those that may be ignored."""
    return patch.object(view, "CRITICAL", "no kind")


def critical_field_accepted() -> Bug:
    """A frame is applied though its header has a critical field that is unknown."""
    return patch.object(crdt.frame, "require_understood", nothing)


def kept_answers_given_again() -> Bug:
    """The fast path answers from its cache, and from rows, as if everything were understood."""
    sql = "SELECT changed FROM documents WHERE name = ?"
    return together(
        patch.object(direct_module, "_CHANGED", sql), patch.object(direct_module, "blocking_all", lambda source: None)
    )


def workers_serve_all() -> Bug:
    """Workers send blobs of repositories that are not understood."""
    return patch.object(reading_module, "require_understood", nothing)


def routes_serve_all() -> Bug:
    """The primary answers what does not come by the fast path, and writes."""
    return together(
        patch.object(routes_module, "require_understood", nothing),
        patch.object(documents_module, "require_understood", nothing),
    )


def facts_not_read_again() -> Bug:
    """A version that understands more goes on with the rows of the one before."""

    def always(self: Understanding, source: Any) -> bool:
        return True

    return patch.object(Understanding, "is_current", always)
