"""The parts of a status about names, room, policy and clocks, as text for a person."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column, Table

from registry.units import GIB, to_s

WARN_OFFSET_S = 1.0
"""A clock that is further off is shown in bold: the instance warns of it."""


def named(one: dict[str, Any]) -> str:
    """An instance by its name and the beginning of its id."""
    short = one["instance"][:12]
    return f"{escape(one['name'])} ({short})" if one.get("name") else short


def lines(answer: dict[str, Any]) -> Iterator[str]:
    """The room on the disk, and the policy's rules where there is more to them than the defaults."""
    disk = answer["disk"]
    yield f"{size(disk['free_bytes'])} free of {size(disk['total_bytes'])} on the disk"
    yield _last(answer["maintenance"], answer["time_ms"])
    died = {role: count for role, count in answer["process_deaths"].items() if count}
    if died:
        counts = ", ".join(f"{count} as {role}" for role, count in died.items())
        yield f"[bold]{sum(died.values())} processes have died[/] and were replaced: {counts}"
    if answer["pushes_refused"]:
        refused = sorted(answer["pushes_refused"].items(), key=lambda pair: -pair[1])
        yield "pushes refused since the start: " + ", ".join(f"{count} {escape(reason)}" for reason, count in refused)
    yield from _not_understood(answer)
    for rule in answer["copies"]["policy"]:
        text = f"{rule['repositories']}: copies {rule['copies']}, acknowledge {rule['acknowledge']}"
        never = f"; [bold]never applies[/]: {escape(rule['never_applies'])}" if rule["never_applies"] else ""
        yield f"policy {escape(text)}{never}"
    yield from _empty_sites(answer)


def _not_understood(answer: dict[str, Any]) -> Iterator[str]:
    listed = answer.get("not_understood", [])
    for found in listed:
        kinds = escape(", ".join(found["kinds"]))
        yield f"[bold red]not served before an upgrade[/]: {escape(found['document'])} (facts of kind {kinds})"
    more = answer.get("not_understood_count", 0) - len(listed)
    if more > 0:
        yield f"[bold red]not served before an upgrade[/]: {more} more documents"


def _empty_sites(answer: dict[str, Any]) -> Iterator[str]:
    sites = answer["copies"]["sites_without_instances"]
    if sites:
        yield f"[bold]no known instance keeps copies[/] at {escape(', '.join(sites))}, where the policy wants some"


def _last(last: dict[str, Any], now_ms: int) -> str:
    """Describe when upkeep and the last backup were done."""
    backup = last["backup"]
    damaged = f", [bold]{backup['missing']} contents missing in it[/]" if backup and backup["missing"] else ""
    parts = [
        f"last collection {_heard(last['collection_ms'], now_ms)}",
        f"last full check of content {_heard(last['scrub_ms'], now_ms)}",
        f"oldest check {_heard(last['oldest_check_ms'], now_ms)}",
        f"last backup {_heard(backup['ended_ms'], now_ms) if backup else 'never'}{damaged}",
    ]
    return ", ".join(parts)


def access_control(answer: dict[str, Any]) -> Iterator[str]:
    """Describe access control, where there is any: whether it is enforced, and which members know something else."""
    state = answer.get("access")
    if not state or not state["revision"]:
        return
    enforced = "enforced" if state["enforced"] else "[bold]not enforced[/bold]"
    yield f"access control {enforced}, revision {state['revision']}"
    if state["restored"]:
        yield "[bold red]no credential counts[/]: restored from a backup, and no member met since"
    others = [named(one) for one in answer["members"] if one.get("access_revision") != state["revision"]]
    if others:
        yield f"another revision of access control at {', '.join(others)}"
    unable = [named(one) for one in answer["members"] if "access" not in one.get("capabilities", [])]
    if unable:
        yield f"[bold red]access control is not enforced[/] by {', '.join(unable)}: upgrade"


def members(listed: list[dict[str, Any]], now_ms: int, capabilities: list[str]) -> RenderableType:
    """The other instances as a table. `capabilities` are those of the instance that was asked."""
    if not listed:
        return "no other instances are known"
    address = Column("address", overflow="fold")
    table = Table(
        "instance", "site", address, "version", "capabilities", "live", "heard", "agrees", "lacking here", "last delay",
        "policy", "clock", "disk free",
    )  # fmt: skip
    for member in listed:
        table.add_row(
            named(member),
            escape(member["site"]),
            escape(member["address"]),
            escape(member["version"]),
            _capabilities(member.get("capabilities", []), capabilities),
            "yes" if member["reachable"] else "not reached" if member["live"] else "no",
            _heard(member["last_seen_ms"], now_ms),
            "yes" if member["in_sync"] else "not yet",
            str(member["missing_changes"]),
            _delay(member.get("last_replication_delay_s")),
            {True: "same", False: "[bold]another[/]", None: "-"}[member["policy_matches"]],
            _clock(member["clock_offset_s"]),
            f"{size(member['disk']['free_bytes'])} of {size(member['disk']['total_bytes'])}" if member["disk"] else "-",
        )
    return table


def _capabilities(found: list[str], own: list[str]) -> str:
    """The list where it is not that of the instance that was asked."""
    return "same" if found == own else escape(", ".join(found)) or "none"


def leaving(answer: dict[str, Any]) -> Iterator[str]:
    """Yield lines on a decommission: its progress, the contents that are left, and the members that refuse it."""
    left = answer["remaining"]
    yield f"{answer['handed_over']} contents handed over, {left} to go ({size(answer['remaining_bytes'])})"
    if answer["waits_for"]:
        yield f"  it waits for {answer['waits_for']}"
    for one in answer["refused_by"]:
        yield f"  {named(one)} refuses: {one['reason']}"
    for digest in answer["examples"]:
        yield f"  {digest} is held by no other instance"
    if left > len(answer["examples"]) > 0:
        yield f"  and {left - len(answer['examples'])} more"


def size(count: int) -> str:
    """Bytes in GiB, MiB where those are few, or as they are."""
    mib = GIB // 1024
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / mib:.0f} MiB" if count >= mib else f"{count} bytes"


def when(ms: int) -> str:
    """A time of the day with its date."""
    return datetime.fromtimestamp(to_s(ms), UTC).isoformat(" ", "seconds").removesuffix("+00:00") + " UTC"


def _heard(heard_ms: int | None, now_ms: int) -> str:
    """Return the time since a heartbeat; its date and time where that is an hour or more."""
    if heard_ms is None:
        return "-"
    ago_s = max(to_s(now_ms - heard_ms), 0.0)
    return f"{ago_s:.0f} s ago" if ago_s < 120 else f"{ago_s / 60:.0f} min ago" if ago_s < 3600 else when(heard_ms)


def _delay(delay_s: float | None) -> str:
    if delay_s is None:
        return "-"
    return f"{delay_s * 1000:.0f} ms" if delay_s < 10 else f"{delay_s:.0f} s"


def _clock(offset_s: float | None) -> str:
    if offset_s is None:
        return "-"
    text = f"{offset_s:+.1f} s"
    return f"[bold]{text}[/]" if abs(offset_s) > WARN_OFFSET_S else text
