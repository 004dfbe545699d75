"""Hashes of passwords that cost next to nothing: Argon2id with its lowest parameters.

A hash takes 60 ms of a core on purpose, as long as many requests of a simulated run. Only the parameters are others;
the functions and the format are the product's.
"""

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

from argon2 import PasswordHasher

from registry.access import passwords
from registry.http.access import password_checks

_CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, hash_len=16, salt_len=16)
_DUMMY = password_checks._DUMMY._replace(secret=_CHEAP.hash("the password of no account", salt=bytes(16)))


@contextlib.contextmanager
def cheap_hashes() -> Iterator[None]:
    """Hash and verify passwords at the lowest cost."""
    with patch.object(passwords, "_hasher", _CHEAP), patch.object(password_checks, "_DUMMY", _DUMMY):
        yield
