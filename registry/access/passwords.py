"""Hashes of passwords: Argon2id with 19 MiB and two passes (OWASP, "Password Storage Cheat Sheet").

One hash takes some 60 ms of one core on purpose. So it is computed in a thread, and few at once
(`http.access.password_checks`).
"""

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

MIN_PASSWORD_CHARACTERS = 8
"""For new passwords. Those that are there are verified whatever their length."""
MAX_CHARACTERS = 1024
SALT_SIZE = 16
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, salt_len=SALT_SIZE)


def hash_password(password: str, salt: bytes | None = None) -> str:
    """Return the hash of a password, with its parameters, in PHC's string format. `salt` are SALT_SIZE unpredictable
    bytes, which the library draws where they are left out."""
    return _hasher.hash(password, salt=salt)


def verify_password(hashed: str, password: str) -> bool:
    """Return whether a password has a hash. What is no hash matches no password."""
    try:
        return _hasher.verify(hashed, password)
    except (Argon2Error, InvalidHashError):
        return False


DUMMY_HASH = "$argon2id$v=19$m=19456,t=2,p=1$Y29uY29yZC1kdW1teS0tLQ$ewKoMBpXCApUzCpP6fG3ZAoD/nhzkRxusBxVuqCaTbo"
"""A hash of no known password. It is verified for accounts that do not exist, so that these take the same time."""
