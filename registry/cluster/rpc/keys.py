"""The keys derived from one cluster secret: one for each use, so that a MAC made for one use is invalid in another."""

from blake3 import blake3

from crdt.frame import FrameKey


class ClusterKey:
    """The keys derived from one secret (BLAKE3 in its key derivation mode)."""

    def __init__(self, secret: str) -> None:
        self.cluster = _derived(secret, "concord 2026 cluster name")[:8].hex()
        """The cluster's name on the wire and on the bus."""
        self.frames = FrameKey(bytes.fromhex(self.cluster), _derived(secret, "concord 2026 frames"))
        self.sessions = _derived(secret, "concord 2026 peer sessions")
        self.bundles = _derived(secret, "concord 2026 bundles")
        self.uploads = _derived(secret, "concord 2026 upload ids")
        self.tokens = _derived(secret, "concord 2026 access tokens")


def _derived(secret: str, context: str) -> bytes:
    return blake3(secret.encode(), derive_key_context=context).digest()
