"""Where a tag is, as a table: `concord replication`."""

from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Column, Table

from registry.cli.client import NoAnswer, ask
from registry.cli.status_text import named

FACTS = {"wins": "yes", "older": "another one", "none": "no"}


def replication_of(image: str, url: str) -> dict[str, Any]:
    """Return the replication state of REPOSITORY:TAG. Raises NoAnswer."""
    repository, colon, tag = image.rpartition(":")
    if not colon or not repository or not tag or "/" in tag:
        raise NoAnswer(f"invalid image {image!r}: expected REPOSITORY:TAG")
    answer: dict[str, Any] = ask(url, f"/_concord/replication/{repository}/{tag}")
    return answer


def is_everywhere(answer: dict[str, Any]) -> bool:
    """Return whether every known instance answered and has the tag with its present digest, and its manifest."""
    return all(one["answers"] and one["fact"] == "wins" and one["manifest"] for one in answer["instances"])


def show(answer: dict[str, Any]) -> RenderableType:
    what = f"{answer['manifests']} manifests, {answer['blobs']} blobs"
    if not answer["whole"]:
        what += ", and more: not all manifests are at the instance that was asked"
    head = f"{answer['repository']}:{answer['tag']} is {answer['digest']} ({what})"
    digest = Column("missing", overflow="fold")
    table = Table("instance", "site", "this tag", "manifest", "manifests", "blobs", digest)
    for one in answer["instances"]:
        table.add_row(named(one), escape(one["site"]), *_cells(answer, one))
    return Group(head, table)


def _cells(answer: dict[str, Any], one: dict[str, Any]) -> list[str]:
    if not one["answers"]:
        return ["no answer", "", "", "", escape(one["problem"])]
    if not answer["manifests"]:
        return [FACTS[one["fact"]], "not known here", "", "", ""]
    missing = [digest[:19] for digest in one["missing"][:3]]
    if one["missing_count"] > len(missing):
        missing.append(f"and {one['missing_count'] - len(missing)} more")
    return [
        FACTS[one["fact"]],
        "yes" if one["manifest"] else "no",
        f"{one['manifests_held']} of {answer['manifests']}",
        f"{one['blobs_held']} of {answer['blobs']}",
        " ".join(missing),
    ]
