"""The differences between two running instances: a Merkle diff (`crdt.audit`) with requests to both over HTTP."""

import time
from typing import Any, NamedTuple

from crdt.audit import Summary, compare
from crdt.trie import Prefix
from registry.catalog.queries import KIND
from registry.cli.client import NoAnswer, ask, post

RETRY_INTERVAL_S = 0.5


class TagDifference(NamedTuple):
    """A tag whose live facts are not the same at both; a digest is None where the tag is not there."""

    tag: str
    first: str | None
    second: str | None


class RepositoryDifference(NamedTuple):
    """A document that differs. Without tags, only references to manifests or blobs do."""

    name: str
    tags: list[TagDifference]


class Comparison(NamedTuple):
    first_root: str
    second_root: str
    repositories: list[RepositoryDifference]


def compare_instances(first: str, second: str) -> Comparison:
    """Walk both tries, and compare what differs once more after a moment, since some changes are always on their way.
    Raises NoAnswer."""
    suspects = differing_documents(first, second)
    if suspects:
        time.sleep(RETRY_INTERVAL_S)
        suspects &= differing_documents(first, second)
    repositories = [_repository(first, second, name) for name in sorted(suspects)]
    roots = [ask(url, "/_concord/digest")["root"] for url in (first, second)]
    return Comparison(roots[0], roots[1], repositories)


def differing_documents(first: str, second: str) -> set[str]:
    """The names of the documents of which two instances have different facts."""
    names: dict[bytes, str] = {}
    walk = compare()
    places = next(walk)
    while True:
        try:
            places = walk.send((_summaries(first, places, names), _summaries(second, places, names)))
        except StopIteration as done:
            only_first, only_second = done.value
            return {names[entry] for entry in only_first | only_second}


def _summaries(url: str, places: list[Prefix], names: dict[bytes, str]) -> list[Summary]:
    answer = post(url, "/_concord/digest", {"places": [(f"{place.bits:x}", place.depth) for place in places]})
    try:
        summaries = []
        for summary in answer["summaries"]:
            entries = {bytes.fromhex(entry["entry"]): str(entry["document"]) for entry in summary["entries"]}
            names |= entries
            summaries.append(Summary(tuple(bytes.fromhex(digest) for digest in summary["digests"]), tuple(entries)))
        return summaries
    except (KeyError, TypeError, ValueError):
        raise NoAnswer(f"{url} gave a malformed answer: expected summaries of a comparison") from None


def _repository(first: str, second: str, document: str) -> RepositoryDifference:
    if not document.startswith(KIND):
        return RepositoryDifference(document, [])  # of a newer version
    name = document.removeprefix(KIND)
    one, other = tag_facts(first, name), tag_facts(second, name)
    tags = [
        TagDifference(tag, _winner(one.get(tag)), _winner(other.get(tag)))
        for tag in sorted(one.keys() | other.keys())
        if one.get(tag) != other.get(tag)
    ]
    return RepositoryDifference(name, tags)


def _winner(facts: list[dict[str, Any]] | None) -> str | None:
    return str(facts[0]["digest"]) if facts else None


def tag_facts(url: str, repository: str) -> dict[str, list[dict[str, Any]]]:
    """All live tag facts of a repository, by tag; none where there is no such repository."""
    found: dict[str, list[dict[str, Any]]] = {}
    last = ""
    while last is not None:
        try:
            page = ask(url, "/_concord/digest", {"repository": repository, "last": last})
        except NoAnswer as error:
            if error.status != 404:
                raise
            return found
        found |= {tag: [_plain(fact) for fact in facts] for tag, facts in page["tags"].items()}
        last = page["last"]
    return found


def _plain(fact: dict[str, Any]) -> dict[str, Any]:
    """Return a fact without the fields that only one side may know."""
    return {key: fact[key] for key in ("digest", "time", "writer")}
