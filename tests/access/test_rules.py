"""The conflict rules of access control, one by one, each as a small history of sites that were cut off."""

from itertools import count

import pytest

from registry.access.facts import (
    BOOTSTRAP,
    OPERATOR,
    USER,
    AccountMade,
    AccountRemoved,
    Blocked,
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
)
from registry.access.policy import Policy
from registry.access.rights import Caller, CredentialKind, Right

A, B, C, D = (digit * 32 for digit in "abcd")
ADMIN, PULL = frozenset({Right.ADMIN}), frozenset({Right.PULL})
PASSWORD, KEY = CredentialKind.PASSWORD, CredentialKind.KEY


class Site:
    """One replica, which says facts and takes in those of others."""

    _numbers = count(1)
    _times = count(1)

    def __init__(self, *others):
        self.facts = {one.origin.id: one for other in others for one in other.facts.values()}

    def say(self, body, by=OPERATOR, time=None, writer=1):
        heads = Policy(self.facts.values()).heads
        at = next(self._times) if time is None else time
        origin = Origin(f"{next(self._numbers) * 7919 % 2**64:016x}", by, heads, at << 16, writer)
        self.facts[origin.id] = Statement(origin, body)
        return origin.id

    def merge(self, *others):
        for other in others:
            self.facts |= other.facts
        return self

    @property
    def policy(self):
        return Policy(self.facts.values())

    def may(self, account, repository="t/a", now_ms=0):
        return {*self.policy.rights(Caller(account), repository, now_ms)}

    def void(self):
        return {finding.id for finding in self.policy.findings if finding.kind == "void"}


def with_accounts(*accounts, admins=()):
    """A site that knows some accounts, named by their first digit."""
    site = Site()
    for account in accounts:
        site.say(AccountMade(account, account[0], USER))
    for account in admins:
        site.say(Granted(account_subject(account), "*", ADMIN))
    return site


def apart(site):
    """Two sites that know what one knew, and are cut off from each other."""
    return Site(site), Site(site)


@pytest.fixture
def base():
    return with_accounts(A, B, C, admins=[A, B])


GRANT = Granted(account_subject(C), "t/*", PULL)


# Rule 1: revocations


def test_a_revocation_wins_over_a_grant_that_had_not_seen_it(base):
    here, there = apart(base)
    here.say(Revoked(account_subject(C), "t/*"))
    there.say(GRANT)
    assert there.may(C) == {Right.PULL}
    assert here.merge(there).may(C) == set()


def test_a_grant_that_has_seen_the_revocation_counts(base):
    base.say(GRANT)
    base.say(Revoked(account_subject(C), "t/*"))
    assert base.may(C) == set()
    base.say(GRANT)
    assert base.may(C) == {Right.PULL}


@pytest.mark.parametrize(
    ("pattern", "survives"), [("*", False), ("t/*", False), ("t/a", True), ("u/*", True), ("t/*/x", True)]
)
def test_a_revocation_ends_equal_and_narrower_patterns_only(base, pattern, survives):
    here, there = apart(base)
    here.say(Revoked(account_subject(C), pattern))
    there.say(GRANT)
    assert (here.merge(there).may(C) == {Right.PULL}) is survives


def test_a_revocation_ends_the_grants_of_its_subject_alone(base):
    base.say(GRANT)
    base.say(Joined("g", C))
    base.say(Granted("group:g", "t/*", PULL))
    base.say(Revoked(account_subject(C), "*"))
    assert base.may(C) == {Right.PULL}, "the group is a way that remains"
    (way,) = base.policy.remaining(account_subject(C), "t/*", 0)
    assert (way.subject, way.pattern) == ("group:g", "t/*")
    base.say(Revoked("group:g", "*"))
    assert base.policy.remaining(account_subject(C), "*", 0) == []


def test_a_block_beats_every_grant_and_an_unblocking_that_had_not_seen_it(base):
    base.say(GRANT)
    here, there = apart(base)
    here.say(Blocked(C))
    there.say(Granted(account_subject(C), "*", ADMIN))
    there.say(Unblocked(C))
    base = here.merge(there)
    assert base.may(C) == set() and base.policy.account_of("c") is None
    base.say(Unblocked(C))
    assert base.may(C) == {*Right}


