"""Lists of `/_concord/access/…`: accounts, keys, groups and grants, what gives a right, conflicts, and which members
have the same facts."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from crdt.clock import COUNTER_BITS
from registry.access import changes
from registry.access.bindings import Binding
from registry.access.facts import OPERATOR, group_subject, kind_of
from registry.access.patterns import EVERYTHING
from registry.access.policy import Account, Finding, Policy, Way
from registry.access.rights import Caller, Credential, CredentialKind
from registry.errors import Unsupported
from registry.http.admin.actions import Outcome
from registry.http.admin.context import AccessControlContext, AdminContext
from registry.oci.names import parse_repository

R = TypeVar("R", bound=msgspec.Struct)


class AccountRequest(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class ListRequest(msgspec.Struct, forbid_unknown_fields=True):
    pass


class ExplainRequest(msgspec.Struct, forbid_unknown_fields=True):
    account: str
    repository: str


def read(body: bytes, kind: type[R]) -> R:
    """Read the body of a request. Raises Unsupported."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unsupported(f"malformed request body: {error}", 400) from None


async def list_accounts(admin: AdminContext, body: bytes) -> Outcome:
    """List the accounts, with their groups, credentials and bindings."""
    read(body, ListRequest)
    policy = _policy(admin)
    return Outcome({"accounts": [_account(policy, one) for one in _sorted(policy)]})


async def list_keys(admin: AdminContext, body: bytes) -> Outcome:
    """List the keys of an account, and when this instance has last accepted each. `name`."""
    wanted = read(body, AccountRequest)
    policy = _policy(admin)
    account = policy.named(wanted.name)
    if account is None:
        raise _unknown_account(wanted.name)
    listed = policy.credentials.get(account.id, ())
    keys = [one for one in listed if one.kind != CredentialKind.PASSWORD]
    uses = admin.access.uses
    return Outcome({"keys": [credential_fields(one) | {"last_used_ms": uses.last_use_ms(one.id)} for one in keys]})


async def list_bindings(admin: AdminContext, body: bytes) -> Outcome:
    """List the bindings of accounts to identity providers."""
    read(body, ListRequest)
    policy = _policy(admin)
    listed = [one for account in _sorted(policy) for one in policy.bindings.get(account.id, ())]
    return Outcome({"bindings": [{"account": one.name, **_binding(one)} for one in listed]})


async def list_groups(admin: AdminContext, body: bytes) -> Outcome:
    """List the groups with their members, those that have only grants too."""
    read(body, ListRequest)
    policy = _policy(admin)
    prefix = "group:"
    found: dict[str, list[str]] = {
        subject.removeprefix(prefix): [] for subject in policy.ways if subject.startswith(prefix)
    }
    for account, groups in policy.groups.items():
        for group in groups:
            found.setdefault(group, []).append(policy.accounts[account].name)
    return Outcome({"groups": [{"name": name, "members": sorted(found[name])} for name in sorted(found)]})


async def list_grants(admin: AdminContext, body: bytes) -> Outcome:
    """List the grants, and whether the cluster enforces access control. An administrator of a pattern is shown the
    grants within it, and neither the number of accounts nor the administrators."""
    read(body, ListRequest)
    context = admin.access
    policy, now_ms = context.access.policy, context.clock.now_ms()
    domain = domain_of(context, policy)
    if not domain.is_everything and not policy.administers_any(domain.author, now_ms):
        raise changes.lacks_administration(EVERYTHING)
    ways = domain.visible(way for subject in sorted(policy.ways) for way in policy.ways[subject])
    answer: dict[str, Any] = {
        "enforced": policy.is_enforced,
        "restored": context.access.is_restored,
        "grants": [_way_state(policy, one, now_ms) for one in ways],
    }
    if domain.is_everything:
        answer |= {
            "revision": context.access.digest,
            "accounts": len(policy.accounts),
            "administrators": sorted(policy.accounts[one].name for one in policy.administrators(now_ms)),
        }
    return Outcome(answer)


async def explain(admin: AdminContext, body: bytes) -> Outcome:
    """Explain the rights of an `account`, or `anonymous`, on a `repository`: each right, and the grants behind it. An
    administrator of a pattern is shown the grants within it (`ways`), and the number of others that count too
    (`wider`)."""
    wanted = read(body, ExplainRequest)
    context = admin.access
    policy, now_ms = context.access.policy, context.clock.now_ms()
    repository = parse_repository(wanted.repository)
    domain = domain_of(context, policy)
    if not domain.includes(repository):
        raise changes.lacks_administration(repository)
    account = policy.named(wanted.account)
    if account is None and wanted.account != "anonymous":
        raise _unknown_account(wanted.account)
    caller = Caller(account.id if account is not None else "")
    rights = policy.rights(caller, repository, now_ms)
    ways = policy.concerning(caller, repository)
    visible = domain.visible(ways)
    groups = sorted(policy.groups.get(caller.account, ()))
    subjects = {way.subject for way in visible}
    return Outcome(
        {
            "account": wanted.account,
            "repository": repository,
            "enforced": policy.is_enforced,
            "blocked": account.is_blocked if account is not None else False,
            "groups": [one for one in groups if domain.is_everything or group_subject(one) in subjects],
            "rights": {right: rights[right] for right in sorted(rights)},
            "ways": [_way_state(policy, one, now_ms) for one in visible],
            "wider": len(ways) - len(visible),
        }
    )


