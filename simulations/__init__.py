"""The simulator: the registry's own code as whole clusters in one process, under virtual time, with faults from a seed.

This is deterministic simulation testing, as FoundationDB and TigerBeetle (VOPR) do it. The code under test is the
registry itself, not a model: only its seams (`registry.ports`) are replaced, by a network, a bus, a disk and a
clock that are functions of a seed. `python -m simulations --help` runs it; docs/internals/simulations.md explains it.

The simulated machines:

    loop              an event loop on virtual time
    process           one process of an instance: it runs, is paused, is killed
    options           the configuration of simulated instances
    process_group     an instance's primary, and a worker beside it
    process_links     what crosses between the two
    node              the place of one instance over all its starts: disk, clock, registry
    cluster           all nodes, the network and the bus on one loop
    packet_simulator  latency, loss, partitions and corruption on each link
    network           HTTP between instances and from clients
    bus               Redis servers
    storage           a disk that loses what was not synced, under content files and SQLite
    guard             refuses clocks, randomness, threads and sockets of the machine

A run:

    plan              what is drawn for a run before it begins, and its outcome
    run               sets up one run, plays a scenario, and returns its outcome
    simulation        a run's parts, and the API that scenarios and tests use: start, heal, converge, check_invariants
    phases            the phases of a run: faults, then a healed network that must converge, then calm
    final_checks      what holds at the end
    commit_observer   looks at what instances commit, and calls the checkers
    request_observer  records what clients ask and are answered, and calls the checkers
    disturbances      which faults are active, and whether the run is calm
    reachability      which instances one can ask now
    lifecycle         starts, restores, losses and removals of instances
    violations        invariants that a run has broken
    workload/         clients: what they push, pull and delete
    faults/           every kind of fault, drawn from the seed, and counted
    history           requests of clients, and commits of instances: the evidence of the checkers
    checkers/         invariants, one file each
    access_states     the facts of access control as they are committed at an instance
    write_order       what is certain about the order of writes, seen from outside
    lost_content      content that a fault has destroyed, and that may be missing
    cheap_hashes      hashes of passwords at the lowest cost
    small_limits      limits of the registry, lowered so that small runs reach them
    log_events        what instances log, for what cannot be seen at their seams
    coverage_marks    rarely taken paths of the registry that a run has reached
    evictions         disks with budgets of a few kilobytes
    restored_backup   another instance, started from a backup
    recovery          the recovery of an administrator on the disk of an instance that is down
    shrink            the search for a smaller plan that still fails
    pool              many runs on all cores
    report            pages with plots

Other runs:

    later_version     a later version: what it understands, and writes, that this one does not
    mixed_versions    a cluster of this version and a later one
    planted/          bugs put in from outside, which the checkers must find
    replica           a replica in memory, of crdt/ alone
    documents         runs of replicas alone, thousands of them
    access_oracle     a second evaluator of access control, to compare the registry's with
    scaled_instance   one instance of many, over a catalog in memory
    scale             hundreds of instances and a million tags, without clients and content
    shared_catalog    catalogs in memory that share equal states, for `scale`
"""