def test_a_member_that_was_removed_is_not_brought_back_by_an_addition_that_had_not_seen_it(base):
    base.say(Granted("group:g", "t/*", PULL))
    base.say(Joined("g", C))
    here, there = apart(base)
    here.say(Left("g", C))
    there.say(Joined("g", C))
    assert here.merge(there).may(C) == set()
    here.say(Joined("g", C))
    assert here.may(C) == {Right.PULL}


# Rule 2: accounts


def test_the_removal_of_an_account_ends_what_it_had_not_seen(base):
    here, there = apart(base)
    here.say(AccountRemoved(C))
    key = there.say(CredentialMade(C, KEY, "hash"))
    there.say(GRANT)
    there.say(Unblocked(C))
    policy = here.merge(there).policy
    assert C not in policy.accounts and policy.credentials_of(C) == [] and not policy.is_in_force(C, key)
    assert here.may(C) == set()


def test_a_name_that_is_made_again_is_another_account(base):
    base.say(GRANT)
    base.say(AccountRemoved(C))
    base.say(AccountMade(D, "c", USER))
    assert base.policy.account_of("c") == D and base.may(D) == set()


def test_of_two_accounts_with_one_name_the_earliest_keeps_it(base):
    here, there = apart(base)
    here.say(AccountMade(D, "new", USER), time=900)
    there.say(AccountMade("e" * 32, "new", USER), time=800)
    policy = here.merge(there).policy
    assert policy.account_of("new") == "e" * 32
    assert policy.account_of("new~dddddddddddd") == D
    assert [(finding.kind, finding.statement.body.account) for finding in policy.findings] == [("renamed", D)]


# Rule 3: administrators


def test_what_a_removed_administrator_said_unseen_is_void_and_what_rests_on_it(base):
    here, there = apart(base)
    here.say(AccountRemoved(A), by=B)
    planted = [
        there.say(AccountMade(D, "puppet", USER), by=A),
        there.say(CredentialMade(D, KEY, "hash"), by=A),
        there.say(Granted(account_subject(D), "*", ADMIN), by=A),
        there.say(GRANT, by=D),
    ]
    assert there.may(C) == {Right.PULL}
    here.merge(there)
    assert here.void() == {*planted} and here.may(C) == set() and here.may(D) == set()


def test_what_the_remover_had_seen_stays_unless_it_distrusts(base):
    base.say(GRANT, by=A)
    trusting, distrusting = apart(base)
    trusting.say(AccountRemoved(A), by=B)
    assert trusting.may(C) == {Right.PULL}
    distrusting.say(AccountRemoved(A, distrust=True), by=B)
    assert distrusting.may(C) == set()


@pytest.mark.parametrize("demotion", [Revoked(account_subject(A), "*"), Blocked(A)])
def test_demotions_void_what_they_had_not_seen(base, demotion):
    here, there = apart(base)
    here.say(demotion, by=B)
    there.say(GRANT, by=A)
    assert here.merge(there).may(C) == set()


def test_an_administrator_that_was_made_again_speaks_for_itself_again_and_not_for_what_was_void(base):
    here, there = apart(base)
    here.say(Revoked(account_subject(A), "*"), by=B)
    void = there.say(Granted(account_subject(C), "u/*", PULL), by=A)
    here.merge(there)
    here.say(Granted(account_subject(A), "*", ADMIN), by=B)
    here.say(GRANT, by=A)
    assert here.may(C) == {Right.PULL} and here.may(C, "u/a") == set() and here.void() == {void}


def test_an_administrator_that_was_unblocked_speaks_again(base):
    base.say(Blocked(A), by=B)
    base.say(GRANT, by=A)
    assert base.may(C) == set(), "it was blocked"
    base.say(Unblocked(A), by=B)
    assert base.may(C) == set(), "what was said meanwhile stays void"
    base.say(GRANT, by=A)
    assert base.may(C) == {Right.PULL}
    base.say(Revoked(account_subject(C), "*"), by=A)
    assert base.may(C) == set()


