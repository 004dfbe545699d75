"""Placement: which instances are to hold a content, how many must before a push is answered, and what may go.

Invariant: content that a manifest references is never removed from its last holder.

rendezvous          designated holders by rendezvous hashing (Thaler and Ravishankar, 1998)
replicator          fetching what this instance is to hold
write_concern       waiting until enough instances hold a push
eviction            making room on a disk with a budget
garbage_collection  removing unreferenced content while clients push
collection_reasons  why content that no manifest names is kept
"""
