"""Sharing one event loop between requests, gossip and background work.

Invariant: no piece of work holds the loop in proportion to what a client, a member or a stranger sent.

steps       work as a generator that yields between bounded steps
share       a bound on the share of the loop that work for strangers takes
supervised  background tasks that start again when they fail
now         the clock of the running loop
ending      ending tasks that may lose a cancellation
"""
