"""Keys of robots: random, shown once, stored as a hash.

A key holds 160 random bits, so that a fast hash protects it as well as a slow one protects a password. The prefix lets
scanners of sources find leaked keys; the checksum tells a mistyped key, or a password, from a key at once, without a
look at any account. A key holds no character that a shell or a URL interprets.
"""

from base64 import b32encode

from blake3 import blake3

PREFIX = "concord_"
RANDOM_SIZE = 20
_CHECKSUM_SIZE = 5
_CHARACTERS = len(PREFIX) + 32 + 8


def new_key(random: bytes) -> tuple[str, str]:
    """Return a new key and the hash by which it is stored. `random` are RANDOM_SIZE unpredictable bytes."""
    if len(random) != RANDOM_SIZE:
        raise ValueError(f"a key is made of {RANDOM_SIZE} random bytes")
    body = PREFIX + _text(random)
    text = body + _checksum(body)
    return text, key_hash(text)


def is_key(text: str) -> bool:
    """Return whether a text has the form of a key, its checksum included."""
    if len(text) != _CHARACTERS or not text.startswith(PREFIX) or not text.isascii():
        return False
    return _checksum(text[:-8]) == text[-8:]


def key_hash(text: str) -> str:
    """Return the hash by which a key is stored."""
    return blake3(text.encode(), derive_key_context="concord 2026 robot keys").hexdigest()


def _checksum(body: str) -> str:
    return _text(blake3(body.encode(), derive_key_context="concord 2026 checksum of keys").digest(_CHECKSUM_SIZE))


def _text(data: bytes) -> str:
    return b32encode(data).decode().lower()
