"""Scopes as clients send them."""

import pytest

from registry.access.rights import Right
from registry.access.scopes import TooManyScopes, format_scopes, parse_scopes

PULL, PUSH, DELETE, ADMIN = Right.PULL, Right.PUSH, Right.DELETE, Right.ADMIN


@pytest.mark.parametrize(
    ("given", "scopes"),
    [
        ([], {}),
        ([""], {}),
        (["repository:app:pull"], {"app": {PULL}}),
        (["repository:team/app:pull,push"], {"team/app": {PULL, PUSH}}),
        (["repository:a:pull", "repository:b:push"], {"a": {PULL}, "b": {PUSH}}),
        (["repository:a:pull repository:b:push"], {"a": {PULL}, "b": {PUSH}}),
        (["repository:a:pull", "repository:a:push"], {"a": {PULL, PUSH}}),
        (["repository:a:pull repository:a:push"], {"a": {PULL, PUSH}}),
        (["repository:a:*"], {"a": {PULL, PUSH, DELETE, ADMIN}}),
        (["repository:host:5000/a:pull"], {"host:5000/a": {PULL}}),
        (["repository:a:fly,pull"], {"a": {PULL}}),
        (["repository:a:"], {"a": set()}),
        (["repository::pull", "repository:", ":", "x", "repository(plugin):a:pull", "other:a:pull"], {}),
    ],
)
def test_scopes_are_read_as_a_union(given, scopes):
    assert parse_scopes(given) == {f"repository:{name}": rights for name, rights in scopes.items()}


def test_the_registry_has_two_resources():
    assert parse_scopes(["registry:catalog:*", "registry:admin:*", "registry:other:*"]) == {
        "registry:catalog": {PULL},
        "registry:admin": {ADMIN},
    }


def test_a_repository_is_never_taken_for_the_registry():
    assert parse_scopes(["repository:registry:admin:*"]) == {"repository:registry:admin": set(Right)}


def test_too_many_resources_are_refused():
    with pytest.raises(TooManyScopes):
        parse_scopes(f"repository:a{number}:pull" for number in range(101))


def test_scopes_are_written_as_they_are_read():
    text = "repository:a:pull,push registry:catalog:* repository:b:delete"
    assert format_scopes(parse_scopes([text])) == text
