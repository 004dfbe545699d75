import pytest

from registry.cluster.membership.events import MembershipEvents
from registry.cluster.membership.members import Members
from tests.cluster.membership.test_members import OTHER, OWN, beat


@pytest.mark.parametrize("on_bus", [True, False])
async def test_a_heartbeat_before_listeners_are_connected_is_an_error(on_bus):
    """Members that nothing listens to would neither be proved alive nor caught up with, and nothing would say so."""
    members = Members(OWN, "eu", MembershipEvents())
    with pytest.raises(AssertionError, match="listeners are connected before"):
        members.receive_heartbeat(OTHER, beat(), 1, on_bus=on_bus)


def test_listeners_are_connected_once():
    events = MembershipEvents()
    events.connect(heard=(), proof=None, stale=None)
    with pytest.raises(AssertionError):
        events.connect(heard=(), proof=None, stale=None)
