"""Membership: which instances there are, where they are reached, and their state.

Invariant: a member is live only while it has proved so by an answered request; heartbeats on the bus only prolong a
life. An instance that was removed never comes back under the same id.

members           the other instances and their state
liveness          proof of life, and the record of members on disk
introductions     handshakes with members that another member names
membership_log    one log line for each member that joins or is removed
reachability      whether other instances reach this one at the address it advertises
shared_addresses  addresses that more than one instance advertises
clock_offsets     the distance of members' clocks
watch             log lines when the state of other members changes
decommission      leaving for good: what only this instance holds is handed over first
"""
