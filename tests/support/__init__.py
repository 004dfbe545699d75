"""Support that tests share.

server      real instances as processes, and a real Redis
starter     starts them from a process that has imported the server
client      HTTP requests with full control over headers and framing
link        a stretch of network that can be slow or cut
wide_area   a line between two networks, slow and lossy
tls         certificates, by authorities of the tests' own
nginx       Debian's nginx in front of instances
kustomize   reading the files for Kubernetes
histories   what documents went through, drawn by Hypothesis
network     hosts of their own, whose packets can be swallowed
needs       what a test needs of the machine
proxy       a plain round-robin load balancer
images      images, indexes and artifacts made in memory
engines     docker, podman, skopeo, buildah and an ORAS client
turns       how long the event loop goes without turning
logs        lines of the log, selected by event
stand_ins   explicit stand-ins for collaborators that a test does not look at, and recorders of calls
seams       the real disk, watched or made to fail, and a clock that stands still
issuer      an identity provider, its keys and tokens
access      access control of a real cluster, as an operator makes it
access_view  facts of access control in a file that tests write
uploads     uploads of a process that serves alone
layouts     images as OCI layouts on disk
writing     a document that pycrdt itself writes
golden      what later versions must still understand, made by this one
replica     replicas in memory, made of crdt/ alone
reference   the pages of docs/reference, generated from the code
"""
