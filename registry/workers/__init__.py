"""The processes that serve one data directory.

    supervisor ── forks ──► owner      the whole instance: writes, gossip, upkeep; and any request
               ── forks ──► readers    answer what is here from committed rows and files, and pass every other
                                       connection on to the owner

supervisor   who runs, who takes the place of whom, ending in order
owner        the process that runs the instance
drain        its end in order, within the time that a stop gives
reader       the processes that only read
deaths       how many of them have died, counted where it survives them
handover     how connections and notes go from readers to the owner
signals      how they are spoken to
server       uvicorn, as all of them use it
sockets      listening, and the lock on the data directory

SQLite takes one writer at a time, so writes in several processes would only wait for each other; and gossip needs one
order. Content is hashed and written in threads of the owner, on all cores. What more processes are good for is reading.
"""
