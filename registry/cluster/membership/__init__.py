"""Membership: which instances there are, where they are reached, and their state.

Invariant: a member is live only while it has proved so by an answered request; heartbeats on the bus only prolong a
life. An instance that was removed never comes back under the same id.

members           the other instances and their state
events            what the members announce, and who listens
store             loading and saving members
discovery         addresses, and handshakes with members that the bus does not bring
introductions     handshakes with members that another member names, at once
heartbeats        the state of this instance, told to all members every two seconds
liveness          proof of life
incarnation       the incarnation of this instance, clones, and notices to stale ones
lifecycle         the stages of this instance
readiness         the conditions under which balancers may send requests here
join              catching up with the site after a start, and readiness
removal           tombstones of members that are gone for good
membership_log    one log line for each member that joins or is removed
reachability      whether other instances reach this one at the address it advertises
shared_addresses  addresses that more than one instance advertises
clock_offsets     the distance of members' clocks
audit_witness     the ends of other instances' audit logs
watch             log lines when the state of other members changes
decommission      leaving for good
content_handover  what only a leaving instance holds, taken over by others
"""
