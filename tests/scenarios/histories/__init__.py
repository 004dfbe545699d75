"""Histories of real processes under drawn faults, checked for what a registry promises.

    python -m tests.scenarios.histories --seed N --seconds S

plays one or two sites of two or three instances each, as `concord serve` runs them, with real Redis servers, on network
namespaces (root needed). Clients push, tag again, delete and read over HTTP at members that a balancer would send them
to, while faults that the seed draws strike processes, links, Redis servers, clocks and files. Every request is recorded
with its times by one clock; checkers look at the record afterwards, as Jepsen does (https://jepsen.io).

The plan is a function of the seed; the interleaving of real processes is not. A seed that found something may have to
be played more than once to find it again.

plan        what a seed draws
members     the instances and Redis servers
launch      what an instance does before it serves: the clock that the harness sets
faults      what is done to them
balancer    which members clients are sent to
clients     what clients do
history     what is recorded
checkers    what must hold, by what is certain about the order of writes (`simulations.write_order`)
run         one run
report      its figures
total       adds up the figures of many runs
"""
