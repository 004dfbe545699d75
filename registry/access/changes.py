"""Changes of access control: the facts that each command says, and what refuses it.

A change is planned over the facts that are there, and checked by the rules that will judge it: what would be void, or
would not come into force, is refused at once and changes nothing. A change that would leave no administrator is
refused, too. Every function raises OciError.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from crdt.clock import COUNTER_BITS
from crdt.fact import MAX_TEXT_BYTES
from registry.access.bindings import check_claims, claims_text
from registry.access.facts import (
    ANYONE,
    BOOTSTRAP,
    MAX_AFTER,
    OPERATOR,
    ROBOT,
    SIGNED_IN,
    USER,
    AccountMade,
    AccountRemoved,
    Blocked,
    Body,
    Bound,
    CredentialMade,
    Enforced,
    Granted,
    Joined,
    Left,
    Origin,
    Revoked,
    Statement,
    Unblocked,
    Withdrawn,
    account_subject,
    group_subject,
    is_account_name,
    is_group_name,
    is_secret,
    kind_of,
    read_statement,
    text_of,
)
from registry.access.patterns import EVERYTHING, is_pattern, normalized
from registry.access.policy import Account, Policy
from registry.access.rights import CredentialKind, Right
from registry.errors import Denied, Unsupported
from registry.settings.addresses import parse_issuer

RESERVED = frozenset({ANYONE, SIGNED_IN, OPERATOR})
ACCOUNT_BYTES, FACT_BYTES = 16, 8


class Author(NamedTuple):
    """Who makes a change, at which place and time."""

    by: str
    time: int
    writer: int
    draw: Callable[[int], bytes]
    """Returns so many unpredictable bytes."""


class Draft:
    """A change that is being planned over the facts that are there."""

    def __init__(self, statements: Sequence[Statement], policy: Policy, author: Author) -> None:
        """`policy` is that of the statements."""
        self._statements = statements
        self.policy = policy
        self._author = author
        self._after = policy.heads[:MAX_AFTER]
        self.said: list[Statement] = []

    @property
    def now_ms(self) -> int:
        return self._author.time >> COUNTER_BITS

    @property
    def by(self) -> str:
        return self._author.by

    def new_account_id(self) -> str:
        return self._author.draw(ACCOUNT_BYTES).hex()

    def say(self, body: Body) -> str:
        """Add a fact, which has seen all before it. Return its id. Raises Unsupported for a fact that could not be
        read: all instances would stop serving at it."""
        id = self._author.draw(FACT_BYTES).hex()
        origin = Origin(id, self._author.by, self._after, self._author.time, self._author.writer)
        statement = Statement(origin, body)
        text = text_of(statement)
        if read_statement(text) != statement or len(text.encode()) > MAX_TEXT_BYTES:
            raise _refused(
                f"{kind_of(body).removeprefix('!')}: a field is too long, or holds what it cannot", "invalid"
            )
        self.said.append(statement)
        self._after = (id,)
        return id

    def require_administrator(self, pattern: str = EVERYTHING) -> None:
        """Raise Denied unless the author is an administrator of all that a pattern matches."""
        if self.by != OPERATOR and not self.policy.administers(self.by, pattern, self.now_ms):
            raise lacks_administration(pattern)

    def finish(self) -> Policy:
        """Return the policy that the change leads to. Raises Unsupported for a change that the rules do not allow."""
        after = Policy([*self._statements, *self.said])
        drafted = {one.origin.id for one in self.said}
        if any(finding.kind == "void" and finding.id in drafted for finding in after.findings):
            raise _refused("the rules of access control make this void here and now", "void", 409)
        granted = {one.origin.id for one in self.said if isinstance(one.body, Granted)}
        if granted - {way.grant for ways in after.ways.values() for way in ways}:
            raise _refused(
                "revocations that were made while sites were cut off from each other still end this grant: revoke "
                "again, then grant",
                "revoked-concurrently",
                409,
            )
        if self.policy.administrators(self.now_ms) and not after.administrators(self.now_ms):
            raise _refused("this would leave no administrator: make another one first", "last-administrator", 409)
        return after


def create_account(
    draft: Draft, name: str, kind: str = USER, password_hash: str | None = None, admin: bool = False
) -> str:
    """Make an account, an administrator of everything if asked. Return its id."""
    draft.require_administrator()
    if kind not in (USER, ROBOT):
        raise _refused(f"invalid kind {kind[:70]!r}: expected {USER!r} or {ROBOT!r}", "invalid")
    if not is_account_name(name) or name in RESERVED:
        raise _refused(
            f"invalid name {name[:70]!r}: expected at most 63 lower-case letters, digits, dots, dashes and "
            f"underscores, the first a letter or digit, and none of {', '.join(sorted(RESERVED))}",
            "invalid",
        )
    if draft.policy.named(name) is not None:
        raise _refused(f"there is an account {name} already", "account-exists", 409)
    account = draft.new_account_id()
    _say_account(draft, account, name, kind, password_hash, admin)
    return account


def create_bootstrap(draft: Draft, name: str, password_hash: str) -> None:
    """Make the administrator of the first start, whose id is the same wherever an instance starts for the first
    time."""
    _say_account(draft, BOOTSTRAP, name, USER, password_hash, admin=True)


def _say_account(draft: Draft, account: str, name: str, kind: str, password_hash: str | None, admin: bool) -> None:
    """Say the facts of a new account. The grant comes last: it ends the rights of the bootstrap account."""
    draft.say(AccountMade(account, name, kind))
    if password_hash is not None:
        draft.say(CredentialMade(account, CredentialKind.PASSWORD, password_hash))
    if admin:
        draft.say(Granted(account_subject(account), EVERYTHING, frozenset({Right.ADMIN})))


def remove_account(draft: Draft, name: str, distrust: bool = False) -> None:
    """Remove an account for good, with everything that belongs to it."""
    draft.require_administrator()
    draft.say(AccountRemoved(_named(draft, name).id, distrust))


def set_password(draft: Draft, name: str, password_hash: str) -> str:
    """Replace the password of an account: one's own, or as an administrator any. Return the credential's id."""
    account = _named(draft, name)
    if draft.by != account.id:
        draft.require_administrator()
    return draft.say(CredentialMade(account.id, CredentialKind.PASSWORD, password_hash))


def block(draft: Draft, name: str, distrust: bool = False) -> None:
    """Take all rights from an account until it is unblocked."""
    draft.require_administrator()
    draft.say(Blocked(_named(draft, name).id, distrust))


def unblock(draft: Draft, name: str) -> None:
    """End the blocks of an account that are there."""
    draft.require_administrator()
    account = _named(draft, name)
    if not account.is_blocked:
        raise _refused(f"{name} is not blocked", "not-blocked", 409)
    draft.say(Unblocked(account.id))


def create_key(draft: Draft, name: str, key_hash: str, expires_ms: int | None = None) -> str:
    """Give an account one more key. Return the credential's id."""
    draft.require_administrator()
    return draft.say(CredentialMade(_named(draft, name).id, CredentialKind.KEY, key_hash, expires_ms))


