"""The administrative API (`/_concord`), health and metrics.

status         health, readiness, status, state digest, conflicts, scrubs
status_fields  names, room, policy and clocks, as the status shows them
tag_locations  where a tag's fact and content are
paths          paths that begin alike
context        the collaborators of the handlers
actions        who may ask for an administrative action, and a log line for each
collection     garbage collection on demand
membership     removing a member, and leaving
metrics        metrics in the format of Prometheus
"""
