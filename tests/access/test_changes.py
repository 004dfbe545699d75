"""Changes of access control: what each command says, and what refuses it."""

from functools import partial
from itertools import count

import pytest

from registry.access import changes
from registry.access.changes import Author, Draft
from registry.access.facts import BOOTSTRAP, OPERATOR, Granted, Origin, Statement, account_subject
from registry.access.policy import Policy
from registry.access.rights import Caller, Right
from registry.errors import Denied, OciError

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"


class Registry:
    """Facts of one instance, changed as commands change them."""

    def __init__(self):
        self.facts, self.time = [], count(1000)
        self._drawn = count(1000)

    def do(self, plan, *arguments, by=OPERATOR, **options):
        author = Author(by, next(self.time) << 16, 1, lambda size: next(self._drawn).to_bytes(size, "big"))
        draft = Draft(self.facts, self.policy, author)
        result = plan(draft, *arguments, **options)
        draft.finish()
        self.facts += draft.said
        return result

    @property
    def policy(self):
        return Policy(self.facts)

    def may(self, name, repository="t/a"):
        return {*self.policy.rights(Caller(self.policy.account_of(name) or ""), repository, 0)}


@pytest.fixture
def registry():
    made = Registry()
    made.do(changes.create_account, "root", password_hash=HASH, admin=True)
    made.do(changes.create_account, "alice", password_hash=HASH)
    return made


def refused(registry, reason, plan, *arguments, **options):
    """Return the status with which a change is refused, which changes nothing."""
    before = [*registry.facts]
    with pytest.raises(OciError) as error:
        registry.do(plan, *arguments, **options)
    assert error.value.detail["reason"] == reason and registry.facts == before
    return error.value.status


def test_grants_and_revocations_follow_each_other(registry):
    for _ in range(3):
        registry.do(changes.grant, "alice", "t/*", ["pull", "push"])
        assert registry.may("alice") == {Right.PULL, Right.PUSH}
        registry.do(changes.revoke, "alice", "*")
        assert registry.may("alice") == set()


def test_a_fact_does_not_grow_with_those_before_it(registry):
    for _ in range(60):
        registry.do(changes.revoke, "alice", "t/*")
        registry.do(changes.grant, "alice", "t/*", ["pull"])
    assert {len(one.origin.after) for one in registry.facts} == {0, 1}


@pytest.mark.parametrize("name", ["", "Alice", "a b", "-a", "a" * 64, "anonymous", "operator", "a:b", "a$b", "a~b"])
def test_a_name_that_is_none_is_refused(registry, name):
    assert refused(registry, "invalid", changes.create_account, name) == 400


def test_a_name_that_is_taken_is_refused(registry):
    assert refused(registry, "account-exists", changes.create_account, "alice") == 409
    registry.do(changes.block, "alice")
    assert refused(registry, "account-exists", changes.create_account, "alice") == 409


@pytest.mark.parametrize(
    ("subject", "pattern", "rights", "expires_ms"),
    [
        ("alice", "T/*", ["pull"], None),
        ("alice", "t/*", [], None),
        ("alice", "t/*", ["write"], None),
        ("alice", "t/*", ["pull"], 5),
        ("alice", "t/*", ["pull"], 2**60),
        ("anonymous", "t/*", ["admin"], None),
        ("authenticated", "t/*", ["admin"], None),
        ("group:", "t/*", ["pull"], None),
        ("group:a b", "t/*", ["pull"], None),
    ],
)
def test_a_grant_that_is_none_is_refused(registry, subject, pattern, rights, expires_ms):
    assert refused(registry, "invalid", changes.grant, subject, pattern, rights, expires_ms) == 400


def test_what_could_not_be_read_is_never_said(registry):
    """All instances would stop serving at a critical fact that they cannot read."""
    for expires_ms in (-1, 2**60):
        assert refused(registry, "invalid", changes.create_key, "alice", "hash", expires_ms) == 400
    for secret in ("", "a\0b", "é", "a" * 401):
        assert refused(registry, "invalid", changes.create_key, "alice", secret) == 400
        assert refused(registry, "invalid", changes.create_certificate, "alice", secret) == 400


@pytest.mark.parametrize(
    "plan",
    [
        partial(changes.create_account, name="new"),
        partial(changes.remove_account, name="root"),
        partial(changes.set_password, name="root", password_hash=HASH),
        partial(changes.block, name="root"),
        partial(changes.create_key, name="alice", key_hash="hash"),
        partial(changes.create_certificate, name="alice", subject="CN=alice"),
        partial(changes.add_member, group="g", name="alice"),
        partial(changes.grant, subject="alice", pattern="t/*", rights=["pull"]),
        partial(changes.revoke, subject="alice", pattern="t/*"),
        changes.enforce,
        partial(changes.approve, fact="0" * 16),
    ],
)
def test_only_administrators_change_anything(registry, plan):
    alice = registry.policy.account_of("alice")
    with pytest.raises(Denied):
        registry.do(plan, by=alice)
    registry.do(changes.grant, "alice", "x/*", ["admin"])
    with pytest.raises(Denied):
        registry.do(plan, by=alice)


