"""Changes of access control, drawn from the seed, by the operator and by administrators, at any instance.

There are few accounts, groups and patterns, so that changes concern each other; where sites are cut off from each
other, they are concurrent. One account is steady: no drawn change concerns it, so that the rest of the workload can go
on. Clients of the workload use the credentials of the other ones too, whatever has become of them.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from registry.access.keys import RANDOM_SIZE, new_key
from registry.http.admin.paths import ACCESS
from simulations.network import Network
from simulations.node import Node
from simulations.workload.client import Client, RequestRecorder
from simulations.workload.credentials import BasicCredential, Credential, TokenCredential
from simulations.workload.first_accounts import ADMINISTRATORS, ROBOTS, STEADY, make_first_accounts

NAMES = (*ADMINISTRATORS, *ROBOTS)
GROUP = "devs"
SUBJECTS = (*NAMES, f"group:{GROUP}", "anonymous", "authenticated")
PATTERNS = ("*", "*", "app", "base/*", "s*", "*p*")
RIGHTS = (["pull"], ["pull", "push"], ["pull", "push", "delete"], ["delete"], ["admin"])
BY_OPERATOR = 0.4
BY_PASSWORD_OR_KEY = 0.6
STEADILY = 0.6
"""The share of the workload's operations with the steady credential."""
NO_FACT = "f" * 16
"""The id of a credential that does not exist."""

Fields = Mapping[str, Any]


