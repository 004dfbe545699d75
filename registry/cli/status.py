"""The status of an instance as text for a person: once, or as a table that is updated.

Rates are computed from two answers, so the instance keeps no figures for its watchers.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape

from registry.cli import status_text
from registry.cli.client import NoAnswer, ask
from registry.cluster.placement.collection_reasons import Reason

MIN_TIMEOUT_S = 2.0
"""Seconds to wait for one answer while watching, at least; an instance that hangs is then shown as such."""


class Seen(NamedTuple):
    """An answer, and when it came."""

    answer: dict[str, Any]
    at_s: float


def show(answer: dict[str, Any], before: Seen | None = None, now_s: float = 0.0) -> RenderableType:
    """A status; with an earlier one, rates since that."""
    capabilities = answer.get("capabilities", [])
    members = status_text.members(answer["members"], answer["time_ms"], capabilities)
    return Group(*_lines(answer, before, now_s), members)


def watch(console: Console, url: str, interval_s: float) -> None:
    """Show the status again and again, until Ctrl-C. An instance that does not answer is waited for."""
    before: Seen | None = None
    shown: RenderableType = f"asking {escape(url)}"
    with Live(shown, console=console, auto_refresh=False) as live:
        try:
            while True:
                begun = time.monotonic()
                try:
                    answer = ask(url, "/_concord/status", timeout_s=max(MIN_TIMEOUT_S, interval_s))
                    now = time.monotonic()
                    shown = show(answer, before, now)
                    before = Seen(answer, now)
                    live.update(shown, refresh=True)
                except NoAnswer as error:
                    live.update(Group(f"[bold red]{escape(str(error))}[/]; as it was:", shown), refresh=True)
                time.sleep(max(interval_s - (time.monotonic() - begun), 0.0))
        except KeyboardInterrupt:
            pass  # this is how one stops watching


def _lines(answer: dict[str, Any], before: Seen | None, now_s: float) -> Iterator[str]:
    site = answer["site"] or "-"
    name = f"[bold]{escape(answer['name'])}[/bold], " if answer["name"] else ""
    yield f"{name}instance [bold]{answer['instance']}[/bold] at site [bold]{site}[/bold], {answer['version']}"
    ready = "ready" if answer["ready"] else "[bold]not ready[/bold]"
    yield f"{ready}, state digest {answer['root']}, commit {answer['commit']}"
    yield (
        f"{answer['repositories']} repositories, {answer['facts']} facts, {answer['blobs']} blobs here "
        f"({answer['blob_bytes']} bytes), {answer['uploads']} uploads, {answer['conflicts']} conflicts, "
        f"{answer['manifests_missing']} manifests on their way here"
    )
    if answer.get("capabilities"):
        yield f"capabilities {escape(', '.join(answer['capabilities']))}"
    yield from status_text.lines(answer)
    yield from status_text.access_control(answer)
    key = answer["cluster_key"]
    if key["refused_by"]:
        accepted = f"{key['accepted_by']} other instances accept it" if key["accepted_by"] else "no instance accepts it"
        yield f"[bold red]cluster key refused[/] by {escape(', '.join(key['refused_by']))}; {accepted}"
    yield from _addresses(answer)
    if waits_for := answer.get("read_lease_waits_for"):
        yield f"reads [bold]wait[/bold] for {escape(', '.join(waits_for))} of the same site"
    copies, collected = answer["copies"], answer["collected"]
    if copies["pending"] or copies["missing"]:
        yield f"{copies['pending']} copies on their way here, {copies['missing']} that no holder could send"
    if collected["blocked"]:
        blocked = Reason(collected["blocked"]["reason"], collected["blocked"]["detail"])
        yield f"collection is [bold]blocked[/bold]: {escape(blocked.describe())}"
    if answer["content_quarantined"]:
        yield f"{answer['content_quarantined']} corrupt blobs since the start, {answer['content_repaired']} repaired"
    if before is not None:
        yield _rates(before.answer, answer, now_s - before.at_s)
    for server, heard in answer["bus"].items():
        yield f"bus {escape(server)}: {'heard' if heard else '[bold]not heard[/bold]'}"


def _addresses(answer: dict[str, Any]) -> Iterator[str]:
    address = answer["address"]
    if address["problem"]:
        where = escape(address["advertise"])
        yield f"[bold red]no instance reaches this one[/] at {where}: {escape(address['problem'])}"
    if address["site_problem"]:
        where = escape(address["advertise_site"])
        yield f"[bold red]other sites do not reach this one[/] at {where}: {escape(address['site_problem'])}"
    for shared in answer["shared_addresses"]:
        ids = ", ".join(instance[:12] for instance in shared["instances"])
        yield f"[bold red]address of several instances[/]: {escape(shared['address'])}: {ids}"


def _rates(before: dict[str, Any], answer: dict[str, Any], seconds: float) -> str:
    """An instance that was restarted counts from zero."""
    requests = max(answer["requests"] - before["requests"], 0) / seconds
    frames = max(sum(answer["frames"].values()) - sum(before["frames"].values()), 0) / seconds
    return f"{requests:.1f} requests and {frames:.1f} frames a second"
