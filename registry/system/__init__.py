"""The real things behind the four seams (`registry.seams`).

clock     the machine's clock, and its randomness
disk      a directory
bus       Redis servers
resp      what they send to a subscriber
no_bus    where there are none
http      HTTP between instances
"""
