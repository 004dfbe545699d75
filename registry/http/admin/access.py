"""`/_concord/access/…`: accounts, keys, groups, grants and revocations, and what follows from them.

Every request is a POST with a JSON object, also those that only read: who may sign in is nothing to show to everyone,
and administrative requests are signed with their bodies (`actions`). A change is answered when the own site has it.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec

from registry.access import changes
from registry.access.bindings import claims_text
from registry.access.changes import Draft
from registry.access.facts import ROBOT, USER
from registry.access.keys import RANDOM_SIZE, new_key
from registry.access.passwords import MAX_CHARACTERS, MIN_PASSWORD_CHARACTERS, SALT_SIZE, hash_password
from registry.capabilities import ACCESS
from registry.catalog.access import Changed, change_access
from registry.errors import Unsupported
from registry.http.admin.access_lists import (
    AccountRequest,
    domain_of,
    explain,
    list_accounts,
    list_bindings,
    list_confirmations,
    list_conflicts,
    list_grants,
    list_groups,
    list_keys,
    read,
    way_fields,
)
from registry.http.admin.actions import Action, Outcome
from registry.http.admin.context import AccessControlContext, AdminContext

T = TypeVar("T")


class CreateRequest(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    password: str | None = None
    admin: bool = False


class RemoveRequest(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    distrust: bool = False


class PasswordRequest(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    password: str


class KeyRequest(msgspec.Struct, forbid_unknown_fields=True):
    account: str
    expires_ms: int | None = None


class CertificateRequest(msgspec.Struct, forbid_unknown_fields=True):
    account: str
    subject: str
    expires_ms: int | None = None


class BindingRequest(msgspec.Struct, forbid_unknown_fields=True):
    account: str
    issuer: str
    claims: dict[str, str]
    expires_ms: int | None = None


class FactRequest(msgspec.Struct, forbid_unknown_fields=True):
    id: str


class MemberRequest(msgspec.Struct, forbid_unknown_fields=True):
    group: str
    account: str
    distrust: bool = False


class GrantRequest(msgspec.Struct, forbid_unknown_fields=True):
    subject: str
    repositories: str
    rights: list[str]
    expires_ms: int | None = None


class RevokeRequest(msgspec.Struct, forbid_unknown_fields=True):
    subject: str
    repositories: str
    distrust: bool = False


class EnforceRequest(msgspec.Struct, forbid_unknown_fields=True):
    force: bool = False


async def create_account(admin: AdminContext, body: bytes) -> Outcome:
    """Make an account of a person. `name`; `password`; `admin` makes it an administrator of everything."""
    wanted = read(body, CreateRequest)
    hashed = await _hashed(admin.access, wanted.password) if wanted.password is not None else None
    plan = partial(
        changes.create_account, name=wanted.name, kind=USER, password_hash=hashed, admin=wanted.admin
    )  # fmt: skip
    account, _ = await _change(admin.access, plan)
    return Outcome({"id": account, "name": wanted.name}, {"account": account, "name": wanted.name})


async def create_robot(admin: AdminContext, body: bytes) -> Outcome:
    """Make an account of a program, which signs in by keys. `name`."""
    wanted = read(body, AccountRequest)
    account, _ = await _change(admin.access, partial(changes.create_account, name=wanted.name, kind=ROBOT))
    return Outcome({"id": account, "name": wanted.name}, {"account": account, "name": wanted.name})


async def remove_account(admin: AdminContext, body: bytes) -> Outcome:
    """Remove an account for good. `name`; `distrust` also voids all that it granted."""
    wanted = read(body, RemoveRequest)
    _, done = await _change(
        admin.access, partial(changes.remove_account, name=wanted.name, distrust=wanted.distrust)
    )  # fmt: skip
    return Outcome({"removed": wanted.name, **_voided(done)}, {"name": wanted.name})


async def set_password(admin: AdminContext, body: bytes) -> Outcome:
    """Replace the password of an account. `name` and `password`."""
    wanted = read(body, PasswordRequest)
    hashed = await _hashed(admin.access, wanted.password)
    plan = partial(changes.set_password, name=wanted.name, password_hash=hashed)
    credential, _ = await _change(admin.access, plan)
    return Outcome({"id": credential, "name": wanted.name}, {"name": wanted.name, "credential": credential})


async def block(admin: AdminContext, body: bytes) -> Outcome:
    """Take all rights from an account until it is unblocked. `name`; `distrust` also voids all that it granted."""
    wanted = read(body, RemoveRequest)
    _, done = await _change(admin.access, partial(changes.block, name=wanted.name, distrust=wanted.distrust))
    return Outcome({"blocked": wanted.name, **_voided(done)}, {"name": wanted.name})


async def unblock(admin: AdminContext, body: bytes) -> Outcome:
    """End the blocks of an account. `name`."""
    wanted = read(body, AccountRequest)
    await _change(admin.access, partial(changes.unblock, name=wanted.name))
    return Outcome({"unblocked": wanted.name}, {"name": wanted.name})


async def create_key(admin: AdminContext, body: bytes) -> Outcome:
    """Make a key for an account, usually a robot's. `account`; `expires_ms`. The answer alone has the key."""
    wanted, context = read(body, KeyRequest), admin.access
    key, hashed = new_key(context.clock.entropy(RANDOM_SIZE))
    plan = partial(
        changes.create_key, name=wanted.account, key_hash=hashed, expires_ms=wanted.expires_ms
    )  # fmt: skip
    credential, _ = await _change(context, plan)
    return Outcome({"id": credential, "key": key}, {"name": wanted.account, "credential": credential})


