"""What goes into a frame, what is only announced, and where acknowledgements go."""

import os
from collections import Counter
from types import SimpleNamespace

import pytest

from crdt.change import MAX_DELTA_BYTES, Change, encode_change
from crdt.delta import encode_delta
from crdt.fact import tag_fact
from crdt.frame import CHANGE, MAX_FRAME_BYTES, Frame
from crdt.header import MAX_HEADER_BYTES
from crdt.vector import MAX_CLOCK, MAX_WRITER
from registry.capabilities import OWN
from registry.cluster.membership.incarnation import Incarnation
from registry.cluster.membership.members import Members
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.change_applier import ChangeApplier
from registry.cluster.replication.frame_sender import FrameSender, _fit_to_frame, fits_a_frame
from registry.cluster.replication.recent_frames import RecentFrames
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.messages import Heartbeat
from tests.support.client import sha256
from tests.support.stand_ins import RecordedMembership

ROOM_BYTES = MAX_FRAME_BYTES - MAX_HEADER_BYTES - 200
DELTA = encode_delta(5, 7, [tag_fact("v1", sha256(b"x"), 1, 5).text()], [])


def delta_of(size_bytes):
    """Facts about as many tags as give at least that many bytes."""
    facts = []
    while len(delta := encode_delta(5, 7, facts, [])) < size_bytes:
        facts.append(tag_fact(f"v{len(facts)}", sha256(b"x"), 1, 5).text())
    return delta


def change(delta=DELTA, needs=(), bodies=()):
    return Change("repository/" + "x" * 255, 5, 7, dict(needs), delta, bytes(16), 2**62, tuple(bodies))


def test_a_small_change_is_carried_whole():
    small = change(needs={9: 3}, bodies=[b"{}"])
    assert _fit_to_frame(small) == small
    assert fits_a_frame(small)


def test_a_change_that_has_seen_very_many_writers_is_announced():
    many = change(needs={MAX_WRITER - number: MAX_CLOCK for number in range(20_000)})
    fitted = _fit_to_frame(many)
    assert (fitted.delta, fitted.needs) == (b"", {5: 8})
    assert not fits_a_frame(many)


def test_a_large_change_is_announced():
    large = change(delta_of(MAX_DELTA_BYTES))
    assert _fit_to_frame(large).delta == b""
    assert not fits_a_frame(large)


def test_whatever_is_carried_fits():
    needs = {MAX_WRITER - number: MAX_CLOCK for number in range(1000)}
    delta = delta_of(MAX_DELTA_BYTES - 300)
    for sizes in ([160 * 1024], [100, 200_000, 100], [1000] * 64, [4 * 1024 * 1024]):
        fitted = _fit_to_frame(change(delta, needs, [os.urandom(size) for size in sizes]))
        assert len(encode_change(fitted)) <= ROOM_BYTES


@pytest.mark.parametrize("called", ["eu", "old"])
async def test_an_acknowledgement_goes_to_where_the_member_listens_whatever_it_calls_the_site(called):
    """While a site is renamed, its members listen under two names."""
    own, other, shared = "0" * 32, "1" * 32, "http://site:1"
    published = []
    bus = SimpleNamespace(publish=lambda frame, site, cluster: published.append(site))
    members = Members(own, "eu", RecordedMembership(), shared)
    acknowledgements, recent_frames = Acknowledgements(members), RecentFrames()
    incarnation = Incarnation(1, acknowledgements, recent_frames)
    keys = [ClusterKey("a" * 16)]
    sender = FrameSender(
        bus, keys, members, incarnation, recent_frames, acknowledgements, OWN, SimpleNamespace(is_enforced=False)
    )
    applier = ChangeApplier(None, members, sender, None, Counter())
    beat = Heartbeat(called, "http://other:1", shared, "1", 1, 0, 0, bytes(16), {})
    assert members.receive_heartbeat(other, beat, 1, on_bus=False)
    applier._applied(Frame(CHANGE, bytes.fromhex(other), 1, 1, b""))
    applier._send_acknowledgements()
    assert published == [called]
