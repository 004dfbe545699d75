import asyncio
from types import SimpleNamespace

import pytest

from registry.cluster.membership.members import Members
from registry.cluster.rpc.client import PeerClient
from registry.cluster.rpc.sessions import Session
from tests.cluster.membership.test_members import OTHER, OWN, THIRD
from tests.support.stand_ins import RecordedMembership

pytestmark = pytest.mark.slow


class SlowToOpen(PeerClient):
    """Opens sessions when it is let."""

    def __init__(self, members):
        super().__init__(
            transport=None, members=members, clock=None, keys=[], access=SimpleNamespace(is_enforced=False)
        )
        self.let_open = asyncio.Event()
        self.opened = []

    async def _open(self, url, instance):
        client = self._members.own_instance
        await self.let_open.wait()
        self.opened.append(client)
        return Session("", client, instance, 1, b"", 0)


async def test_sessions_of_an_instance_that_goes_on_under_another_id_name_that_id():
    """An instance was removed while it opened a session, and went on under another id. It signed an hour of requests
    under the id that was gone: it got no read lease, and refused all reads."""
    members = Members(OWN, "eu", RecordedMembership())
    peers = SlowToOpen(members)
    opening = asyncio.create_task(peers._session("http://b", OTHER))
    await asyncio.sleep(0)
    members.own_instance = THIRD
    peers.let_open.set()
    assert (await opening).client == THIRD
    assert (await peers._session("http://b", OTHER)).client == THIRD
    assert peers.opened == [OWN, THIRD]
    members.own_instance = OWN
    assert (await peers._session("http://b", OTHER)).client == OWN
