"""Variables of the environment that look like settings and are none, such as a misspelt one.

Nothing fails because of them: a container's environment may hold what other programs put there. Kubernetes, for one,
sets variables for every service of a namespace, and a service called `concord` makes them begin like ours.
"""

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

PREFIX = "CONCORD_"
OF_COMMANDS = frozenset({"CONCORD_URL", "CONCORD_CA"})
"""Variables that only commands read which send requests to a running instance."""

_OF_KUBERNETES = re.compile(
    r"CONCORD_(?:[A-Z0-9_]+_)?(?:SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)?)\Z"
)


class UnknownVariable(NamedTuple):
    """A variable that no setting reads."""

    name: str
    meant: str
    """The setting's variable that is spelled nearly so, empty when there is none."""


def unknown_variables(names: Iterable[str], settings: Iterable[str]) -> list[UnknownVariable]:
    """Return the variables among `names` that begin with CONCORD_ and that none of `settings` reads."""
    known = {PREFIX + setting.upper() for setting in settings} | OF_COMMANDS
    unknown = (
        name
        for name in sorted(names)
        if name.upper().startswith(PREFIX) and name.upper() not in known and not _OF_KUBERNETES.match(name)
    )
    return [UnknownVariable(name, *_nearest(name.upper(), known)) for name in unknown]


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8) or [""]
