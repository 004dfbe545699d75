"""The rules and an evaluator that was written independently agree on drawn histories, in whatever order facts come."""

from hypothesis import given
from hypothesis import strategies as st

from registry.access.facts import read_statement, text_of
from registry.access.policy import Policy
from registry.access.rights import Caller
from simulations.access_oracle import InForce, evaluate
from tests.access.histories import NOW_MS, REPOSITORIES, histories


def in_force(statements) -> InForce:
    """What the policy says, as the oracle says it."""
    policy = Policy(statements)
    active = [account.id for account in policy.accounts.values() if not account.is_blocked]
    return InForce(
        frozenset((account.id, account.name, account.is_blocked) for account in policy.accounts.values()),
        frozenset(
            (account, repository, str(right))
            for account in ["", *active]
            for repository in REPOSITORIES
            for right in policy.rights(Caller(account), repository, NOW_MS)
        ),
        frozenset(
            (account, one.id)
            for account in active
            for one in (*policy.credentials_of(account), *policy.bindings_of(account))
        ),
        policy.void,
    )


@given(histories())
def test_policy_and_oracle_agree(statements):
    assert in_force(statements) == evaluate(statements, REPOSITORIES, NOW_MS)


@given(histories(), st.randoms(use_true_random=False))
def test_the_order_of_facts_never_matters(statements, random):
    shuffled = [*statements]
    random.shuffle(shuffled)
    assert in_force(shuffled) == in_force(statements)
    assert Policy(shuffled).findings == Policy(statements).findings
    assert Policy(shuffled).heads == Policy(statements).heads


@given(histories())
def test_every_fact_is_read_as_it_was_said(statements):
    assert [read_statement(text_of(one)) for one in statements] == statements
