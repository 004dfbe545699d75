"""Drawn histories of access control: several replicas that write while they are cut off from each other, and merge."""

from hypothesis import strategies as st

from registry.access.facts import (
    BOOTSTRAP,
    OPERATOR,
    USER,
    AccountMade,
    AccountRemoved,
    Blocked,
    Bound,
    CredentialMade,
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
from registry.access.history import History
from registry.access.rights import CredentialKind, Right

A, B, C = (digit * 32 for digit in "abc")
ACCOUNTS = (A, B, C)
NAMES = {A: "alice", B: "bob", C: "alice", BOOTSTRAP: "root"}
SUBJECTS = (*map(account_subject, (*ACCOUNTS, BOOTSTRAP)), "group:g", "anonymous", "authenticated")
PATTERNS = ("*", "t/*", "t/a", "*a")
REPOSITORIES = ("t/a", "t/b", "u/a", "u/b")
REPLICAS = 3
NOW_MS = 1000
EXPIRED_MS = 5

accounts = st.sampled_from(ACCOUNTS)
authors = st.sampled_from((OPERATOR, A, A, B, B, C, BOOTSTRAP))
subjects = st.sampled_from(SUBJECTS)
patterns = st.sampled_from(PATTERNS)
admin_rights = st.just(frozenset({Right.ADMIN}))
rights = admin_rights | st.frozensets(st.sampled_from([Right.PULL, Right.PUSH]), min_size=1)
expiries = st.sampled_from([None, None, None, EXPIRED_MS, NOW_MS + 1])
distrust = st.sampled_from([False, False, True])
secrets = st.sampled_from(["one", "two"])
positions = st.integers(0, 40)

bodies = st.one_of(
    st.builds(lambda a: AccountMade(a, NAMES[a], USER), st.sampled_from((*ACCOUNTS, BOOTSTRAP))),
    st.builds(Bound, accounts, st.just("https://issuer.example"), st.just('{"sub":"x"}'), expiries),
    st.builds(CredentialMade, accounts, st.sampled_from([*CredentialKind]), secrets, expiries),
    st.builds(Joined, st.just("g"), accounts),
    st.builds(Granted, subjects, patterns, rights, expiries),
    st.builds(Granted, subjects, st.just("*"), admin_rights, st.none()),
    st.builds(Unblocked, accounts),
    st.builds(AccountRemoved, accounts, distrust),
    st.builds(Blocked, accounts, distrust),
    st.builds(Revoked, subjects, patterns, distrust),
    st.builds(Left, st.just("g"), accounts, distrust),
    positions,  # a withdrawal of the fact at this place
)
near = st.sampled_from((account_subject(A), account_subject(B), "group:g"))
sequences = st.one_of(
    st.builds(lambda subject, pattern, given: [Revoked(subject, pattern), Granted(subject, pattern, given)],
              near, st.sampled_from(("*", "t/*")), rights),
    st.builds(lambda account: [Blocked(account), Unblocked(account)], accounts),
    st.builds(lambda account: [Joined("g", account), Granted("group:g", "*", frozenset({Right.ADMIN}))], accounts),
    st.builds(lambda account: [Left("g", account), Joined("g", account)], accounts),
)  # fmt: skip
"""What one author says one after the other."""
sayings = bodies.map(lambda body: [body]) | sequences
steps = st.one_of(
    st.tuples(st.just("say"), st.integers(0, REPLICAS - 1), authors, sayings, st.integers(0, 9)),
    st.tuples(st.just("merge"), st.integers(0, REPLICAS - 1), st.integers(0, REPLICAS - 1)),
)


def fact_id(number: int) -> str:
    """Return ids that are not in the order in which they are made."""
    return f"{(number * 0x9E3779B97F4A7C15) % 2**64:016x}"


BEGINNING = (
    AccountMade(A, "alice", USER),
    AccountMade(B, "bob", USER),
    AccountMade(BOOTSTRAP, "root", USER),
    Granted(account_subject(BOOTSTRAP), "*", frozenset({Right.ADMIN})),
    Granted(account_subject(A), "*", frozenset({Right.ADMIN})),
    Granted(account_subject(B), "*", frozenset({Right.ADMIN})),
)


@st.composite
def histories(draw, max_steps=14):
    """Return the statements of a history, in the order in which they were made."""
    begun = BEGINNING[: draw(st.integers(0, len(BEGINNING)))]
    made: list[Statement] = []
    replicas: list[set[int]] = [set() for _ in range(REPLICAS)]

    def say(replica: int, by: str, body, time: int) -> None:
        if isinstance(body, int):
            body = Withdrawn(made[body % len(made)].origin.id if made else fact_id(9999))
        after = History(made[number] for number in replicas[replica]).heads()
        origin = Origin(fact_id(len(made)), by, tuple(after), time << 16, replica)
        replicas[replica].add(len(made))
        made.append(Statement(origin, body))

    for body in begun:
        say(0, OPERATOR, body, 0)
    for replica in replicas:
        replica |= replicas[0]
    for step in draw(st.lists(steps, max_size=max_steps)):
        if step[0] == "say":
            _, replica, by, listed, time = step
            for body in listed:
                say(replica, by, body, time)
        else:
            replicas[step[2]] |= replicas[step[1]]
    return made