def test_a_void_fact_that_is_said_again_is_listed_no_more(base):
    here, there = apart(base)
    here.say(AccountRemoved(A), by=B)
    there.say(GRANT, by=A)
    here.merge(there)
    assert here.void()
    here.say(GRANT, by=B)
    assert not here.void() and here.may(C) == {Right.PULL}


def test_a_removal_by_a_puppet_of_a_removed_administrator_is_void(base):
    here, there = apart(base)
    here.say(AccountRemoved(A), by=B)
    there.say(AccountMade(D, "puppet", USER), by=A)
    there.say(Granted(account_subject(D), "*", ADMIN), by=A)
    there.say(AccountRemoved(B), by=D)
    here.merge(there)
    assert here.policy.administrators(0) == [B]


def test_a_removal_by_an_administrator_that_is_removed_meanwhile_counts(base):
    here, there = apart(base)
    here.say(AccountRemoved(A), by=B)
    there.say(Revoked(account_subject(C), "*"), by=A)
    here.say(GRANT, by=B)
    assert here.merge(there).may(C) == set()


def test_where_removals_void_each_other_in_a_circle_all_of_them_count(base):
    """X makes Y an administrator, who removes Z; and unseen, Z makes W one, who removes X."""
    x, y, z, w = A, C, B, D
    base.say(AccountMade(w, "w", USER))
    here, there = apart(base)
    here.say(Granted(account_subject(y), "*", ADMIN), by=x)
    here.say(AccountRemoved(z), by=y)
    there.say(Granted(account_subject(w), "*", ADMIN), by=z)
    there.say(AccountRemoved(x), by=w)
    here.merge(there)
    assert here.policy.accounts.keys() == {y, w} and here.policy.administrators(0) == []


def test_an_administrator_of_a_pattern_grants_within_it_and_changes_no_accounts(base):
    base.say(Granted(account_subject(C), "t/*", ADMIN))
    base.say(Granted(account_subject(B), "t/a", PULL), by=C)
    void = {
        base.say(Granted(account_subject(B), "u/*", PULL), by=C),
        base.say(AccountMade(D, "d", USER), by=C),
        base.say(Joined("g", B), by=C),
        base.say(Blocked(A), by=C),
        base.say(CredentialMade(A, PASSWORD, "hash"), by=C),
    }
    assert base.policy.void == void
    assert not base.policy.accounts[A].is_blocked


def test_an_expired_administrator_says_nothing_any_more(base):
    base.say(Granted(account_subject(C), "*", ADMIN, expires_ms=10_000))
    base.say(Granted(account_subject(B), "x/*", PULL), by=C, time=9_999)
    late = base.say(Granted(account_subject(B), "y/*", PULL), by=C, time=10_000)
    assert base.void() == {late}


def test_the_bootstrap_account_is_void_once_another_administrator_has_ever_existed():
    pod = with_accounts(BOOTSTRAP, admins=[BOOTSTRAP])
    cluster = Site(pod)
    cluster.say(AccountMade(A, "a", USER), by=BOOTSTRAP)
    cluster.say(Granted(account_subject(A), "*", ADMIN), by=BOOTSTRAP)
    assert BOOTSTRAP not in cluster.policy.accounts and cluster.policy.administrators(0) == [A]
    pod.say(AccountMade(D, "evil", USER), by=BOOTSTRAP)
    pod.say(Granted(account_subject(D), "t/*", PULL), by=BOOTSTRAP)
    pod.say(AccountRemoved(A), by=BOOTSTRAP)
    cluster.merge(pod)
    assert cluster.policy.accounts.keys() == {A} and cluster.may(D) == set()
    cluster.say(AccountRemoved(A))
    assert BOOTSTRAP not in cluster.policy.accounts, "it does not come back"


# Rule 4: passwords


