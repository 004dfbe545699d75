"""The real things behind the four seams (`registry.seams`).

clock     the machine's clock, and its randomness
disk      a directory
bus       Redis servers
http      HTTP between instances
"""
