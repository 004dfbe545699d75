"""Concord, an OCI container registry for many sites at once.

config      what an operator may set
abilities   what this version understands, and what it says of that to the others
addresses   parsing addresses and host names that an operator writes down
environment variables that look like settings and are none
errors      what can go wrong, as the OCI error a client is told
ending      ending tasks that may lose a cancellation
names       the grammar of repositories, tags and digests
manifest    reading manifests and indexes
stored_manifest reading those that are stored: what collection has to keep for them
json_objects JSON objects whose keys mean the same to every reader
steps       work in bounded steps, between which the event loop turns
policy      who is to hold what, by repository
policy_reach which rules of a policy can never apply
redis_address how a Redis is written down
forwarded   who a request comes from, where it comes through proxies
seams       the four interfaces through which all I/O goes: clock, bus, peer transport, disk
read_lease  until when the processes of an instance may answer reads
request_ids the id of a request, which follows it through logs and to other instances
manifest_memory how many bytes of manifests may be in memory at once
loop_share  bounding the share of the event loop that work for strangers takes
refusals    counting refused pushes, and saying in the log which were
full_disk   a disk that is full, told from one that fails
log_events  the events that are logged, each by a stable name
event_log   logging by event: every line carries one, and its values as fields
log_limit   a bound on how many lines one kind of event may write to the log
backup_note a note in a data directory of its last backup
measures    what is counted while the registry runs
system/     the real things behind the seams
catalog/    SQLite: update log, snapshots and the view that reads are answered from
blobs/      content and uploads on disk
cluster/    gossip, members, catching up, fetching content from peers
http/       the OCI distribution API, this product's own API, and the one between peers
instance    one running registry, put together from the above
workers/    the processes that serve one data directory
cli/        the command line
"""

__version__ = "0.1.0"