async def create_certificate(admin: AdminContext, body: bytes) -> Outcome:
    """Let client certificates of a subject prove an account. `account` and `subject`; `expires_ms`."""
    wanted = read(body, CertificateRequest)
    plan = partial(
        changes.create_certificate, name=wanted.account, subject=wanted.subject, expires_ms=wanted.expires_ms
    )
    credential, _ = await _change(admin.access, plan)
    return Outcome({"id": credential}, {"name": wanted.account, "credential": credential})


async def revoke_key(admin: AdminContext, body: bytes) -> Outcome:
    """End a key, a password or a certificate for good. `id` of the credential."""
    wanted = read(body, FactRequest)
    await _change(admin.access, partial(changes.withdraw, credential=wanted.id))
    return Outcome({"revoked": wanted.id}, {"credential": wanted.id})


async def create_binding(admin: AdminContext, body: bytes) -> Outcome:
    """Let ID tokens of an identity provider prove an account. `account`; `issuer` is its URL, as tokens state it;
    `claims` are names and values that a token must have; `expires_ms`."""
    wanted = read(body, BindingRequest)
    plan = partial(
        changes.bind, name=wanted.account, issuer=wanted.issuer, claims=wanted.claims, expires_ms=wanted.expires_ms
    )
    binding, _ = await _change(admin.access, plan)
    logged = {"name": wanted.account, "issuer": wanted.issuer, "claims": claims_text(wanted.claims)}
    return Outcome({"id": binding}, {"binding": binding, **logged})


async def revoke_binding(admin: AdminContext, body: bytes) -> Outcome:
    """End a binding for good, and the tokens that rest on it. `id` of the binding."""
    wanted = read(body, FactRequest)
    await _change(admin.access, partial(changes.unbind, binding=wanted.id))
    return Outcome({"revoked": wanted.id}, {"binding": wanted.id})


async def add_member(admin: AdminContext, body: bytes) -> Outcome:
    """Add an account to a group. `group` and `account`."""
    wanted = read(body, MemberRequest)
    await _change(admin.access, partial(changes.add_member, group=wanted.group, name=wanted.account))
    return Outcome({"group": wanted.group, "added": wanted.account}, {"group": wanted.group, "name": wanted.account})


async def remove_member(admin: AdminContext, body: bytes) -> Outcome:
    """Take an account out of a group. `group` and `account`; `distrust` also voids all that it granted as a member."""
    wanted = read(body, MemberRequest)
    plan = partial(changes.remove_member, group=wanted.group, name=wanted.account, distrust=wanted.distrust)
    _, done = await _change(admin.access, plan)
    answer = {"group": wanted.group, "removed": wanted.account, **_voided(done)}
    return Outcome(answer, {"group": wanted.group, "name": wanted.account})


async def grant(admin: AdminContext, body: bytes) -> Outcome:
    """Grant rights. `subject` is an account's name, `group:NAME`, `authenticated` or `anonymous`; `repositories` is a
    pattern; `rights` are of `pull`, `push`, `delete` and `admin`; `expires_ms`."""
    wanted = read(body, GrantRequest)
    plan = partial(
        changes.grant, subject=wanted.subject, pattern=wanted.repositories, rights=wanted.rights,
        expires_ms=wanted.expires_ms,
    )  # fmt: skip
    granted, _ = await _change(admin.access, plan)
    logged = {"subject": wanted.subject, "repositories": wanted.repositories, "rights": ",".join(wanted.rights)}
    return Outcome({"id": granted}, {"grant": granted, **logged})