def test_an_account_sets_its_own_password_and_ends_its_own_keys(registry):
    alice = registry.policy.account_of("alice")
    registry.do(changes.set_password, "alice", HASH, by=alice)
    key = registry.do(changes.create_key, "alice", "hash")
    registry.do(changes.withdraw, key, by=alice)
    root_key = registry.do(changes.create_key, "root", "hash")
    with pytest.raises(Denied):
        registry.do(changes.withdraw, root_key, by=alice)
    assert [one.kind for one in registry.policy.credentials_of(alice)] == ["password"]


def test_the_administrator_of_a_pattern_grants_within_it(registry):
    registry.do(changes.grant, "alice", "t/*", ["admin"])
    registry.do(changes.create_account, "bob")
    alice = registry.policy.account_of("alice")
    registry.do(changes.grant, "bob", "t/app/*", ["pull"], by=alice)
    for pattern in ("*", "t*", "u/x"):
        with pytest.raises(Denied):
            registry.do(changes.grant, "bob", pattern, ["pull"], by=alice)
        with pytest.raises(Denied):
            registry.do(changes.revoke, "bob", pattern, by=alice)
    assert registry.may("bob", "t/app/x") == {Right.PULL} and registry.may("bob", "t/a") == set()


@pytest.mark.parametrize(
    "plan",
    [
        partial(changes.remove_account, name="root"),
        partial(changes.block, name="root"),
        partial(changes.revoke, subject="root", pattern="*"),
    ],
)
def test_the_last_administrator_cannot_be_removed(registry, plan):
    assert refused(registry, "last-administrator", plan) == 409
    registry.do(changes.add_member, "ops", "alice")
    registry.do(changes.grant, "group:ops", "*", ["admin"])
    registry.do(plan)
    assert refused(registry, "last-administrator", changes.remove_member, "ops", "alice") == 409


def test_the_bootstrap_account_ends_with_the_administrator_that_it_makes():
    registry = Registry()
    registry.do(changes.create_bootstrap, "admin", HASH)
    assert registry.policy.administrators(0) == [BOOTSTRAP]
    registry.do(changes.create_account, "root", password_hash=HASH, admin=True, by=BOOTSTRAP)
    assert registry.policy.account_of("admin") is None and registry.policy.findings == ()
    with pytest.raises(Denied):
        registry.do(changes.create_account, "evil", by=BOOTSTRAP)


def test_recovery_brings_an_administrator_back(registry):
    registry.do(changes.create_account, "other", admin=True)
    registry.do(changes.block, "root")
    account = registry.do(changes.recover, "root", HASH)
    assert account in registry.policy.administrators(0)
    assert registry.do(changes.recover, "new", HASH) in registry.policy.administrators(0)


def test_a_void_fact_is_approved(registry):
    registry.do(changes.create_account, "boss", admin=True)
    boss = registry.policy.account_of("boss")
    before = registry.policy.heads
    registry.do(changes.remove_account, "boss")
    alice = account_subject(registry.policy.account_of("alice"))
    unseen = Statement(Origin("f" * 16, boss, before, 1, 2), Granted(alice, "t/*", frozenset({Right.PULL})))
    registry.facts.append(unseen)
    assert registry.may("alice") == set()
    registry.do(changes.approve, unseen.origin.id)
    assert registry.may("alice") == {Right.PULL} and registry.policy.findings == ()
    assert refused(registry, "fact-unknown", changes.approve, unseen.origin.id) == 404


def test_enforcement_needs_an_administrator():
    assert refused(Registry(), "no-administrator", changes.enforce) == 409


def test_what_is_not_there_is_said_so(registry):
    for plan in (
        partial(changes.remove_account, name="nobody-known"),
        partial(changes.grant, subject="unknown", pattern="*", rights=["pull"]),
        partial(changes.set_password, name="unknown", password_hash=HASH),
    ):
        assert refused(registry, "account-unknown", plan) == 404
    assert refused(registry, "credential-unknown", changes.withdraw, "0" * 16) == 404
    assert refused(registry, "not-a-member", changes.remove_member, "g", "alice") == 404
    assert refused(registry, "not-blocked", changes.unblock, "alice") == 409
