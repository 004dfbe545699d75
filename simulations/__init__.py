"""The registry's own code as whole clusters in one process, under virtual time, with faults drawn from a seed.

Nothing here is a model of the registry: it is the registry, with a simulated network, disk and clock behind its four
seams. `python -m simulations --help` runs it.

    loop         an event loop on virtual time
    life         one start of one instance: it lives, is paused, dies
    disk         a disk that loses what was not synced, under content files and SQLite
    network      HTTP between instances, clients, and Redis servers
    processes    an instance's owner, and a reader beside it
    world        instances on all of that, and what the world does to them
    faults/      every kind of fault, drawn from the seed, and counted
    images       what clients push
    sizes        large things, made small
    paths        what only large things or bad luck lead to, counted
    evictions    disks with budgets of a few kilobytes
    restored     another instance, started from a backup
    leaving      what leavers have asked, and when
    lost         what may be nowhere any more
    habits       what clients do, and how often
    odd_uploads  clients that make mistakes
    slow_upload  one upload that goes on through a whole run
    pipeline     clients that push a tag and pull it at once elsewhere, beside faults by which instances lag
    workload     clients: pushes, pulls, retags, deletes, mounts, uploads in chunks
    history      what clients were told and what instances committed
    order        what is certain about the order of writes, seen from outside
    checkers/    what must hold, one file each
    plan         what is drawn for a run, and how it went
    referee      watches instances and clients, and has them judged
    run          one run: faults, then a healed network that must converge
    sweep        its end: everything listed and pulled everywhere
    shrink       making a failing run small
    later        a later version: what it understands, and says, that this one does not
    mixed        a cluster of mixed versions, some of which do not understand others
    planted/     bugs put in from outside, which the checkers must see
    replica      a replica in memory, of crdt/ alone
    documents    runs of documents alone, thousands of them
    scale        hundreds of instances and a million tags, without the HTTP layer
    shared       what they share, to fit into memory
    pool         many runs on all cores
    guard        nothing may look at a clock, chance, a thread or a socket of the machine
    report       pages with plots
"""
