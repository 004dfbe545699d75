"""The grammar of repositories, tags and digests (OCI distribution specification, "Pulling manifests").

Expressions are anchored at the very end, so that a trailing newline is no part of any name; digests have the exact
length of their algorithm.
"""

import hashlib
import re
from typing import NewType

from registry.errors import DigestInvalid, ManifestInvalid, NameInvalid

Repository = NewType("Repository", str)
Tag = NewType("Tag", str)
Digest = NewType("Digest", str)

MAX_REPOSITORY_LENGTH = 255
ALGORITHMS = {"sha256": 64, "sha512": 128}

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")


def parse_repository(text: str) -> Repository:
    """Return a repository name. Raises NameInvalid."""
    if len(text) > MAX_REPOSITORY_LENGTH or not _REPOSITORY.match(text):
        raise NameInvalid("this is no valid repository name", {"name": text[:MAX_REPOSITORY_LENGTH]})
    return Repository(text)


def parse_digest(text: str) -> Digest:
    """Return a digest. Raises DigestInvalid."""
    if not _DIGEST.match(text):
        raise DigestInvalid("this is no valid sha256 or sha512 digest", {"digest": text[:200]})
    return Digest(text)


def parse_tag(text: str) -> Tag:
    """Return a tag. Raises ManifestInvalid."""
    if not _TAG.match(text):
        raise ManifestInvalid("this is no valid tag", {"tag": text[:200]})
    return Tag(text)


def is_digest(text: str) -> bool:
    return _DIGEST.match(text) is not None


def is_tag(text: str) -> bool:
    return _TAG.match(text) is not None


def algorithm_of(digest: Digest) -> str:
    return digest.partition(":")[0]


def digest_of(content: bytes, algorithm: str = "sha256") -> Digest:
    """Return the digest of bytes in memory."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")
