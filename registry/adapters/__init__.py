"""The implementations of the ports (`registry.ports`) that instances run with. The simulations have their own.

clock   the machine's clock and its source of randomness
disk    a directory
bus     Redis pub/sub
resp    the protocol of a Redis subscriber
no_bus  the bus of an instance without Redis
http    HTTP between instances
identity_providers  the keys of identity providers
hashing_threads  threads of low priority that hash passwords
tls     TLS, from files
"""
