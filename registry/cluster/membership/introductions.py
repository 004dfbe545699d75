"""Handshakes with members that another member names, sent at once.

Two instances that have never met do not wait for each other's acknowledgements, so one site is one registry only among
members that know each other. A newcomer therefore meets all members that the members it has met name, before it answers
clients. The holder of a read lease meets the newcomers that its granter names, before it uses the lease.
"""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from registry.cluster.membership.members import Member, Members

MAX_PENDING = 100
"""Handshakes under way. Further addresses wait for the rounds of discovery."""


class SendHandshake(Protocol):
    """Introduces this instance at an address. Bounds its own time, and raises nothing."""

    async def __call__(self, url: str, to: Member | None = None) -> None:
        """`to` is the member that is expected to answer, if there is one."""


class Introductions:
    """The handshakes that one process has under way."""

    def __init__(self, members: Members, own_url: str, send_handshake: SendHandshake) -> None:
        self._members = members
        self._own_url = own_url
        self._send_handshake = send_handshake
        self._pending: dict[str, asyncio.Task[None]] = {}
        self._met: set[str] = set()
        """Addresses to which a handshake was sent. Later attempts are for the rounds of discovery."""

    @property
    def pending(self) -> bool:
        return bool(self._pending)

    def hear_of(self, urls: Iterable[str]) -> None:
        """Send a handshake to addresses that are new here."""
        known = {self._own_url, "", *(self._members.url(member) for member in self._members.live())}
        for url in urls:
            if url not in known and url not in self._met and len(self._pending) < MAX_PENDING:
                self._met.add(url)
                task = self._pending[url] = asyncio.create_task(self._send_handshake(url))
                task.add_done_callback(partial(self._ended, url))

    async def meet(self, urls: Iterable[str]) -> None:
        """Send a handshake to addresses that are new here, and wait for the answers."""
        self.hear_of(urls)
        if self._pending:
            await asyncio.wait(self._pending.values())

    def _ended(self, url: str, task: "asyncio.Task[None]") -> None:
        del self._pending[url]

    def close(self) -> None:
        for task in self._pending.values():
            task.cancel()