async def revoke(admin: AdminContext, body: bytes) -> Outcome:
    """End the grants of a `subject` whose pattern is equal to or narrower than that of `repositories`. `remaining` of
    the answer lists the ways in which the subject still has rights on some of them; of those that are not within what
    the caller administers, it has the number alone (`wider`). `distrust` also voids all that it granted by what is
    revoked."""
    wanted, context = read(body, RevokeRequest), admin.access
    plan = partial(
        changes.revoke, subject=wanted.subject, pattern=wanted.repositories, distrust=wanted.distrust
    )  # fmt: skip
    _, done = await _change(context, plan)
    policy = done.policy
    remaining = policy.remaining(
        changes.stored_subject(policy, wanted.subject), wanted.repositories, context.clock.now_ms()
    )
    domain = domain_of(context, policy)
    visible = domain.visible(remaining)
    shown = {"remaining": [way_fields(policy, one) for one in visible], "wider": len(remaining) - len(visible)}
    answer = shown | (_voided(done) if domain.is_everything else {"void": 0})
    return Outcome(answer, {"subject": wanted.subject, "repositories": wanted.repositories})


async def approve(admin: AdminContext, body: bytes) -> Outcome:
    """Say again what a void fact said. `id` is that of the fact."""
    wanted = read(body, FactRequest)
    await _change(admin.access, partial(changes.approve, fact=wanted.id))
    return Outcome({"approved": wanted.id}, {"fact": wanted.id})


async def enforce(admin: AdminContext, body: bytes) -> Outcome:
    """Have the whole cluster enforce access control. It cannot be undone. While a member is too old for it, only with
    `force`."""
    wanted, context = read(body, EnforceRequest), admin.access
    old = [member.shown for member in context.members.all() if ACCESS not in member.capabilities]
    if old and not wanted.force:
        raise Unsupported(
            f"these members cannot enforce access control: {', '.join(old[:10])}; upgrade or remove them first",
            409,
            detail={"reason": "old-members", "members": old[:100]},
        )
    await _change(context, changes.enforce)
    return Outcome({"enforced": True, "old_members": old}, {"forced": bool(old)})


ROUTES: Mapping[str, tuple[str, Action]] = {
    "account/create": ("create account", create_account),
    "account/remove": ("remove account", remove_account),
    "account/password": ("set password", set_password),
    "account/block": ("block account", block),
    "account/unblock": ("unblock account", unblock),
    "account/list": ("list accounts", list_accounts),
    "robot/create": ("create robot", create_robot),
    "key/create": ("create key", create_key),
    "key/revoke": ("revoke key", revoke_key),
    "key/list": ("list keys", list_keys),
    "certificate/create": ("create certificate", create_certificate),
    "binding/create": ("create binding", create_binding),
    "binding/revoke": ("revoke binding", revoke_binding),
    "binding/list": ("list bindings", list_bindings),
    "group/add": ("add member", add_member),
    "group/remove": ("remove member", remove_member),
    "group/list": ("list groups", list_groups),
    "grant": ("grant", grant),
    "revoke": ("revoke", revoke),
    "list": ("list grants", list_grants),
    "explain": ("explain access", explain),
    "conflicts": ("list access conflicts", list_conflicts),
    "confirmations": ("list confirmations", list_confirmations),
    "approve": ("approve", approve),
    "enforce": ("enforce", enforce),
}
"""The requests of this API by their paths below `paths.ACCESS`: names for the log, and handlers."""


async def _change(context: AccessControlContext, plan: Callable[[Draft], T]) -> tuple[T, Changed]:
    """Commit a change, and wait until the own site has it."""

    result, done = await context.database.write(
        lambda tx: change_access(tx, context.documents, context.clock, context.author, plan)
    )
    await context.replication.await_acknowledgements(done.change)
    return result, done


async def _hashed(context: AccessControlContext, password: str) -> str:
    """Return the hash of a password, computed aside: it takes 60 ms."""
    if not MIN_PASSWORD_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        raise Unsupported(
            f"invalid password: expected {MIN_PASSWORD_CHARACTERS} to {MAX_CHARACTERS} characters",
            detail={"reason": "invalid"},
        )
    salt = context.clock.entropy(SALT_SIZE)
    return await asyncio.get_running_loop().run_in_executor(None, hash_password, password, salt)


def _voided(done: Changed) -> dict[str, Any]:
    """Return the field of an answer that counts the facts which are void after a removal."""
    return {"void": sum(finding.kind == "void" for finding in done.policy.findings)}