def create_certificate(draft: Draft, name: str, subject: str, expires_ms: int | None = None) -> str:
    """Let client certificates of a subject prove an account. Return the credential's id."""
    draft.require_administrator()
    if not is_secret(subject):
        raise _refused("invalid subject: expected at most 400 printable characters of ASCII", "invalid")
    return draft.say(CredentialMade(_named(draft, name).id, CredentialKind.CERTIFICATE, subject, expires_ms))


def bind(draft: Draft, name: str, issuer: str, claims: Mapping[str, str], expires_ms: int | None = None) -> str:
    """Let ID tokens of an issuer with these claims prove an account. Return the binding's id."""
    draft.require_administrator()
    account = _named(draft, name)
    try:
        parse_issuer(issuer)
        check_claims(issuer, claims)
    except ValueError as error:
        raise _refused(str(error), "invalid") from None
    if expires_ms is not None and expires_ms <= draft.now_ms:
        raise _refused("invalid expiry: it has passed", "invalid")
    return draft.say(Bound(account.id, issuer, claims_text(claims), expires_ms))


def unbind(draft: Draft, binding: str) -> None:
    """End a binding for good, by its id."""
    draft.require_administrator()
    if not any(one.id == binding for bindings in draft.policy.bindings.values() for one in bindings):
        raise _refused(f"there is no binding {binding[:70]!r}", "binding-unknown", 404)
    draft.say(Withdrawn(binding))


def withdraw(draft: Draft, credential: str) -> None:
    """End a credential for good, by its id: one's own, or as an administrator any."""
    listed = [one for credentials in draft.policy.credentials.values() for one in credentials if one.id == credential]
    if not listed:
        raise _refused(f"there is no credential {credential[:70]!r}", "credential-unknown", 404)
    if listed[0].account != draft.by:
        draft.require_administrator()
    draft.say(Withdrawn(credential))


def add_member(draft: Draft, group: str, name: str) -> None:
    """Add an account to a group. A group is there while it has members or grants."""
    draft.require_administrator()
    draft.say(Joined(_group(group), _named(draft, name).id))


