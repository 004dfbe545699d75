"""The bus of an instance without Redis."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator


class SilentBus:
    """A bus that delivers nothing."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()

    def publish(self, frame: bytes, site: str | None = None, cluster: str | None = None) -> None:
        pass

    def servers(self) -> dict[str, bool]:
        return {}

    async def listen(self) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""
