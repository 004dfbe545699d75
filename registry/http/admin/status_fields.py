"""Fields of the status about this instance and its members: names, disk space, policy, clocks."""

from typing import Any, NamedTuple

from registry.cluster.membership.members import Member
from registry.event_loop.now import now_s
from registry.http.admin.context import (
    AccessControlContext,
    LeavingContext,
    MembersContext,
    PlacementContext,
    ProcessContext,
)
from registry.storage.backup_note import BackupNote, read_note
from registry.storage.space import DiskSpace
from registry.units import to_ms


def instance_state(context: ProcessContext) -> dict[str, Any]:
    """Fields of the status about this instance."""
    return {
        "name": context.config.instance_name,
        "time_ms": context.clock.now_ms(),
        "disk": _room(context.space),
        "pushes_refused": dict(context.refusals.counts),
        "process_deaths": dict(context.deaths()),
    }


def access_state(context: AccessControlContext) -> dict[str, Any]:
    """Return the state of access control: its revision is the state digest of its facts."""
    access = context.access
    return {"enforced": access.is_enforced, "revision": access.digest, "restored": access.is_restored}


class MaintenanceTimes(NamedTuple):
    """The times of the last maintenance tasks, in milliseconds of this instance's wall clock. None: not since the
    start."""

    collection_ms: int | None
    scrub_ms: int | None
    oldest_check_ms: int | None
    """The time of the oldest check among all content."""
    backup: BackupNote | None


async def maintenance_times(context: PlacementContext) -> MaintenanceTimes:
    ended_at, last = context.garbage_collector.ended_at, context.scrubber.last
    ago_s = now_s() - ended_at if ended_at is not None else None
    return MaintenanceTimes(
        context.clock.now_ms() - to_ms(ago_s) if ago_s is not None else None,
        last.ended_ms if last is not None else None,
        context.scrubber.oldest_check_ms(),
        await read_note(context.disk),
    )


def addresses(context: MembersContext) -> dict[str, Any]:
    """Fields of the status about addresses: how peers find this instance's, and which are advertised more than once."""
    reachability, config = context.reachability, context.config
    reachable = None if not reachability.problem and reachability.reached_from is None else not reachability.problem
    return {
        "address": {
            "advertise": config.own_url,
            "reachable": reachable,
            "reached_from": reachability.reached_from,
            "problem": reachability.problem,
            "advertise_site": config.advertise_site,
            "site_problem": reachability.site_problem,
        },
        "shared_addresses": [
            {"address": address, "instances": ids} for address, ids in reachability.shared.found.items()
        ],
    }


def policy(context: PlacementContext) -> list[dict[str, str]]:
    """Return the rules in their order. `never_applies` is the reason why a rule matches no repository."""
    rules = context.policy
    without_effect = context.rules_without_effect
    return [
        {
            "repositories": rule.repositories,
            "copies": str(rule.copies),
            "acknowledge": str(rule.acknowledge),
            "never_applies": without_effect.get(number, ""),
        }
        for number, rule in enumerate(rules.rules)
    ]


def member_state(context: MembersContext, member: Member) -> dict[str, Any]:
    """Fields of the status about another instance."""
    offset_s = context.offsets.offset_s(member)
    free_bytes, total_bytes = member.beat.disk
    return {
        "name": member.beat.name,
        "last_seen_ms": last_seen_ms(context, member),
        "policy_matches": context.watch.policy_matches(member),
        "access_revision": member.beat.access,
        "audit_heads": {name: list(head) for name, head in context.audit_witness.heads_of(member.instance).items()},
        "clock_offset_s": round(offset_s, 3) if offset_s is not None else None,
        "disk": {"free_bytes": free_bytes, "total_bytes": total_bytes} if total_bytes else None,
    }


def remaining(context: LeavingContext) -> dict[str, Any]:
    """Return the content that a decommission still has to hand over, and the members that refuse it."""
    handover, members = context.handover, context.members
    refusing = [(members.get(other), other, reason) for other, reason in sorted(handover.refused_by.items())]
    return {
        "remaining_bytes": handover.remaining_bytes,
        "examples": handover.examples,
        "waits_for": context.decommission.waits_for,
        "refused_by": [
            {"instance": other, "name": member.beat.name if member is not None else "", "reason": reason}
            for member, other, reason in refusing
        ],
    }


def last_seen_ms(context: MembersContext, member: Member) -> int | None:
    """Return the time of a member's last message by this instance's wall clock. A time from an earlier incarnation
    may be some minutes early."""
    silent_s = member.silent_s
    return context.clock.now_ms() - to_ms(silent_s) if silent_s is not None else member.seen_ms


def _room(space: DiskSpace) -> dict[str, int]:
    return {"free_bytes": space.free_bytes, "total_bytes": space.total_bytes}
