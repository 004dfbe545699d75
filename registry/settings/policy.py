"""The placement policy: the number of copies of content, their sites, and the write concern of a push.

A policy is a list of rules, each for the repositories that a pattern matches (`*` stands for any characters, slashes
too). The first rule that matches applies; the last rule matches every repository. All instances should have the same
policy, since each decides by its own policy which content it holds.
"""

import re
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import NamedTuple

from registry.oci.names import Repository
from registry.settings.policy_reach import rules_without_effect

ON_DEMAND = "on demand"
EVERYWHERE = "everywhere"
LOCAL = "local"
EACH_SITE = "each-site"
MAX_COPIES = 1000
DIGEST_BYTES = 8
"""Long enough that policies that differ by mistake have different digests. It is no protection against forgery."""

_SITE = re.compile(r"[a-zA-Z0-9._-]{1,63}\Z")


class Copies(NamedTuple):
    """The copies of content: at a number of instances, at all of them, or at a number of instances of each named
    site."""

    number: int = 0
    everywhere: bool = False
    sites: tuple[tuple[str, int], ...] = ()

    @property
    def least(self) -> int:
        """Number of instances that hold the content by the policy alone; 0 for `everywhere` and `on demand`."""
        return sum(number for _, number in self.sites) or self.number

    def __str__(self) -> str:
        if self.sites:
            return ",".join(f"{site}={number}" for site, number in self.sites)
        return EVERYWHERE if self.everywhere else str(self.number) if self.number else ON_DEMAND


class Acknowledge(NamedTuple):
    """The write concern of a push: the number of holders of the manifest and all its content, including the answering
    instance, or one holder at each site."""

    number: int = 1
    each_site: bool = False

    def __str__(self) -> str:
        return EACH_SITE if self.each_site else str(self.number) if self.number > 1 else LOCAL


class Rule(NamedTuple):
    """The copies and the write concern of the repositories that match a pattern."""

    repositories: str
    copies: Copies
    acknowledge: Acknowledge


class Policy:
    """A list of rules, of which the first that matches a repository applies. All parts of an instance share it."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        """The last rule is for every repository."""
        self.rules = rules
        text = "\n".join(f"{rule.repositories}\t{rule.copies}\t{rule.acknowledge}" for rule in rules)
        self.digest = blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()
        """Equal for equal rules. Instances compare it to detect that their policies differ."""

    def of(self, repository: Repository) -> Rule:
        return next(rule for rule in self.rules if fnmatchcase(repository, rule.repositories))

    def without_effect(self) -> dict[int, str]:
        """Return the positions of the rules that can never apply, and why. The last one stands for what the others
        leave; it may be for nothing."""
        return rules_without_effect([rule.repositories for rule in self.rules[:-1]])

    @property
    def sites(self) -> frozenset[str]:
        """The sites that rules name."""
        return frozenset(site for rule in self.rules for site, _ in rule.copies.sites)

    @property
    def copies_anything(self) -> bool:
        """True if a rule demands copies beyond those made on demand."""
        return any(rule.copies != Copies() for rule in self.rules)


def parse_rule(repositories: str, copies: str | int | dict[str, int], acknowledge: str | int) -> Rule:
    """Raises ValueError for a rule that contradicts itself or cannot be met."""
    wanted, before = parse_copies(copies), _parse_acknowledge(acknowledge)
    if before.number > 1 and not wanted.everywhere and before.number > wanted.least:
        raise ValueError(f"acknowledge {before} asks for more holders than the {wanted} copies that are kept")
    if before.each_site and wanted == Copies():
        raise ValueError("acknowledge each-site asks for holders at every site, and no copies are kept")
    return Rule(repositories, wanted, before)


def parse_copies(value: str | int | dict[str, int]) -> Copies:
    """Parse a number, `everywhere`, `on demand`, or numbers by site: a table, or words such as `eu=2,us=1`."""
    if isinstance(value, dict):
        return _by_site(value)
    text = str(value).strip()
    if "=" in text:
        pairs = [pair.partition("=") for pair in text.split(",")]
        if len({site.strip() for site, _, _ in pairs}) < len(pairs):
            raise ValueError(f"{text!r} names a site twice")
        return _by_site({site.strip(): _number(number) for site, _, number in pairs})
    if text in (ON_DEMAND, "on-demand"):
        return Copies()
    return Copies(everywhere=True) if text == EVERYWHERE else Copies(number=_number(text))


def _by_site(sites: dict[str, int]) -> Copies:
    for site, number in sites.items():
        if not _SITE.match(site) or not 0 < number <= MAX_COPIES:
            raise ValueError(
                f"invalid copies by site {site}={number}: expected a site and a number from 1 to {MAX_COPIES}"
            )
    if not sites:
        raise ValueError("invalid copies by site: expected at least one site")
    return Copies(sites=tuple(sorted(sites.items())))


def _number(text: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,4}\s*", text) or not 0 < int(text) <= MAX_COPIES:
        raise ValueError(
            f"invalid copies {text.strip()!r}: expected a number from 1 to {MAX_COPIES}, `everywhere`, `on demand`, "
            "or numbers by site such as eu=2,us=1"
        )
    return int(text)


def _parse_acknowledge(value: str | int) -> Acknowledge:
    text = str(value).strip()
    if text == LOCAL:
        return Acknowledge()
    if text == EACH_SITE:
        return Acknowledge(each_site=True)
    if not text.isdigit() or not 0 < int(text) <= MAX_COPIES:
        raise ValueError(
            f"invalid acknowledge value {text!r}: expected local, each-site or a number of holders up to {MAX_COPIES}"
        )
    return Acknowledge(number=int(text))
