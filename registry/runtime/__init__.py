"""The processes that serve one data directory.

    supervisor ── forks ──► primary    the whole instance: commits, gossip, upkeep; and any request
               ── forks ──► workers    answer reads from committed rows and files, receive uploads, and relay every
                                       other request to the primary

supervisor   starts and replaces processes, and ends them in order
primary      the process that runs the instance
drain        its end in order, within the time that a stop gives
worker       the processes beside it that serve clients
worker_service what they serve, without sockets
deaths       how many of them have died, counted where it survives them
connections  clients' connections, shared out among the processes
links        stream sockets between the processes, opened by way of mailboxes that outlive them
frames       frames on such a link
relay        requests that another process answers
commit_link  the commits that workers have the primary make, and their reports
worker_links the primary's end of all of that
signals      the signals between them
server       uvicorn, as all of them use it
certificates TLS, read again when its files change
sockets      listening, and the lock on the data directory

SQLite takes one writer at a time, so commits in several processes would only wait for each other; and gossip needs one
order. Everything else that a push consists of, receiving, hashing, writing and syncing its bytes, any process does.
"""
