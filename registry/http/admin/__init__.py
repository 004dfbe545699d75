"""The administrative API (`/_concord`), health and metrics.

own            health, status, state digest, conflicts, scrubs
standing       names, room, policy and clocks, as the status shows them
tag_locations  where a tag's fact and content are
context        the collaborators of the handlers
acts           who may ask for an administrative act, and a log line for each
collection     garbage collection on demand
membership     removing a member, and leaving
metrics        metrics in the format of Prometheus
"""
