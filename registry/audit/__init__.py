"""The audit log: who has changed what, who was refused, and who has signed in, while access control is enforced.

Each process of an instance appends to files of its own in the data directory. A line holds its number and the hash of
the line before, so that a line cannot be altered, removed or inserted without breaking the chain (Schneier and Kelsey,
"Secure Audit Logs to Support Computer Forensics", 1999). A holder of the directory can still cut off the end, or write
all of it anew. To detect that, heartbeats carry the heads of the chains to all other instances.

Invariant: no line holds a secret. Queries, bodies and the `Authorization` header are never read here.

chain  lines, their hashes, and the verification of a chain
log    gathering the lines of one process, writing them, and beginning new files
heads  the ends of all chains of an instance, for other instances
"""
