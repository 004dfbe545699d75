"""The longest time for which the event loop does not turn: what one piece of work costs all others."""

import asyncio
import time


class Turns:
    """Measure the longest turn of the running loop, in processor time of its thread: load on the machine does not
    count. `async with Turns() as turns: ...; assert turns.longest_s < …`."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.count = 0

    async def __aenter__(self) -> "Turns":
        self._watching = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.sleep(0)
        self._watching.cancel()

    async def _watch(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest_s, last = max(self.longest_s, now - last), now
            self.count += 1
