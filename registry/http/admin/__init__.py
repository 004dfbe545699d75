"""The administrative API (`/_concord`), health and metrics.

status         health, readiness, status, state digest, conflicts, scrubs
status_fields  names, room, policy and clocks, as the status shows them
tag_locations  where a tag's fact and content are
paths          paths that several modules need
context        the collaborators of the handlers
actions        who may ask for an administrative action, and a log line for each
collection     garbage collection on demand
access         accounts, keys, groups, grants and revocations
access_lists   lists of these, what gives a right, and which members have the same
access_self    what an account may ask about itself
membership     removing a member, and leaving
metrics        metrics in the format of Prometheus
"""
