"""Concord, an OCI container registry for many sites at once.

Packages, from the lowest layer to the highest. A module imports from its own layer and from those before it
(`tests/test_architecture.py`).

oci         the OCI model without I/O: names, digests, manifests, ranges
event_loop  sharing one event loop: bounded steps, supervised tasks
telemetry   counters, request ids, logs
settings    parsing what an operator writes: addresses, policies, the environment
config      the settings of an instance, from flags, environment and file
errors      what can go wrong with a request, as the error that a client receives
disk_errors telling a full disk from a failing one
capabilities what this version understands, and what it announces to other versions
units       sizes in bytes, and durations in seconds and milliseconds
ports       the four interfaces through which all I/O goes: clock, bus, peer transport, disk
catalog     SQLite: update log, documents, and the view that reads are answered from
storage     content and uploads on disk
cluster     membership, replication, placement and transfer between instances
http        the OCI distribution API, the administrative API, and the API between instances
shared_state the memory that the processes of one instance share
commit_steps what follows a commit in a running instance, in its order
instance    one running registry: its parts, their start and their end
app         the composition root of what is served: gives each group of handlers the parts that it uses
adapters    the implementations of the ports
runtime     the processes that serve one data directory
cli         the command line
"""

__version__ = "0.1.0"