def remove_member(draft: Draft, group: str, name: str, distrust: bool = False) -> None:
    """Take an account out of a group."""
    draft.require_administrator()
    account = _named(draft, name)
    if _group(group) not in draft.policy.groups.get(account.id, ()):
        raise _refused(f"{name} is not in the group {group}", "not-a-member", 404)
    draft.say(Left(group, account.id, distrust))


def grant(draft: Draft, subject: str, pattern: str, rights: Collection[str], expires_ms: int | None = None) -> str:
    """Grant rights on the repositories that a pattern matches. Return the grant's id."""
    pattern = _pattern(pattern)
    draft.require_administrator(pattern)
    if not rights or not {*rights} <= {*Right}:
        raise _refused(f"invalid rights: expected one or more of {', '.join(Right)}", "invalid")
    stored = stored_subject(draft.policy, subject)
    if stored in (ANYONE, SIGNED_IN) and Right.ADMIN in rights:
        raise _refused(f"{subject} cannot be an administrator", "invalid")
    if expires_ms is not None and expires_ms <= draft.now_ms:
        raise _refused("invalid expiry: it has passed", "invalid")
    return draft.say(Granted(stored, pattern, frozenset(map(Right, rights)), expires_ms))


def revoke(draft: Draft, subject: str, pattern: str, distrust: bool = False) -> None:
    """End the grants of a subject whose pattern is equal to a pattern or narrower, those that are unseen here, too."""
    pattern = _pattern(pattern)
    draft.require_administrator(pattern)
    draft.say(Revoked(stored_subject(draft.policy, subject), pattern, distrust))


def enforce(draft: Draft) -> None:
    """Have the whole cluster enforce access control."""
    draft.require_administrator()
    if not draft.policy.administrators(draft.now_ms):
        raise _refused("there is no administrator yet: create one first", "no-administrator", 409)
    draft.say(Enforced())


def approve(draft: Draft, fact: str) -> None:
    """Say again what a void fact said, on the own authority."""
    draft.require_administrator()
    void = [one.statement for one in draft.policy.findings if one.kind == "void" and one.id == fact]
    if not void:
        raise _refused(f"there is no void fact {fact[:70]!r}", "fact-unknown", 404)
    draft.say(void[0].body)


def recover(draft: Draft, name: str, password_hash: str) -> str:
    """Make an administrator, or an account that is there one again, whatever was removed. Return its id. For the holder
    of a data directory alone."""
    account = draft.policy.named(name)
    if account is None:
        return create_account(draft, name, USER, password_hash, admin=True)
    if account.is_blocked:
        draft.say(Unblocked(account.id))
    draft.say(CredentialMade(account.id, CredentialKind.PASSWORD, password_hash))
    draft.say(Granted(account_subject(account.id), EVERYTHING, frozenset({Right.ADMIN})))
    return account.id


def stored_subject(policy: Policy, subject: str) -> str:
    """Return a subject as facts have it, of `anonymous`, `authenticated`, `group:NAME` or the name of an account."""
    if subject in (ANYONE, SIGNED_IN):
        return subject
    if subject.startswith("group:"):
        return group_subject(_group(subject.removeprefix("group:")))
    account = policy.named(subject)
    if account is None:
        raise _no_account(subject)
    return account_subject(account.id)


def lacks_administration(pattern: str) -> Denied:
    """Return the refusal of what only an administrator of all that a pattern matches may do or see."""
    detail = {"reason": "administrator-required", "right": Right.ADMIN.value, "repository": pattern}
    return Denied(f"this needs the right admin on all that {pattern[:70]!r} matches", detail)


def _named(draft: Draft, name: str) -> Account:
    account = draft.policy.named(name)
    if account is None:
        raise _no_account(name)
    return account


def _no_account(name: str) -> Unsupported:
    return _refused(f"there is no account {name[:70]!r}", "account-unknown", 404)


def _group(name: str) -> str:
    if not is_group_name(name):
        raise _refused(f"invalid group {name[:70]!r}: expected at most 127 letters, digits and . _ : / @ -", "invalid")
    return name


def _pattern(text: str) -> str:
    pattern = normalized(text)
    if not is_pattern(pattern):
        raise _refused(
            f"invalid pattern {text[:70]!r}: expected at most 255 characters of a repository's name, and `*` for any "
            "others",
            "invalid",
        )
    return pattern


def _refused(message: str, reason: str, status: int = 400) -> Unsupported:
    return Unsupported(message, status, detail={"reason": reason})
