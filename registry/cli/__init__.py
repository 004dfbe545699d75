"""The command line.

main        the commands and their options
serve       running an instance: sockets, lock, signals
demo        three instances and a Redis on this machine
client      asking a running instance
compare     what two running instances hold differently
scrub       having a running instance check its content
verify      re-hashing a data directory's content
"""
