"""Every kind of fault, each drawn from a randomness of its own, so that leaving one out leaves the others as they are.

A fault is a coroutine that does its harm, and undoes it after a while if it lasts; what it needs of a run is in
`FaultTarget`. Whatever it does is counted as fired when it strikes, not when it is planned.

target      what faults strike, and report to
deaths      processes and machines that die, hang, leave and join
processes   processes of one instance that die or hang alone, and what crosses between them
disks       disks that refuse, change bits, are put back, copied or destroyed
links       HTTP between instances, and the bus
clocks      wall clocks that are wrong
members     instances that leave for good, are removed and come back, or come up from the backup of another one
outsiders   key rotation, and outsiders who do not have the key
"""

import errno

from simulations.faults import clocks, deaths, disks, links, members, outsiders, processes
from simulations.faults.target import BODY_BROKEN, BUS_CUT, FORGED_TAG, Fault, FaultTarget

__all__ = [
    "BODY_BROKEN",
    "BUS_CUT",
    "BUS_FAULTS",
    "BUS_KINDS",
    "FAULTS",
    "FORGED_TAG",
    "LAG_FAULTS",
    "MANGLING",
    "MEMBER_FAULTS",
    "PARTS_NO_SITE",
    "PROCESS_FAULTS",
    "SEAM_KINDS",
    "Fault",
    "FaultTarget",
]

FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "kill": (deaths.kill, ("kill",)),
    "power-cut": (deaths.power_cut, ("power cut",)),
    "power-cut-at-answer": (deaths.power_cut_at_an_answer, ("power cut at an answer",)),
    "power-cut-at-frame": (deaths.power_cut_at_a_frame, ("power cut at a frame",)),
    "power-cut-at-call": (deaths.at_call(True, "power cut at a disk call"), ("power cut at a disk call",)),
    "kill-at-call": (deaths.at_call(False, "kill at a disk call"), ("kill at a disk call",)),
    "hang": (deaths.hang, ("hang",)),
    "hang-primary": (deaths.hang_of_the_primary, ("hang of the primary",)),
    "hang-in-commit": (deaths.hang_in_a_commit, ("hang in a commit",)),
    "slow-disk": (disks.slow_disk, ("slow disk",)),
    "eio": (disks.failing(errno.EIO, "EIO"), ("EIO",)),
    "enospc": (disks.failing(errno.ENOSPC, "ENOSPC"), ("ENOSPC",)),
    "edquot": (disks.failing(errno.EDQUOT, "EDQUOT"), ("EDQUOT",)),
    "failed-commit": (disks.failed_commit_during_sync, ("failed commit during sync",)),
    "flipped-bit": (disks.flipped_bit, ("flipped bit", "flipped bit on the way")),
    "partition": (links.partition, ("partition",)),
    "one-way": (links.one_way_partition, ("one-way partition",)),
    "loss": (links.rate("loss", "lost frame", 0.5), ("lost frame",)),
    "duplication": (links.rate("duplication", "frame twice", 0.5), ("frame twice",)),
    "reorder": (links.rate("jitter_s", "frames out of order", 0.3), ("frames out of order",)),
    "reset": (links.rate("resets", "refused connection", 0.2), ("refused connection",)),
    "reset-in-body": (links.rate("body_resets", BODY_BROKEN, 1.0), (BODY_BROKEN,)),
    "slow": (links.slow_place, ("slow place",)),
    "stalled-redis": (links.stalled_redis, ("every Redis stalled", "one Redis of several stalled")),
    "bus-cut": (links.bus_cut, (BUS_CUT,)),
    "site-bus-cut": (links.site_bus_cut, ("bus of a site cut",)),
    "deaf": (links.deaf, ("deaf instance",)),
    "clock-jump": (clocks.clock_jump, ("clock jump",)),
    "clock-drift": (clocks.clock_drift, ("clock drift",)),
    "clock-still": (clocks.clock_stands_still, ("clock stands still",)),
    "backup": (disks.restored_backup, ("restored backup",)),
    "disk-destroyed": (disks.disk_destroyed, ("disk destroyed",)),
    "clone": (disks.cloned_directory, ("cloned directory",)),
    "join": (deaths.new_instance, ("new instance",)),
    "absence": (deaths.long_absence, ("long absence",)),
    "new-key": (outsiders.new_key, ("new key",)),
    "forged-frames": (outsiders.forged_frames, ("forged frames",)),
    "mangled-frames": (outsiders.mangled_frames, ("mangled frames",)),
    "forged-requests": (outsiders.forged_requests, ("forged requests",)),
    "rolling-key": (outsiders.rolling_key, ("rolling key",)),
    "replayed-requests": (outsiders.replayed_requests, ("replayed requests",)),
    "changed-answers": (links.rate("changes", "changed answer", 0.3), ("changed answer",)),
    "answer-lost": (links.rate("lost_answers", "lost answer", 0.2), ("lost answer",)),
    "leave": (members.leave, ("leave", "left", "killed while leaving")),
    "forgotten": (members.forgotten, ("forgotten",)),
    "restored": (members.restored_elsewhere, ("restored elsewhere",)),
    "kill-worker": (processes.kill_worker, ("kill of the worker",)),
    "kill-worker-in-commit": (
        processes.kill_worker_between_sync_and_commit,
        ("kill of the worker in a commit",),
    ),
    "kill-primary": (processes.kill_primary, ("kill of the primary",)),
    "kill-primary-in-commit": (processes.kill_primary_in_a_commit, ("kill of the primary in a commit",)),
    "kill-worker-beside-hang": (
        processes.hang_and_death(worker=True),
        ("kill of the worker beside a primary that hangs",),
    ),
    "kill-primary-beside-hang": (
        processes.hang_and_death(worker=False),
        ("kill of the primary beside a worker that hangs",),
    ),
    "commit-link-cut": (processes.cut_commit_links, ("commit link cut",)),
    "late-commits": (processes.late_commits, ("late commits",)),
    "hang-worker": (processes.hang_of_the_worker, ("hang of the worker",)),
}
"""By the name given on the command line: the fault, and the kinds it counts as."""

