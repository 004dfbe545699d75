"""Facts of access control: what they say, and their texts in the document `access`.

    kind              fields between the origin and the time
    !account          account, name, user or robot
    !account-removed  account, distrust
    !credential       account, password or key or certificate, secret, expiry
    !withdrawal       id of a credential or a binding
    !member           group, account
    !member-removed   group, account, distrust
    !grant            subject, pattern, rights, expiry
    !revocation       subject, pattern, distrust
    !binding          account, issuer, claims, expiry
    !block            account, distrust
    !unblock          account
    !enforce

Each fact begins with its kind and its *origin*: a random id, `by` (the account that says it, or `operator`: the holder
of the cluster key or of a data directory) and `after`. `after` names the newest facts that were there when this one was
made, as a commit of Git names its parents. What these name in turn is known then, too. So the facts form a graph that
shows which of them an author had seen, and no fact grows with the number of those before it (Matrix's `prev_events`,
p2panda's `previous`).

No fact of this document is ever deleted or replaced: a removal is a fact of its own. So a document is a set that only
grows, and the order in which facts arrive cannot matter. All kinds are critical (`crdt.fact`): a version that does not
understand one must not decide as if it were not there.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from crdt.fact import Fact, FactReader
from registry.access.patterns import is_pattern
from registry.access.rights import CredentialKind, Right

DOCUMENT = "access"
OPERATOR = "operator"
BOOTSTRAP = "0" * 31 + "1"
"""The account of the first start, whose id is the same at every instance."""
ANYONE = "anonymous"
"""The subject that stands for every caller."""
SIGNED_IN = "authenticated"
"""The subject that stands for every account."""

USER, ROBOT = "user", "robot"
MAX_AFTER = 16
"""Facts that one fact names as seen. More are left only where as many instances have written while cut off; then a fact
has seen less than it could have, and that never gives a right."""
MAX_EXPIRY_MS = 2**53

_ID = re.compile(r"[0-9a-f]{16}\Z")
_ACCOUNT = re.compile(r"[0-9a-f]{32}\Z")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_GROUP = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,126}\Z")
_SECRET = re.compile(r"[\x20-\x7e]{1,400}\Z")
_EXPIRY = re.compile(r"(?:0|[1-9][0-9]{0,15})?\Z")
_CLAIMS = re.compile(r"\{[\x20-\x7e]{0,398}\}\Z")


class Origin(NamedTuple):
    """Where a fact comes from."""

    id: str
    by: str
    after: tuple[str, ...]
    time: int
    writer: int


class AccountMade(NamedTuple):
    account: str
    name: str
    kind: str


class AccountRemoved(NamedTuple):
    account: str
    distrust: bool = False


class CredentialMade(NamedTuple):
    account: str
    kind: CredentialKind
    secret: str
    expires_ms: int | None = None


class Withdrawn(NamedTuple):
    """A credential or a binding, by the id of its fact, is dead for good."""

    target: str


class Joined(NamedTuple):
    group: str
    account: str


class Left(NamedTuple):
    group: str
    account: str
    distrust: bool = False


class Granted(NamedTuple):
    subject: str
    pattern: str
    rights: frozenset[Right]
    expires_ms: int | None = None


class Revoked(NamedTuple):
    subject: str
    pattern: str
    distrust: bool = False


class Bound(NamedTuple):
    """Tokens of an identity provider with these claims (an object of JSON) count as the account."""

    account: str
    issuer: str
    claims: str
    expires_ms: int | None = None


class Blocked(NamedTuple):
    account: str
    distrust: bool = False


class Unblocked(NamedTuple):
    account: str


class Enforced(NamedTuple):
    """The cluster enforces access control from now on."""


Body = (
    AccountMade | AccountRemoved | CredentialMade | Withdrawn | Joined | Left
    | Granted | Revoked | Bound | Blocked | Unblocked | Enforced
)  # fmt: skip
REMOVALS = (AccountRemoved, Withdrawn, Left, Revoked, Blocked)
"""Bodies that only take away. All others give something."""


class Statement(NamedTuple):
    """One fact, read."""

    origin: Origin
    body: Body

    @property
    def is_removal(self) -> bool:
        return isinstance(self.body, REMOVALS)


def account_subject(account: str) -> str:
    """Return the subject of grants that stands for one account."""
    return f"account:{account}"


def group_subject(group: str) -> str:
    """Return the subject of grants that stands for the members of a group."""
    return f"group:{group}"


def is_account_name(text: str) -> bool:
    return _NAME.match(text) is not None


def is_group_name(text: str) -> bool:
    return _GROUP.match(text) is not None


def is_secret(text: str) -> bool:
    """Return whether a text can be the secret of a credential: ASCII that prints, at most 400 characters."""
    return _SECRET.match(text) is not None


def kind_of(body: Body) -> str:
    """Return the kind of the fact that says this."""
    return _KINDS[type(body)][0]


def text_of(statement: Statement) -> str:
    """Return the text that the document holds."""
    origin, body = statement
    stamp = (f"{origin.time:016x}", f"{origin.writer:x}")
    return "\0".join((kind_of(body), origin.id, origin.by, ",".join(origin.after), *map(_field_text, body), *stamp))


def fact_of(statement: Statement) -> Fact:
    """Return the fact as documents are written with it."""
    return Fact(kind_of(statement.body), text_of(statement), "", "", 0, statement.origin.time, statement.origin.writer)


def read_statement(text: str) -> Statement | None:
    """Read the text of a fact; None for one that is none of access control, or malformed."""
    kind, *fields = text.split("\0")
    read = _READERS.get(kind)
    if read is None or len(fields) < 5:
        return None
    try:
        return _read(read, fields[:-2], int(fields[-2], 16), int(fields[-1], 16))
    except ValueError:
        return None


BodyReader = Callable[[Sequence[str]], Body | None]


def _read(read: BodyReader, fields: Sequence[str], time: int, writer: int) -> Statement | None:
    if len(fields) < 3:
        return None
    id, by, named, *rest = fields
    after = tuple(named.split(",")) if named else ()
    if not _ID.match(id) or not _is_author(by) or len(after) > MAX_AFTER or not all(map(_ID.match, after)):
        return None
    body = read(rest)
    return Statement(Origin(id, by, after, time, writer), body) if body is not None else None


def _is_author(text: str) -> bool:
    return text == OPERATOR or _ACCOUNT.match(text) is not None


def _is_subject(text: str) -> bool:
    kind, _, name = text.partition(":")
    if kind == "account":
        return _ACCOUNT.match(name) is not None
    return _GROUP.match(name) is not None if kind == "group" else text in (ANYONE, SIGNED_IN)


def _is_expiry(text: str) -> bool:
    return _EXPIRY.match(text) is not None and int(text or 0) <= MAX_EXPIRY_MS


def _expiry(text: str) -> int | None:
    return int(text) if text else None


def _is_flag(text: str) -> bool:
    return text in ("", "distrust")


def _read_account(fields: Sequence[str]) -> Body | None:
    match fields:
        case [account, name, kind] if _ACCOUNT.match(account) and _NAME.match(name) and kind in (USER, ROBOT):
            return AccountMade(account, name, kind)
    return None


def _read_account_removed(fields: Sequence[str]) -> Body | None:
    match fields:
        case [account, distrust] if _ACCOUNT.match(account) and _is_flag(distrust):
            return AccountRemoved(account, bool(distrust))
    return None


def _read_credential(fields: Sequence[str]) -> Body | None:
    match fields:
        case [account, kind, secret, expiry] if (
            _ACCOUNT.match(account) and kind in [*CredentialKind] and _SECRET.match(secret) and _is_expiry(expiry)
        ):
            return CredentialMade(account, CredentialKind(kind), secret, _expiry(expiry))
    return None


def _read_withdrawal(fields: Sequence[str]) -> Body | None:
    match fields:
        case [target] if _ID.match(target):
            return Withdrawn(target)
    return None


def _read_member(fields: Sequence[str]) -> Body | None:
    match fields:
        case [group, account] if _GROUP.match(group) and _ACCOUNT.match(account):
            return Joined(group, account)
    return None


def _read_member_removed(fields: Sequence[str]) -> Body | None:
    match fields:
        case [group, account, distrust] if _GROUP.match(group) and _ACCOUNT.match(account) and _is_flag(distrust):
            return Left(group, account, bool(distrust))
    return None


def _read_grant(fields: Sequence[str]) -> Body | None:
    match fields:
        case [subject, pattern, listed, expiry] if _is_subject(subject) and is_pattern(pattern) and _is_expiry(expiry):
            rights = listed.split(",")
            if rights == sorted(set(rights) & {*Right}):
                return Granted(subject, pattern, frozenset(map(Right, rights)), _expiry(expiry))
    return None


def _read_revocation(fields: Sequence[str]) -> Body | None:
    match fields:
        case [subject, pattern, distrust] if _is_subject(subject) and is_pattern(pattern) and _is_flag(distrust):
            return Revoked(subject, pattern, bool(distrust))
    return None


def _read_binding(fields: Sequence[str]) -> Body | None:
    match fields:
        case [account, issuer, claims, expiry] if (
            _ACCOUNT.match(account) and _SECRET.match(issuer) and _CLAIMS.match(claims) and _is_expiry(expiry)
        ):
            return Bound(account, issuer, claims, _expiry(expiry))
    return None


def _read_block(fields: Sequence[str]) -> Body | None:
    match fields:
        case [account, distrust] if _ACCOUNT.match(account) and _is_flag(distrust):
            return Blocked(account, bool(distrust))
    return None


def _read_unblock(fields: Sequence[str]) -> Body | None:
    match fields:
        case [account] if _ACCOUNT.match(account):
            return Unblocked(account)
    return None


def _read_enforce(fields: Sequence[str]) -> Body | None:
    return Enforced() if not fields else None


_KINDS: Mapping[type, tuple[str, BodyReader]] = {
    AccountMade: ("!account", _read_account),
    AccountRemoved: ("!account-removed", _read_account_removed),
    CredentialMade: ("!credential", _read_credential),
    Withdrawn: ("!withdrawal", _read_withdrawal),
    Joined: ("!member", _read_member),
    Left: ("!member-removed", _read_member_removed),
    Granted: ("!grant", _read_grant),
    Revoked: ("!revocation", _read_revocation),
    Bound: ("!binding", _read_binding),
    Blocked: ("!block", _read_block),
    Unblocked: ("!unblock", _read_unblock),
    Enforced: ("!enforce", _read_enforce),
}
_READERS: Mapping[str, BodyReader] = dict(_KINDS.values())


def _field_text(field: object) -> str:
    """Return a field of a body as it is stored."""
    if isinstance(field, bool):
        return "distrust" if field else ""
    if isinstance(field, frozenset):
        return ",".join(sorted(field))
    return "" if field is None else str(field)


def _fact_reader(kind: str, read: BodyReader) -> FactReader:
    def read_fact(fields: Sequence[str], time: int, writer: int) -> Fact | None:
        statement = _read(read, fields, time, writer)
        return fact_of(statement) if statement is not None else None

    return read_fact


KINDS: Mapping[str, FactReader] = {kind: _fact_reader(kind, read) for kind, read in _READERS.items()}
"""The kinds of facts of access control, for `crdt.fact.parse_fact`."""
