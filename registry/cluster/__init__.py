"""The cluster: everything between instances.

rpc          authenticated requests between instances
membership   which instances there are, and their state
replication  how changes travel: gossip, anti-entropy, read repair, acknowledgements, read leases
placement    which instances hold replicas of content, and garbage collection
transfer     finding and fetching content, pass-through, scrubbing
node         wires these together and runs their background tasks
"""
