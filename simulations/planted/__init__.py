"""Bugs that are put into the registry from outside, to see that the checkers see them.

Each replaces a function or takes away a protection for the time of a run; the registry itself knows nothing of it. With
each stands what brings it to light: the faults, and within how many seeds.

bug         a planted bug, and the hunt for it
scenarios   short scenarios for bugs that drawn plans seldom bring to light
commits     how operations are committed and acknowledged
documents   documents and the view
meaning     what pushes, deletes and lists mean
disk        how content and uploads are kept
network     requests and frames between instances
ranges      ranges of content that is elsewhere
leases      read leases, and waiting for the own site
collection  copies and garbage collection
absence     what brings instances together again
members     making room, leaving, being removed, and starting from a backup
keys        what keeps outsiders out, members in, and uploads going
access      access control: what its facts mean, and how requests are decided by them
access_scenarios
            short scenarios of access control
processes   what crosses between the processes of an instance
versions    what an instance does that does not understand a later version
"""

from collections.abc import Callable

from simulations.mixed_versions import mixed_versions
from simulations.planted import (
    absence,
    access,
    access_scenarios,
    collection,
    commits,
    disk,
    documents,
    keys,
    leases,
    meaning,
    members,
    network,
    processes,
    ranges,
    scenarios,
    versions,
)
from simulations.planted.bug import Bug, Planted
from simulations.run import Scenario

_SLOWLY = ("one-way", "reorder", "slow")
_DENSE = (("operations", 30), ("fault_s", 3.0), ("clients", 8))
_CROWDED = (("operations", 20), ("fault_s", 4.0), ("clients", 4))
_LONG = (("operations", 40), ("fault_s", 16.0), ("clients", 4))
_SMALL = (("operations", 15), ("clients", 3), ("conditions", ("small",)))
_BROKEN = (("operations", 30), ("clients", 4), ("fault_s", 20.0), ("conditions", ("small",)))
_LOST = (("operations", 4), ("conditions", ("small", "lose-one")))
_COLLECTED = (*_LONG, ("conditions", ("collect",)))
_FAR = (("operations", 12), ("fault_s", 24.0), ("clients", 4), ("between_sites_s", 0.2), ("conditions", ("collect",)))
_COPIED = (("operations", 24), ("between_sites_s", 0.08), ("conditions", ("two-copies",)))
_EVICTING = (("operations", 20), ("clients", 4), ("conditions", ("evict",)))
_EVICTING_COPIES = (("operations", 20), ("clients", 4), ("conditions", ("evict", "two-copies")))
_LEAVING = (("operations", 25), ("fault_s", 12.0), ("clients", 4))
_SITE = ("eu", "eu", "eu")
_MIXED = (("operations", 4), ("fault_s", 6.0))
_LASTING = (*_LONG, ("calm_operations", 0))


def _of_facts(name: str, plant: Callable[[], Bug]) -> Planted:
    """Return a bug in what facts of access control mean."""
    scenario = access_scenarios.change_on_both_sides
    return Planted(name, plant, (), 1, ("eu", "us"), (("conditions", ("access",)),), scenario)


def _of_gates(name: str, plant: Callable[[], Bug], scenario: Scenario) -> Planted:
    """Return a bug in how requests are decided."""
    return Planted(name, plant, (), 1, ("eu", "us"), (("conditions", ("access", "enforced")),), scenario)


