"""Everything that is served over HTTP.

app    the ASGI application: which part answers a request, and the one place that renders errors
worker_app  the application of a worker: what it answers itself, and what it relays
failures  the responses to requests that fail
context  the collaborators of the application; each group of handlers has such a module
drain_state  the state of the drain of an instance that is to end
wire   HTTP/1.1 on the wire: heads, bodies, bounds, the fast path
oci    the OCI distribution API (`/v2`)
admin  the administrative API (`/_concord`), health and metrics
peer   the API between instances
"""