MEMBER_FAULTS = {"leave", "forgotten", "restored"}
"""Faults that change who is a member."""
PROCESS_FAULTS = {
    *("kill-worker", "kill-worker-in-commit", "kill-primary", "kill-primary-in-commit", "kill-worker-beside-hang"),
    *("kill-primary-beside-hang", "commit-link-cut", "late-commits", "hang-worker"),
}
"""Faults of one process of an instance, and of what crosses between its processes."""
BUS_FAULTS = {
    *("loss", "duplication", "stalled-redis", "bus-cut", "site-bus-cut"),
    *("forged-frames", "mangled-frames", "forged-requests", "replayed-requests"),
}
"""Faults that leave requests alone."""
MANGLING = {"forged-frames", "mangled-frames", "forged-requests", "changed-answers", "new-key"}
"""Faults after which something is refused as unauthentic, rightly or because a key was exchanged in haste."""
BUS_KINDS = {kind for name in BUS_FAULTS for kind in FAULTS[name][1]}
SEAM_KINDS = {kind for name in ("commit-link-cut", "late-commits") for kind in FAULTS[name][1]}
LAG_FAULTS = {"hang-primary", "site-bus-cut", "deaf", "slow-disk", "hang"}
"""Faults that make an instance lag its site while clients read from it: pipelines run beside them."""
PARTS_NO_SITE = {
    *BUS_KINDS,
    *(kind for name in PROCESS_FAULTS for kind in FAULTS[name][1]),
    *("kill", "kill at a disk call", "power cut", "power cut at an answer", "power cut at a frame"),
    *("power cut at a disk call", "hang", "hang of the primary", "hang in a commit", "deaf instance", "slow disk"),
    *("clock jump", "clock drift", "clock stands still", "new instance", "long absence"),
}
"""Kinds of faults that are no excuse for a stale read."""