PLANTED = [
    Planted("content not synced", disk.content_not_synced, ("power-cut-at-answer",), 6),
    Planted("directory not synced", disk.directory_not_synced, ("power-cut-at-answer",), 10),
    Planted("database not synced", disk.database_not_synced, ("power-cut-at-answer",), 10),
    Planted("row before file", disk.row_before_file, ("power-cut-at-call", "kill-at-call", "power-cut-at-frame"), 30),
    Planted("size before bytes", disk.size_before_bytes, ("power-cut-at-call", "power-cut-at-answer"), 30),
    Planted("told before commit", commits.told_before_commit, ("power-cut-at-frame", "eio"), 15),
    Planted(
        "answered before commit",
        commits.answered_before_commit,
        ("power-cut-at-answer", "eio", "power-cut-at-call"),
        15,
    ),
    Planted("failure taken for success", commits.failure_taken_for_success, ("eio", "enospc"), 10),
    Planted("writer used again", commits.writer_used_again, ("backup",), 15),
    Planted("delete without marker", documents.delete_without_marker, ("loss",), 6),
    Planted("gate off", documents.gate_off, ("reorder", "loss"), 15),
    Planted("what was seen ignored", documents.what_was_seen_ignored, _SLOWLY, 24, ("eu", "us", "ap"), _DENSE),
    Planted("push split", documents.push_split, (), 3),
    Planted("emptied document dropped", documents.emptied_document_dropped, ("loss", "partition"), 40),
    Planted("conflicts not noted", documents.conflicts_not_noted, ("bus-cut",), 12, ("eu", "us"), _LASTING),
    Planted("deletes not shown", documents.deletes_not_shown, (), 15),
    Planted("MAC unchecked", network.mac_unchecked, ("forged-frames",), 3),
    Planted("request MAC unchecked", network.request_mac_unchecked, ("forged-requests",), 5),
    Planted("digest unchecked on fetch", network.digest_unchecked_on_fetch, ("flipped-bit",), 40),
    Planted("reads unchecked", network.reads_unchecked, ("flipped-bit",), 20),
    Planted("site not waited for", network.site_not_waited_for, (), 15, ("eu", "eu")),
    Planted(
        "acknowledged before commit", network.acknowledged_before_commit, (), 15, ("eu", "eu"), (("executor_s", 0.03),)
    ),
    Planted("readers check nothing", network.readers_check_nothing, ("flipped-bit",), 20),
    Planted("lookups that miss", network.lookups_that_miss, (), 20),
    Planted("no catching up", network.no_catching_up, ("loss", "absence"), 6),
    Planted("reached though it failed", network.reached_though_it_failed, ("partition", "loss", "reset"), 40),
    Planted("clone ignored", network.clone_ignored, ("clone", "stalled-redis", "partition"), 40),
    Planted(
        "delete of the winner alone", meaning.delete_of_the_winner_alone, ("partition", "loss"), 24, chosen=_CROWDED
    ),
    Planted("delete without asking", meaning.delete_without_asking, ("bus-cut",), 12, chosen=_LONG),
    Planted("answers kept for ever", meaning.answers_kept_for_ever, (), 6),
    Planted("miss without asking", meaning.miss_without_asking, (), 1, ("eu", "us"), scenario=scenarios.pull_elsewhere),
    Planted("push of the tag alone", meaning.push_of_the_tag_alone, (), 2),
    Planted("push beside the older", meaning.push_beside_the_older, (), 3),
    Planted("lowest time wins", meaning.lowest_time_wins, ("bus-cut",), 24, ("eu", "us"), _LONG),
    Planted("any clock followed", meaning.any_clock_followed, ("clock-jump", "clock-drift"), 6),
    Planted("wall clock alone", meaning.wall_clock_alone, ("clock-jump", "clock-drift"), 4),
    Planted("delete not waited for", meaning.delete_not_waited_for, (), 4, ("eu", "eu")),
    Planted("mount not waited for", meaning.mount_not_waited_for, (), 15, ("eu", "eu")),
    Planted("list without its last", meaning.list_without_its_last, (), 2),
    Planted("referrers lost", meaning.referrers_lost, (), 6),
    Planted("range one too far", network.range_one_too_far, ("reset-in-body",), 12, chosen=_BROKEN),
    Planted("MiB unchecked", ranges.mib_unchecked, ("flipped-bit",), 12, chosen=_SMALL),
    Planted(
        "range of what is not verified",
        ranges.range_of_what_is_not_verified,
        (),
        1,
        ("eu", "us"),
        _SMALL,
        scenarios.pull_range_of_wrong_bytes,
    ),
    Planted("range off by one", ranges.range_off_by_one, (), 3, chosen=_SMALL),
    Planted("snapshot of too much", documents.snapshot_of_too_much, (), 12, chosen=(*_SMALL, ("executor_s", 0.015))),
    Planted("body not deposited", absence.body_not_deposited, (), 12, ("eu", "us"), _LOST),
    Planted("no introduction", absence.no_introduction, (), 2, chosen=(("conditions", ("no-bus",)),)),
    Planted("ready at once", absence.ready_at_once, ("kill", "absence"), 12, ("eu", "eu"), _CROWDED),
    Planted(
        "clients answered at once", absence.clients_answered_at_once, ("kill", "absence"), 12, ("eu", "eu"), _CROWDED
    ),
    Planted("never behind", absence.never_behind, (), 1, ("eu", "eu"), scenario=scenarios.hear_and_take_nothing_in),
    Planted("gaps not seen", absence.gaps_not_seen, (), 1, ("eu", "us"), scenario=scenarios.pull_after_a_gap),
    Planted("copies not waited for", collection.copies_not_waited_for, ("disk-destroyed",), 24, ("eu", "us"), _COPIED),
    Planted("no member asked", collection.no_member_asked, ("bus-cut",), 24, ("eu", "eu"), _COLLECTED),
    Planted("content leases ignored", collection.content_leases_ignored, (), 24, chosen=_COLLECTED),
    Planted("released unseen", collection.released_unseen, (), 24, ("eu", "us"), _FAR),
    Planted("grace ignored", collection.grace_ignored, (), 4, chosen=_COLLECTED),
    Planted(
        "links after the question ignored", collection.links_after_the_question_ignored, (), 24, ("eu", "us"), _FAR
    ),
    Planted("told and not linked again", collection.told_and_not_linked_again, (), 32, ("eu", "us"), _FAR),
    Planted("first key alone", keys.first_key_alone, ("rolling-key",), 3),
    Planted("first key alone for uploads", keys.first_key_alone_for_uploads, ("rolling-key",), 6),
    Planted("replays answered", keys.replays_answered, ("replayed-requests",), 4),
    Planted("answers believed", keys.answers_believed, ("changed-answers",), 4),
    Planted("upload ids believed", keys.upload_ids_believed, (), 6),
    Planted("cancel of nothing", keys.cancel_of_nothing, (), 4),
    Planted("chunks anywhere", keys.chunks_anywhere, (), 4),
    Planted("uploads forgotten", keys.uploads_forgotten, ("kill", "power-cut"), 6),
    Planted("any holder believed", members.any_holder_believed, (), 32, chosen=_EVICTING),
    Planted("no holder asked", members.no_holder_asked, (), 3, chosen=_EVICTING),
    Planted(
        "one holder is enough",
        members.one_holder_is_enough,
        ("absence", "partition"),
        24,
        ("eu", "eu", "us", "us"),
        _EVICTING_COPIES,
    ),
    Planted("own copy evicted", members.own_copy_evicted, (), 3, ("eu", "eu", "us", "us"), _EVICTING_COPIES),
    Planted("nothing handed over", members.nothing_handed_over, ("leave",), 6, chosen=_LEAVING),
    Planted("writes while leaving", members.writes_while_leaving, ("leave",), 24, chosen=_LEAVING),
    Planted(
        "leavers relied on", members.leavers_relied_on, ("leave",), 40, chosen=(("operations", 10), ("clients", 4))
    ),
    Planted(
        "no member told of the end", members.no_member_told, (), 1, ("eu", "us", "ap"), scenario=scenarios.leave_unheard
    ),
    Planted("old id kept", members.old_id_kept, ("forgotten",), 3),
    Planted(
        "old writer kept",
        members.old_writer_kept,
        ("forgotten",),
        6,
        chosen=(("operations", 40), ("fault_s", 24.0), ("clients", 4)),
    ),
    Planted("forgotten for a moment", members.forgotten_for_a_moment, ("forgotten",), 6),
    Planted("restored as the same", members.restored_as_the_same, ("restored",), 12),
    Planted("restored with its writer", members.restored_with_its_writer, ("restored",), 6),
    Planted("leases ignored", leases.leases_ignored, ("hang-primary",), 6, _SITE),
    Planted("lapse not awaited", leases.lapse_not_awaited, ("hang-primary", "deaf"), 12, _SITE),
    Planted("excluded members hold leases", leases.excluded_hold_leases, ("slow-disk",), 12, _SITE),
    Planted("leases that last", leases.leases_that_last, ("hang-primary",), 12, _SITE),
    Planted("bodies not fetched", absence.bodies_not_fetched, ("loss", "absence"), 8),
    Planted("critical flag ignored", versions.critical_flag_ignored, (), 2, chosen=_MIXED, scenario=mixed_versions),
    Planted("critical field accepted", versions.critical_field_accepted, (), 2, chosen=_MIXED, scenario=mixed_versions),
    Planted(
        "kept answers given again", versions.kept_answers_given_again, (), 2, chosen=_MIXED, scenario=mixed_versions
    ),
    Planted(
        "repeated commit taken as new",
        processes.repeated_commit_taken_as_new,
        (),
        2,
        ("eu", "us"),
        scenario=scenarios.cut_before_the_answer,
    ),
    Planted(
        "answered before the primary",
        processes.answered_before_the_primary,
        ("late-commits", "kill-primary-in-commit"),
        12,
        chosen=_LONG,
    ),
    Planted(
        "commits not sent again", processes.commits_not_sent_again, ("commit-link-cut", "kill-primary-in-commit"), 30
    ),
    Planted("files of other homes removed", processes.files_of_other_homes_removed, ("kill-worker",), 12),
    Planted(
        "predecessor not waited for",
        processes.predecessor_not_waited_for,
        (),
        1,
        ("eu", "us"),
        scenario=scenarios.go_on_before_the_commit_arrives,
    ),
    Planted(
        "cancelled upload published",
        processes.cancelled_upload_published,
        (),
        1,
        ("eu", "us"),
        scenario=scenarios.cancel_before_the_commit_arrives,
    ),
    Planted("workers serve all", versions.workers_serve_all, (), 2, chosen=_MIXED, scenario=mixed_versions),
    Planted("routes serve all", versions.routes_serve_all, (), 2, chosen=_MIXED, scenario=mixed_versions),
    Planted("facts not read again", versions.facts_not_read_again, (), 2, chosen=_MIXED, scenario=mixed_versions),
    _of_facts("revocation of what was seen", access.revocation_of_what_was_seen),
    _of_facts("grant without after", access.grant_without_after),
    _of_gates("decisions kept for ever", access.decisions_kept_for_ever, access_scenarios.block_between_pulls),
    _of_facts("void facts count", access.void_facts_count),
    _of_facts("unblocking wins", access.unblocking_wins),
    _of_facts("removal by name", access.removal_by_name),
    _of_facts("latest password wins", access.latest_password_wins),
    _of_facts("all said by the operator", access.all_said_by_the_operator),
    _of_gates("blocked accounts admitted", access.blocked_accounts_admitted, access_scenarios.block_between_pulls),
    _of_gates("tokens outlive credentials", access.tokens_outlive_credentials, access_scenarios.withdraw_between_pulls),
    _of_gates("rights not first", access.rights_not_first, access_scenarios.push_after_a_revocation),
    _of_gates("not decided again", access.not_decided_again, access_scenarios.ask_a_new_instance),
]
