"""Replication: how committed changes reach every instance.

Invariant: what one instance has committed, every instance has committed in the end, whatever frames are lost; and
within a site a write is answered only when every member that may answer reads has it.

frame_sender      frames out after a commit, heartbeats, acknowledgements
gossip            frames in, to the part that each kind is for
change_applier    changes of frames, applied in the order of causes or replaced by diffs
recent_frames     frames of the last changes, for members that the bus does not reach
intake            taking frames from the bus within a bounded share of the event loop
direct_push       changes pushed by requests inside a site where the bus does not deliver them
heartbeat_reactions  what a member's heartbeat sets in motion, and whether this instance lags its site
acknowledgements  commit acknowledgements inside a site, and who is excluded for want of them
read_lease        until when the processes of an instance may answer reads
site_lease        that lease, renewed by the members of the site for each other (Gray and Cheriton, 1989)
document_advances  the event that a diff has brought a document forward
diff_requests     diffs of documents of which a frame could not bring a change
anti_entropy      comparing documents with a member by their Merkle tries, and exchanging what differs
miss_state        whether a miss may be answered without asking anybody
read_repair       asking members before a miss is answered (as Dynamo and Cassandra do on reads)
manifest_bodies   bodies of manifests that no frame brought
lag               how long changes took to arrive
"""
