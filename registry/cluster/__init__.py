"""Everything between instances.

messages        what instances tell each other, as types
keys            what is derived from the cluster key
sessions        authenticating the requests between them
upload_ids      upload ids that name their owner
members         the other instances: who is there, how far they are
acceptance      which addresses accept the cluster key, and which refuse it
liveness        proof that members are alive, and the record of them on disk
membership_log  log lines for members that join and members that are removed
peers           asking another instance
intake          taking frames from the bus, those of strangers for a bounded share of the event loop
reachability    whether other instances reach this one at the address it advertises
shared_addresses addresses that more than one instance advertises
gossip          frames out after a commit, frames in through the gate
confirmations   commit acknowledgements inside the site, and who is excluded for want of them
introductions   hellos to members that another member names, sent at once
site_push       changes pushed to the site's members where the bus does not deliver them in time
site_lease      the read lease that the members of a site renew for each other
clock_offsets   how far the clocks of other members are from the own one
watch           telling in the log how the other members stand
delays          how long changes took to get here
sync            catching up with others, and asking them what they know more
read_repair     what is asked of them before a miss is answered, once for many misses
locate          who has a content
fetch           content from a peer: one transfer, many readers
through         content that has no room here, on its way to one reader
bodies          manifest bodies: fetching what is lacking, depositing what no frame carries
contents        content from this disk where it is right, else from elsewhere; mending what is damaged
scrub           checking all content in turn
ranking         which instances are to hold a content
copies          fetching what is to be here
secure          waiting until enough instances hold a push, and being one of them
collection_reasons why content is kept or removed, and what blocks that: codes and their texts
collect         removing content that nothing refers to, while everybody pushes
evict           making room on a disk with a budget
leave           handing over what only this instance holds
supervised      background tasks that begin again when they fail
cluster         the above, put together, with the tasks that keep it going
"""