async def list_conflicts(admin: AdminContext, body: bytes) -> Outcome:
    """List what the conflict rules have left out: void facts, renamed accounts, passwords that lost."""
    read(body, ListRequest)
    policy = _policy(admin)
    return Outcome({"conflicts": [_finding(policy, one) for one in policy.findings]})


async def list_confirmations(admin: AdminContext, body: bytes) -> Outcome:
    """List the members that have not confirmed the facts of this instance: the last heartbeat of each names another
    `revision` of access control."""
    read(body, ListRequest)
    context = admin.access
    revision, members = context.access.digest, context.members.all()
    unconfirmed = [
        {
            "instance": member.instance,
            "name": member.beat.name,
            "site": member.beat.site,
            "reachable": member.reachable,
        }
        for member in members
        if member.beat.access != revision
    ]
    return Outcome({"revision": revision, "members": len(members), "unconfirmed": unconfirmed})


def _policy(admin: AdminContext) -> Policy:
    context = admin.access
    return context.access.policy


class Domain(NamedTuple):
    """The repositories that the author of a request administers."""

    author: str
    policy: Policy
    now_ms: int

    @property
    def is_everything(self) -> bool:
        """True for an administrator of all repositories, and for the operator."""
        return self.includes(EVERYTHING)

    def includes(self, pattern: str) -> bool:
        """Return whether all that a pattern matches is in it."""
        return self.author == OPERATOR or self.policy.administers(self.author, pattern, self.now_ms)

    def visible(self, ways: Iterable[Way]) -> list[Way]:
        """Return the grants that are within it: the author may see no others."""
        return [way for way in ways if self.includes(way.pattern)]


def domain_of(context: AccessControlContext, policy: Policy) -> Domain:
    """Return the domain of the author of a request by a policy."""
    return Domain(context.author, policy, context.clock.now_ms())


def _unknown_account(name: str) -> Unsupported:
    return Unsupported(f"there is no account {name[:70]!r}", 404, detail={"reason": "account-unknown"})


def is_past(expires_ms: int | None, now_ms: int) -> bool:
    return expires_ms is not None and expires_ms <= now_ms


def _sorted(policy: Policy) -> Sequence[Account]:
    return sorted(policy.accounts.values(), key=lambda account: account.name)


def _account(policy: Policy, account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "kind": account.kind,
        "blocked": account.is_blocked,
        "groups": sorted(policy.groups.get(account.id, ())),
        "bindings": [_binding(one) for one in policy.bindings.get(account.id, ())],
        "credentials": [credential_fields(one) for one in policy.credentials.get(account.id, ())],
    }


def credential_fields(credential: Credential) -> dict[str, Any]:
    """Return a credential without its secret; the subject of a certificate is none."""
    subject = {"subject": credential.secret} if credential.kind == CredentialKind.CERTIFICATE else {}
    return {"id": credential.id, "kind": credential.kind, "expires_ms": credential.expires_ms, **subject}


def _binding(binding: Binding) -> dict[str, Any]:
    return {
        "id": binding.id,
        "issuer": binding.issuer,
        "claims": dict(binding.claims),
        "expires_ms": binding.expires_ms,
    }


def _way_state(policy: Policy, way: Way, now_ms: int) -> dict[str, Any]:
    """Return a grant, also one that has expired."""
    return way_fields(policy, way) | {"expired": is_past(way.expires_ms, now_ms)}


def way_fields(policy: Policy, way: Way) -> dict[str, Any]:
    """Return a grant as answers show it."""
    return {
        "id": way.grant,
        "subject": _shown_subject(policy, way.subject),
        "repositories": way.pattern,
        "rights": sorted(way.rights),
        "expires_ms": way.expires_ms,
    }


def _shown_subject(policy: Policy, subject: str) -> str:
    kind, _, name = subject.partition(":")
    return policy.accounts[name].name if kind == "account" and name in policy.accounts else subject


def _finding(policy: Policy, finding: Finding) -> dict[str, Any]:
    """Return a finding, with what the fact says except for secrets."""
    origin, body = finding.statement
    fields = {name: value for name, value in body._asdict().items() if name != "secret"}
    by = policy.accounts[origin.by].name if origin.by in policy.accounts else origin.by
    account = policy.accounts.get(str(fields.get("account", "")))
    shown = {"shown_as": account.name} if account is not None else {}
    said = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in fields.items()}
    return {
        "id": finding.id,
        "conflict": finding.kind,
        "kind": kind_of(body).removeprefix("!"),
        "by": by,
        "time_ms": origin.time >> COUNTER_BITS,
        "said": said,
        **shown,
    }
