"""Everything that is served over HTTP.

app          the ASGI application: which part answers a request, errors rendered
routes       the paths of the OCI distribution API
direct       manifests, small blobs that are here and pages of tags, answered without a task
reading      what a process answers that only reads
protocol     HTTP on the wire, with bounds on a request's head
heads        what a parser leaves to look at in a request's head
closing      how a connection ends without harm to its last answer
large_body   bodies of pushes, received without a copy
exchange     one request and its answer, measured as they pass
request      reading requests: bodies in time, headers, numbers
answers      writing answers: errors, content, paged lists
sending      one bound on answers in memory while they are sent
asked        what a GET of content asks for: conditions, a part
ranges       the Range header
multipart    several ranges in one answer
blobs        pulling, mounting and deleting blobs
uploads      pushing blobs, at whichever instance a request arrives
repeatable   an upload's body on its way to another instance, which may have to go again
manifests    pulling, pushing and deleting manifests and tags
tags         lists of tags and of repositories
referrers    what refers to a manifest
standing     names, room, policy and clocks, as the status has them
own          health, status, state digest, conflicts, scrubs
administration who may ask for an administrative act, and a log line for each
browsers     what a page of another site can make a browser send, and is refused
collection   collecting on demand
membership   members that are forgotten, or leave
metrics      what the registry does, for Prometheus
replication  where a tag's fact and content are
peers        requests of other instances: who may ask, content and uploads
questions    what they ask, and the answers
"""
