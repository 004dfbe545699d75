"""Scopes: the rights that a client asks for, and that a token carries, by resource (Docker's token protocol).

A scope is `TYPE:NAME:ACTIONS`, such as `repository:team/app:pull,push`. Clients send several `scope` parameters,
several scopes in one parameter, and one repository twice: the union counts. `*` stands for all actions. Resources of
other types, and unknown actions, are left out, as the protocol demands: the token says what was granted.
"""

from collections.abc import Iterable, Mapping

from registry.access.rights import Right

REPOSITORY = "repository:"
CATALOG = "registry:catalog"
"""The resource that is the list of repositories."""
ADMINISTRATION = "registry:admin"
"""The resource that is the administration of the whole registry."""
MAX_RESOURCES = 100

Scopes = Mapping[str, frozenset[Right]]

_OF_REGISTRY = {CATALOG: frozenset({Right.PULL}), ADMINISTRATION: frozenset({Right.ADMIN})}
_ACTIONS = {right.value: frozenset({right}) for right in Right} | {"*": frozenset(Right)}


class TooManyScopes(Exception):
    """More resources than one token may name."""


def parse_scopes(texts: Iterable[str]) -> dict[str, frozenset[Right]]:
    """Return the rights that the values of some `scope` parameters ask for, by resource. Raises TooManyScopes."""
    scopes: dict[str, frozenset[Right]] = {}
    for text in (part for given in texts for part in given.split(" ")):
        resource, _, actions = text.rpartition(":")
        if resource in _OF_REGISTRY:
            scopes[resource] = _OF_REGISTRY[resource]
        elif resource.startswith(REPOSITORY) and resource != REPOSITORY:
            wanted = frozenset[Right]().union(*(_ACTIONS.get(action, frozenset()) for action in actions.split(",")))
            scopes[resource] = scopes.get(resource, frozenset()) | wanted
        if len(scopes) > MAX_RESOURCES:
            raise TooManyScopes(f"too many scopes: expected at most {MAX_RESOURCES} resources")
    return scopes


def format_scopes(scopes: Scopes) -> str:
    """Return scopes as one text, as answers carry it."""
    return " ".join(
        f"{resource}:{'*' if resource in _OF_REGISTRY else ','.join(right for right in Right if right in rights)}"
        for resource, rights in scopes.items()
    )
