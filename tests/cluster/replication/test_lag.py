"""How long changes took to get here, by two clocks that may differ."""

from crdt.clock import COUNTER_BITS
from registry.cluster.membership.members import Members
from registry.cluster.replication.lag import ReplicationDelays
from registry.cluster.rpc.messages import Heartbeat
from tests.support.seams import StillClock
from tests.support.stand_ins import RecordedMembership

OTHER = "ab" * 16


async def heard():
    members, clock = Members("cd" * 16, "us", RecordedMembership()), StillClock()
    members.receive_heartbeat(OTHER, Heartbeat("eu", "http://h:1", "", "1", 1, 0, 0, bytes(16), {}), 1, on_bus=False)
    return ReplicationDelays(members, clock), clock


async def test_delays_are_kept_by_site_and_by_member():
    delays, clock = await heard()
    stamp = clock.at_ms << COUNTER_BITS
    clock.at_ms += 1500
    delays.note(OTHER, stamp + 7, by_frame=True)
    clock.at_ms += 500
    delays.note(OTHER, stamp + 8, by_frame=False)
    assert {key: durations.total_s for key, durations in delays.by_site.items()} == {
        ("eu", "gossip"): 1.5,
        ("eu", "anti-entropy"): 2.0,
    }
    delay = delays.by_member[OTHER]
    assert (delay.count, delay.last_s, delay.total_s) == (2, 2.0, 3.5)


async def test_a_senders_clock_that_is_ahead_makes_no_delay_below_zero():
    delays, clock = await heard()
    delays.note(OTHER, (clock.at_ms + 60_000) << COUNTER_BITS, by_frame=True)
    assert delays.by_member[OTHER].total_s == 0.0


async def test_an_instance_that_nobody_ever_heard_of_makes_no_series():
    delays, clock = await heard()
    delays.note(None, clock.at_ms << COUNTER_BITS, by_frame=False)
    delays.note("ef" * 16, clock.at_ms << COUNTER_BITS, by_frame=False)
    assert not delays.by_site and not delays.by_member
