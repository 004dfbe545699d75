"""Reading manifests that are stored, or come from other instances: what collection has to keep for them.

A push refuses a manifest whose keys readers take differently, see `manifest`. One may be here all the same, from an
instance that did not. Every reader's reading is followed then: all values under a known key, in any case and however
often, so that collection keeps whatever any client pulls.
"""

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from registry.errors import ManifestInvalid
from registry.event_loop.steps import Steps, run_to_completion
from registry.oci.manifest import MANIFESTS, Descriptor, Manifest, read_pushed
from registry.oci.names import Digest, is_digest

UNREADABLE = "?"
"""Stands for the parts of a manifest that cannot be read: it may refer to anything."""


class _Object(list[tuple[str, Any]]):
    """The members of a JSON object, in order, repeated ones too."""


class _Unreadable(Exception):
    """A value has a shape that no known version gives it."""


def read_stored(body: bytes, media_type: str | None) -> Steps[Manifest]:
    """Read a body in bounded steps. One that this version cannot read has an unreadable part."""
    try:
        return (yield from read_pushed(body, media_type))
    except ManifestInvalid:
        try:
            return _every_reading(body, media_type or "")
        except (_Unreadable, ValueError, RecursionError):
            return Manifest(media_type or "", (Descriptor(Digest(UNREADABLE), 0, False),), (), None, None, None)


def read_stored_in_one_piece(body: bytes, media_type: str | None) -> Manifest:
    return run_to_completion(read_stored(body, media_type))


def _every_reading(body: bytes, media_type: str) -> Manifest:
    """Return the parts of all readings of a body with ambiguous keys.

    Raises _Unreadable, ValueError or RecursionError.
    """
    content = json.loads(body, object_pairs_hook=_Object)
    if media_type not in MANIFESTS or not isinstance(content, _Object):
        raise _Unreadable
    if any(version != 2 for version in _values(content, "schemaVersion")):
        raise _Unreadable
    blobs = [_descriptor(value) for value in _values(content, "config") if value is not None]
    blobs += [_descriptor(layer) for layers in _values(content, "layers") for layer in _listed(layers)]
    children: list[tuple[Descriptor, ...]] = []
    for entry in (entry for entries in _values(content, "manifests") for entry in _listed(entries)):
        types = list(_values(entry, "mediaType"))
        parts = _descriptor(entry)
        if not types or any(not given or given in MANIFESTS for given in types):
            children.append(parts)
        if any(given and given not in MANIFESTS for given in types):
            blobs.append(parts)
    subject = [part.digest for value in _values(content, "subject") if value is not None for part in _descriptor(value)]
    kind = [value for value in _values(content, "artifactType") if isinstance(value, str) and value]
    return Manifest(
        media_type,
        tuple(part for parts in blobs for part in parts),
        tuple(part for parts in children for part in parts),
        subject[-1] if subject else None,
        kind[-1] if kind else None,
        _annotations(content),
    )


def _values(content: Any, key: str) -> Iterator[Any]:
    """Yield every value under a key, in whatever case it is written. Raises _Unreadable for what is no object."""
    if not isinstance(content, _Object):
        raise _Unreadable
    return (value for name, value in content if name.casefold() == key.casefold())


def _listed(value: Any) -> list[Any]:
    if value is not None and (not isinstance(value, list) or isinstance(value, _Object)):
        raise _Unreadable
    return value or []


def _descriptor(descriptor: Any) -> tuple[Descriptor, ...]:
    """The parts that one descriptor may mean: mostly one. Raises _Unreadable for one without a digest."""
    digests = list(_values(descriptor, "digest"))
    if not digests or not all(isinstance(digest, str) and is_digest(digest) for digest in digests):
        raise _Unreadable
    return tuple(Descriptor(Digest(digest), 0, True) for digest in digests)


def _annotations(content: _Object) -> bytes | None:
    found = [value for value in _values(content, "annotations") if isinstance(value, _Object)]
    texts = {key: value for key, value in found[-1] if isinstance(value, str)} if found else {}
    return msgspec.json.encode(texts) if texts else None
