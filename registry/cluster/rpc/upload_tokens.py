"""Upload ids that name their owner.

An id holds the instance that keeps the upload's bytes, whether bytes had been added when the id was given out, and a
random part, under a MAC that also covers the repository and the account that began the upload. So any instance can pass
a request on to the owner, an upload without bytes whose owner is gone can be adopted, and no client can forge an id.
"""

import hmac
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import NamedTuple

from blake3 import blake3

from registry.errors import BlobUploadUnknown
from registry.oci.names import Repository

_BODY = struct.Struct(">16s17s")
RANDOM_SIZE = 17
_MAC_SIZE = 16


class UploadId(NamedTuple):
    """An upload id, decoded. `name` stays the same for the whole upload."""

    owner: str
    name: str
    has_bytes: bool


def new_upload_name(owner: str, random: bytes) -> str:
    """A name for a new upload; `random` are RANDOM_SIZE bytes."""
    return urlsafe_b64encode(_BODY.pack(bytes.fromhex(owner), random)).decode()


def seal_upload_id(name: str, has_bytes: bool, repository: Repository, key: bytes, account: str = "") -> str:
    """The id to give a client. `account` is the id of its account, or empty."""
    mark = "b" if has_bytes else "e"
    return f"{name}.{mark}{_mac(name, mark, repository, key, account)}"


def open_upload_id(text: str, repository: Repository, keys: Sequence[bytes], account: str = "") -> UploadId:
    """Raises BlobUploadUnknown for what is not an id of this repository that we, or a member, gave out to this
    account."""
    name, _, rest = text.partition(".")
    mark, mac = rest[:1], rest[1:]
    if not any(hmac.compare_digest(mac.encode(), _mac(name, mark, repository, key, account).encode()) for key in keys):
        raise BlobUploadUnknown("there is no such upload")
    return UploadId(owner_of(name), name, mark == "b")


def owner_of(name: str) -> str:
    """Return the instance that an upload's name states. Raises ValueError for what is no such name."""
    try:
        return str(_BODY.unpack(urlsafe_b64decode(name))[0].hex())
    except struct.error as error:
        raise ValueError("no name of an upload") from error


def _mac(name: str, mark: str, repository: Repository, key: bytes, account: str) -> str:
    bound = f"\0{account}" if account else ""
    keyed = blake3(f"{name}.{mark}\0{repository}{bound}".encode(), key=key)
    return keyed.digest(_MAC_SIZE).hex()
