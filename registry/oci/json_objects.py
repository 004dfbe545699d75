"""JSON objects whose keys mean the same to every reader.

Readers disagree on two kinds of objects. Go matches keys without case, and the last one wins; others match exactly. And
of a key that is there twice, some take the first, some the last. An image with `Layers` beside `layers` would be
checked, copied and collected by one list and pulled by the other. So both kinds are refused where a key is known.

msgspec skips values at memory speed and returns each as a slice of the body, but does not report a repeated key. The
members are therefore walked once more: where the bytes after a key are not its value, or bytes remain after the last
member, a key is there twice.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from registry.errors import ManifestInvalid

MAX_MEMBERS = 1000
"""Bound on the members of one object that are walked, in a few milliseconds. No format has nearly as many."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])
_string = msgspec.json.Decoder(str)
_KEY = re.compile(rb'[ \t\r\n,{]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\r\n]*:[ \t\r\n]*')
_END = re.compile(rb"[ \t\r\n{]*\}[ \t\r\n]*\Z")


class AmbiguousKeys(ManifestInvalid):
    """An object with a key twice, or with one that differs from a known key by case alone."""


class KnownKeys:
    """The keys of one kind of object. Other keys are free, as long as they are not these in another case."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._exact = frozenset(keys)
        self._folded = {key.casefold(): key for key in self._exact}

    def members_of(self, place: str, body: bytes) -> Mapping[str, bytes]:
        """Return the members of an object, which is valid JSON, with their values as they stand.

        Raises AmbiguousKeys, which names the `place`.
        """
        values = _members.decode(body)
        if len(values) > MAX_MEMBERS:
            raise ManifestInvalid(f"an object of the manifest has more than {MAX_MEMBERS} keys", {"in": place})
        for key in values.keys() - self._exact:
            known = self._folded.get(key.casefold())
            if known is not None:
                raise AmbiguousKeys(
                    f'the manifest has the key "{key}" in place of or beside "{known}", and readers that ignore case '
                    "would take it for that; write known keys in their own case",
                    {"in": place, "key": key, "known": known},
                )
        found = {key: bytes(value) for key, value in values.items()}
        repeated = _repeated_key(body, found)
        if repeated is not None:
            raise AmbiguousKeys(
                f'the manifest has the key "{repeated[:100]}" twice in one object, and readers would take different '
                "ones; write each key once",
                {"in": place, "key": repeated[:200]},
            )
        return found


def elements_of(body: bytes) -> list[bytes]:
    """Return the elements of an array, which is valid JSON, as they stand."""
    return [bytes(element) for element in _elements.decode(body)]


def _repeated_key(body: bytes, values: Mapping[str, bytes]) -> str | None:
    """Return a key that an object has twice, or None. `values` has the last value of each."""
    at, count, key = 0, 0, ""
    while (found := _KEY.match(body, at)) is not None:
        key = _string.decode(found[1])
        count += 1
        if count > len(values) or not body.startswith(values[key], found.end()):
            return key
        at = found.end() + len(values[key])
    # A number that begins with the digits of a later one under the same key leaves some of its own behind.
    return None if count == len(values) and _END.match(body, at) else key
