"""The keys derived from one cluster secret: one for each use, so that a MAC made for one use is invalid in another."""

from collections.abc import Sequence

from blake3 import blake3

from crdt.frame import FrameKey


class ClusterKey:
    """The keys derived from one secret (BLAKE3 in its key derivation mode)."""

    def __init__(self, secret: str) -> None:
        self.cluster = _derived(secret, "concord 2026 cluster name")[:8].hex()
        """The cluster's name on the wire and on the bus."""
        self.frames = FrameKey(bytes.fromhex(self.cluster), _derived(secret, "concord 2026 frames"))
        enforcing = _derived(secret, "concord 2026 cluster name while access control is enforced")[:8]
        self.enforcing_frames = FrameKey(enforcing, _derived(secret, "concord 2026 frames of enforcing instances"))
        """For frames while access control is enforced: a version that does not know of it hears none of them."""
        self.sessions = _derived(secret, "concord 2026 peer sessions")
        self.bundles = _derived(secret, "concord 2026 bundles")
        self.uploads = _derived(secret, "concord 2026 upload ids")
        self.tokens = _derived(secret, "concord 2026 access tokens")

    @property
    def frame_keys(self) -> tuple[FrameKey, FrameKey]:
        """The keys of frames, whether access control is enforced or not."""
        return self.frames, self.enforcing_frames


def channels(keys: Sequence[ClusterKey]) -> list[str]:
    """Return the names of the channels that an instance listens to, the one it publishes on at first in front."""
    return [frames.cluster.hex() for key in keys for frames in key.frame_keys]


def _derived(secret: str, context: str) -> bytes:
    return blake3(secret.encode(), derive_key_context=context).digest()
