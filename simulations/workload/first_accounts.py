"""The accounts with which a run of access control begins, made in one commit, as by the holder of a data directory.

A request for each of their facts would cost a run as much as all changes that are drawn.
"""

import asyncio
import random
from collections.abc import Iterable
from typing import NamedTuple

from registry.access.changes import Draft
from registry.access.facts import (
    OPERATOR,
    ROBOT,
    USER,
    AccountMade,
    CredentialMade,
    Enforced,
    Granted,
    account_subject,
)
from registry.access.keys import RANDOM_SIZE, new_key
from registry.access.patterns import EVERYTHING
from registry.access.rights import CredentialKind, Right
from registry.catalog.access import change_access
from simulations.node import Node
from simulations.process import in_process
from simulations.workload.client import Answer, RequestRecorder
from simulations.workload.credentials import BasicCredential


class FirstAccount(NamedTuple):
    """An account with a key and a grant."""

    name: str
    kind: str
    pattern: str
    rights: frozenset[Right]


STEADY = "steady"
ADMINISTRATORS = ("ann", "bob", "cat")
ROBOTS = {"ci": "*", "bot": "base/*"}
"""Robots, each with the pattern of what it may pull and push at first."""
FIRST_ACCOUNTS = (
    FirstAccount(STEADY, ROBOT, EVERYTHING, frozenset({Right.PULL, Right.PUSH, Right.DELETE})),
    *(FirstAccount(name, ROBOT, pattern, frozenset({Right.PULL, Right.PUSH})) for name, pattern in ROBOTS.items()),
    *(FirstAccount(name, USER, EVERYTHING, frozenset({Right.ADMIN})) for name in ADMINISTRATORS),
)


async def make_first_accounts(
    node: Node, recorder: RequestRecorder, rng: random.Random, is_enforced: bool
) -> list[BasicCredential]:
    """Make the first accounts at an instance, in good weather. Return their keys, in their order."""
    operation = recorder.begin("operator", "access", node, "", "prepare")
    instance, process = node.instance, node.process
    assert instance is not None and process is not None, "it has just started"
    catalog, clock = instance.catalog, instance.clock

    async def commit() -> list[BasicCredential]:
        made, _ = await catalog.database.write(
            lambda tx: change_access(
                tx, catalog.documents, clock, OPERATOR, lambda draft: _say(draft, rng, is_enforced)
            )
        )
        return made

    made = await asyncio.get_running_loop().create_task(commit(), context=in_process(process))
    operation.status = 200
    recorder.end(operation, Answer(200, {}, b""))
    return made


def _say(draft: Draft, rng: random.Random, is_enforced: bool) -> list[BasicCredential]:
    made = [*_say_accounts(draft, rng)]
    if is_enforced:
        draft.say(Enforced())
    return made


def _say_accounts(draft: Draft, rng: random.Random) -> Iterable[BasicCredential]:
    for name, kind, pattern, rights in FIRST_ACCOUNTS:
        account = draft.new_account_id()
        key, hashed = new_key(rng.randbytes(RANDOM_SIZE))
        draft.say(AccountMade(account, name, kind))
        draft.say(Granted(account_subject(account), pattern, rights))
        credential = draft.say(CredentialMade(account, CredentialKind.KEY, hashed))
        yield BasicCredential(name, key, credential, is_steady=name == STEADY)
