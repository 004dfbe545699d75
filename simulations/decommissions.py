"""When instances that leave ask for the last time who else holds what they do."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from unittest.mock import patch

from registry.cluster.membership.decommission import Decommission
from registry.oci.names import Digest
from simulations.process import PROCESS, outside_processes


@contextlib.contextmanager
def watched(told: Callable[[str, str, float], None]) -> Iterator[None]:
    """Tell of every content that is asked for: the instance that leaves, the digest, and when."""
    original = Decommission._is_kept

    async def asking(self: Decommission, digest: Digest) -> bool:
        begun_s, process = asyncio.get_running_loop().time(), PROCESS.get()
        if process is not None:
            outside_processes(lambda: told(process.name, digest, begun_s))
        return await original(self, digest)

    with patch.object(Decommission, "_is_kept", asking):
        yield