class AccessChanges:
    """The drawn changes of one run. `clients` are two, for what is asked for at once; `operator` is what the operator
    proves itself by."""

    def __init__(
        self, clients: tuple[Client, Client], operator: Credential, network: Network, rng: random.Random
    ) -> None:
        self._clients = clients
        self._network = network
        self._tokens: dict[str, TokenCredential] = {}
        self._operator = operator
        self._rng = rng
        self.steady: Credential = operator
        self._credentials: list[BasicCredential] = []
        """All that were ever learned, also what is not in force any more."""

    async def prepare(self, node: Node, recorder: RequestRecorder, is_enforced: bool) -> None:
        """Make the accounts of a run, in good weather."""
        self.steady, *self._credentials = await make_first_accounts(node, recorder, self._rng, is_enforced)

    # Single changes, for scenarios too

    async def ask(
        self, node: Node, path: str, fields: Fields, credential: Credential | None = None, which: int = 0
    ) -> dict[str, Any] | None:
        """Ask for a change, as the operator or by a credential. Return the answer; None for a refusal or no answer."""
        client = self._clients[which]
        client.credential = credential or self._operator
        answer = await client.ask("access", node, "POST", ACCESS + path, json.dumps(fields).encode(), reference=path)
        if answer is None or answer.status != 200:
            return None
        read: dict[str, Any] = json.loads(answer.body)
        return read

    async def create_key(self, node: Node, name: str, credential: Credential | None = None) -> BasicCredential | None:
        """Give an account a key, and remember it."""
        made = await self.ask(node, "key/create", {"account": name}, credential)
        return self._remember(name, made["key"], made["id"]) if made is not None else None

    async def set_password(
        self, node: Node, name: str, password: str, credential: Credential | None = None
    ) -> BasicCredential | None:
        """Set the password of an account, and remember it."""
        made = await self.ask(node, "account/password", {"name": name, "password": password}, credential)
        return self._remember(name, password, made["id"]) if made is not None else None

    async def grant(
        self, node: Node, subject: str, pattern: str, rights: list[str], credential: Credential | None = None
    ) -> None:
        """Grant rights."""
        await self.ask(node, "grant", {"subject": subject, "repositories": pattern, "rights": rights}, credential)

    def credentials_of(self, name: str) -> list[BasicCredential]:
        """Return the credentials that an account was given, the oldest first."""
        return [one for one in self._credentials if one.name == name]

    def _remember(self, name: str, secret: str, id: str) -> BasicCredential:
        self._credentials.append(BasicCredential(name, secret, id))
        return self._credentials[-1]

    # Drawn changes

    def choose(self, rng: random.Random) -> Credential:
        """Draw a credential for an operation of the workload."""
        if rng.random() < STEADILY:
            return self.steady
        basic = rng.choice(self._credentials)
        if rng.random() < BY_PASSWORD_OR_KEY:
            return basic
        if basic.id not in self._tokens:
            self._tokens[basic.id] = TokenCredential(self._network, basic, random.Random(rng.random()))
        return self._tokens[basic.id]

    async def draw(self) -> None:
        """Ask for one drawn change."""
        kinds, weights = zip(*MIX.items(), strict=True)
        (kind,) = self._rng.choices(kinds, weights)
        await kind(self, self._node(), self._author())

    def _node(self) -> Node:
        return self._rng.choice(self._clients[0].places())

    def _author(self) -> Credential | None:
        """Draw who asks: None for the operator."""
        if self._rng.random() < BY_OPERATOR:
            return None
        administrators = [one for one in self._credentials if one.name in ADMINISTRATORS]
        return self._rng.choice(administrators if self._rng.random() < 0.8 else self._credentials)

    @property
    def _name(self) -> str:
        return self._rng.choice(NAMES)

    @property
    def _distrust(self) -> bool:
        return self._rng.random() < 0.25

    async def _grant(self, node: Node, author: Credential | None) -> None:
        subject, pattern = self._rng.choice(SUBJECTS), self._rng.choice(PATTERNS)
        await self.grant(node, subject, pattern, self._rng.choice(RIGHTS), author)

    async def _make_administrator(self, node: Node, author: Credential | None) -> None:
        await self.grant(node, self._rng.choice(ADMINISTRATORS), "*", ["admin"], author)

    async def _revoke(self, node: Node, author: Credential | None) -> None:
        subject, pattern = self._rng.choice(SUBJECTS), self._rng.choice(PATTERNS)
        fields = {"subject": subject, "repositories": pattern, "distrust": self._distrust}
        await self.ask(node, "revoke", fields, author)

    async def _block(self, node: Node, author: Credential | None) -> None:
        await self.ask(node, "account/block", {"name": self._name, "distrust": self._distrust}, author)

    async def _unblock(self, node: Node, author: Credential | None) -> None:
        await self.ask(node, "account/unblock", {"name": self._name}, author)

    async def _remove(self, node: Node, author: Credential | None) -> None:
        """Remove an account, and often make one of that name again, which is another one."""
        name = self._name
        await self.ask(node, "account/remove", {"name": name, "distrust": self._distrust}, author)
        if self._rng.random() < 0.6:
            await self._create_as(name, self._node(), author)

    async def _create(self, node: Node, author: Credential | None) -> None:
        await self._create_as(self._name, node, author)

    async def _create_as(self, name: str, node: Node, author: Credential | None) -> None:
        if name in ROBOTS:
            made = await self.ask(node, "robot/create", {"name": name}, author)
        else:
            made = await self.ask(node, "account/create", {"name": name, "admin": self._rng.random() < 0.7}, author)
        if made is not None:
            await self.create_key(node, name, author)

    async def _create_key(self, node: Node, author: Credential | None) -> None:
        await self.create_key(node, self._name, author)

    async def _withdraw(self, node: Node, author: Credential | None) -> None:
        known = [one.id for one in self._credentials] + [NO_FACT]
        await self.ask(node, "key/revoke", {"id": self._rng.choice(known)}, author)

    async def _set_password(self, node: Node, author: Credential | None) -> None:
        """Set a password: often one's own, else it is a reset."""
        name = author.name if isinstance(author, BasicCredential) and self._rng.random() < 0.5 else self._name
        await self.set_password(node, name, f"password {self._rng.randrange(10_000)}", author)

    async def _join(self, node: Node, author: Credential | None) -> None:
        await self.ask(node, "group/add", {"group": GROUP, "account": self._name}, author)

    async def _leave(self, node: Node, author: Credential | None) -> None:
        fields = {"group": GROUP, "account": self._name, "distrust": self._distrust}
        await self.ask(node, "group/remove", fields, author)

    async def _approve(self, node: Node, author: Credential | None) -> None:
        """Approve a void fact, if there is one."""
        listed = await self.ask(node, "conflicts", {}, author)
        void = [one["id"] for one in (listed or {}).get("conflicts", ()) if one["conflict"] == "void"]
        await self.ask(node, "approve", {"id": self._rng.choice(void or [NO_FACT])}, author)

    async def _remove_each_other(self, node: Node, author: Credential | None) -> None:
        """Have two administrators remove each other at once, at two instances."""
        one, other = self._rng.sample(ADMINISTRATORS, 2)
        await self.remove_each_other((one, node), (other, self._node()))

    async def remove_each_other(self, one: tuple[str, Node], other: tuple[str, Node]) -> None:
        """Have two administrators remove each other, each at an instance."""
        pairs = (one, other[0]), (other, one[0])
        removals = (
            self.ask(node, "account/remove", {"name": name}, self.credentials_of(by)[-1], which)
            for which, ((by, node), name) in enumerate(pairs)
        )
        await asyncio.gather(*removals)

    async def _fail_to_sign_in(self, node: Node, author: Credential | None) -> None:
        """Ask for a change with a secret that is none of the account's."""
        key, _ = new_key(self._rng.randbytes(RANDOM_SIZE))
        secret = self._rng.choice((key, f"a wrong password {self._rng.randrange(10_000)}"))
        wrong = BasicCredential(self._rng.choice((*NAMES, STEADY)), secret, NO_FACT)
        await self.ask(node, "account/block", {"name": self._name}, wrong)


MIX: dict[Callable[[AccessChanges, Node, Credential | None], Awaitable[None]], int] = {
    AccessChanges._grant: 16,
    AccessChanges._make_administrator: 5,
    AccessChanges._revoke: 12,
    AccessChanges._block: 6,
    AccessChanges._unblock: 6,
    AccessChanges._remove: 8,
    AccessChanges._create: 6,
    AccessChanges._create_key: 6,
    AccessChanges._withdraw: 5,
    AccessChanges._set_password: 9,
    AccessChanges._join: 5,
    AccessChanges._leave: 4,
    AccessChanges._approve: 3,
    AccessChanges._remove_each_other: 3,
    AccessChanges._fail_to_sign_in: 4,
}
"""The kinds of changes, and how often each is drawn."""