@pytest.mark.parametrize("reset_first", [True, False])
def test_a_reset_by_an_administrator_beats_a_change_that_had_not_seen_it(base, reset_first):
    here, there = apart(base)
    reset = here.say(CredentialMade(C, PASSWORD, "reset"), by=A, time=1 if reset_first else 1000)
    change = there.say(CredentialMade(C, PASSWORD, "change"), by=C, time=500)
    policy = here.merge(there).policy
    assert [one.id for one in policy.credentials_of(C)] == [reset]
    assert [(finding.kind, finding.id) for finding in policy.findings] == [("password-lost", change)]
    later = here.say(CredentialMade(C, PASSWORD, "later"), by=C, time=2)
    assert [one.id for one in here.policy.credentials_of(C)] == [later] and here.policy.findings == ()


def test_of_two_changes_the_later_wins_and_then_the_higher_writer(base):
    here, there = apart(base)
    here.say(CredentialMade(C, PASSWORD, "one"), by=C, time=5, writer=1)
    there.say(CredentialMade(C, PASSWORD, "two"), by=C, time=5, writer=2)
    assert [one.secret for one in here.merge(there).policy.credentials_of(C)] == ["two"]


def test_a_withdrawn_password_brings_no_earlier_one_back(base):
    base.say(CredentialMade(C, PASSWORD, "one"), by=C)
    second = base.say(CredentialMade(C, PASSWORD, "two"), by=C)
    base.say(Withdrawn(second), by=C)
    assert base.policy.credentials_of(C) == []


# Rules 5 and 6


def test_two_administrators_that_remove_each_other_leave_none(base):
    here, there = apart(base)
    here.say(AccountRemoved(B), by=A)
    there.say(AccountRemoved(A), by=B)
    assert here.merge(there).policy.administrators(0) == []


def test_enforcement_is_a_fact_that_nothing_ends(base):
    assert not base.policy.is_enforced
    base.say(Enforced(), by=A)
    base.say(AccountRemoved(A, distrust=True), by=B)
    assert base.policy.is_enforced


# Decisions


def test_admin_implies_all_rights_and_anonymous_grants_are_for_everyone(base):
    base.say(Granted("anonymous", "public/*", PULL))
    base.say(Granted("authenticated", "inner/*", PULL | ADMIN))
    assert base.may(A) == {*Right}
    assert base.may("", "public/x") == base.may(C, "public/x") == {Right.PULL}
    assert base.may("", "inner/x") == set() and base.may(C, "inner/x") == {Right.PULL}
    assert base.policy.may_see_any(Caller(""), 0)


def test_rights_last_until_the_last_grant_expires(base):
    base.say(Granted(account_subject(C), "t/*", PULL, expires_ms=10))
    base.say(Granted(account_subject(C), "t/a", PULL, expires_ms=20))
    rights = base.policy.rights
    assert rights(Caller(C), "t/a", 5) == {Right.PULL: 20} and rights(Caller(C), "t/b", 5) == {Right.PULL: 10}
    assert rights(Caller(C), "t/a", 20) == {}
    base.say(GRANT)
    assert base.policy.rights(Caller(C), "t/a", 5) == {Right.PULL: None}


def test_groups_of_a_token_count_beside_those_of_facts(base):
    base.say(Granted("group:ci", "t/*", PULL))
    policy = base.policy
    assert policy.rights(Caller(C, groups=frozenset({"ci"})), "t/a", 0) == {Right.PULL: None}
    assert policy.rights(Caller("unknown", groups=frozenset({"ci"})), "t/a", 0) == {}


def test_a_graph_with_cycles_has_an_end_and_one_meaning(base):
    """Only crafted facts name each other."""
    one = Statement(Origin("1" * 16, A, ("2" * 16,), 1, 1), GRANT)
    other = Statement(Origin("2" * 16, A, ("1" * 16,), 1, 1), Blocked(B))
    facts = [*base.facts.values(), one, other]
    assert Policy(facts).void == Policy(reversed(facts)).void == {one.origin.id, other.origin.id}
