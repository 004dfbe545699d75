"""When instances that leave ask for the last time who else holds what they do."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from unittest.mock import patch

from registry.cluster.membership.decommission import Decommission
from registry.oci.names import Digest
from simulations.life import LIFE, without_request


@contextlib.contextmanager
def watched(told: Callable[[str, str, float], None]) -> Iterator[None]:
    """Tell of every content that is asked for: the instance that leaves, the digest, and when."""
    original = Decommission._is_kept

    async def asking(self: Decommission, digest: Digest) -> bool:
        begun_s, life = asyncio.get_running_loop().time(), LIFE.get()
        if life is not None:
            without_request(lambda: told(life.name, digest, begun_s))
        return await original(self, digest)

    with patch.object(Decommission, "_is_kept", asking):
        yield
