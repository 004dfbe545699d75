"""Passwords that were verified a short while ago, for all processes of an instance: a table in memory that they share.

A slow hash takes 60 ms of a core, and clients send their password with each login, some with each request. So an
entry stands for a pair of a credential and a password that matched: a MAC over both, and over the stored hash. A
credential that changes has another hash, so its old entry matches nothing any more; whether the credential is in force
is asked of the facts each time. The table is a set-associative cache: a MAC belongs to one bucket of a few entries.
Only the primary writes. A reader that meets an entry half written finds no match.

The MAC's key is derived from the cluster key, and the table is never on a disk.
"""

import mmap
from collections.abc import Callable, Sequence

from blake3 import blake3

from registry.access.rights import Credential

BUCKETS = 2048
WAYS = 8
MAC_SIZE = 16
_BUCKET_BYTES = WAYS * MAC_SIZE


class SharedTable:
    """The memory. Made before the processes are forked."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, BUCKETS * _BUCKET_BYTES)


class VerifiedPasswords:
    """One process' view of the table."""

    def __init__(self, table: SharedTable, keys: Callable[[], Sequence[bytes]]) -> None:
        """`keys` returns the keys of tokens; the first counts."""
        self._memory = table.memory
        self._keys = keys

    def holds(self, credential: Credential, password: str) -> bool:
        """Return whether a password was verified against a credential."""
        mac = self._mac(credential, password)
        bucket = self._bucket(mac)
        return any(self._memory[at : at + MAC_SIZE] == mac for at in range(bucket, bucket + _BUCKET_BYTES, MAC_SIZE))

    def add(self, credential: Credential, password: str) -> None:
        """Note that a password was verified. It takes the place of the entry of its bucket that is the longest there:
        entries move one place down."""
        mac = self._mac(credential, password)
        bucket = self._bucket(mac)
        kept = self._memory[bucket : bucket + _BUCKET_BYTES - MAC_SIZE]
        self._memory[bucket : bucket + _BUCKET_BYTES] = mac + kept

    def _mac(self, credential: Credential, password: str) -> bytes:
        parts = (credential.id, credential.account, credential.secret, password)
        hashed = blake3(key=blake3(self._keys()[0], derive_key_context="concord 2026 verified passwords").digest())
        for part in parts:
            data = part.encode()
            hashed.update(len(data).to_bytes(4) + data)
        return hashed.digest(MAC_SIZE)

    def _bucket(self, mac: bytes) -> int:
        return int.from_bytes(mac[:4]) % BUCKETS * _BUCKET_BYTES
