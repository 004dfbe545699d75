"""Invariants of every history, one module each.

found               what a checker returns
read_your_writes    an acknowledged write is shown by every ready member of its site
monotonic           what was shown is not followed by something older
acknowledged        acknowledged pushes can be read at every member after healing
deletes             what was deleted stays so
digests             after healing all members have one state digest
content             content has the bytes of its digest
refusals            requests fail only where a fault explains it
"""
