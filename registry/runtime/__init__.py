"""The processes that serve one data directory.

    supervisor ── forks ──► primary    the whole instance: writes, gossip, upkeep; and any request
               ── forks ──► workers    answer what is here from committed rows and files, and pass every other
                                       connection on to the primary

supervisor   starts and replaces processes, and ends them in order
primary      the process that runs the instance
drain        its end in order, within the time that a stop gives
worker       the processes that only read
deaths       how many of them have died, counted where it survives them
handover     how connections and notes go from workers to the primary
signals      the signals between them
server       uvicorn, as all of them use it
sockets      listening, and the lock on the data directory

SQLite takes one writer at a time, so writes in several processes would only wait for each other; and gossip needs one
order. Content is hashed and written in threads of the primary, on all cores. More processes serve more reads.
"""
