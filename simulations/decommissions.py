"""The last time at which a decommissioning instance asks which others hold its content."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from unittest.mock import patch

from registry.cluster.membership.content_handover import ContentHandover
from registry.oci.names import Digest
from simulations.process import PROCESS, outside_processes


@contextlib.contextmanager
def watched(told: Callable[[str, str, float], None]) -> Iterator[None]:
    """Report every content that is asked for: the instance that leaves, the digest, and when."""
    original = ContentHandover._is_kept

    async def asking(self: ContentHandover, digest: Digest) -> bool:
        begun_s, process = asyncio.get_running_loop().time(), PROCESS.get()
        if process is not None:
            outside_processes(lambda: told(process.name, digest, begun_s))
        return await original(self, digest)

    with patch.object(ContentHandover, "_is_kept", asking):
        yield
