"""Policies: what they mean, and what is refused."""

import pytest

from registry.config import load_config
from registry.settings.policy import Acknowledge, Copies, Policy, parse_copies, parse_rule


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (2, Copies(number=2)),
        ("2", Copies(number=2)),
        ("everywhere", Copies(everywhere=True)),
        ("on demand", Copies()),
        ("eu=2,us=1", Copies(sites=(("eu", 2), ("us", 1)))),
        ({"us": 1, "eu": 2}, Copies(sites=(("eu", 2), ("us", 1)))),
    ],
)
def test_copies_are_said_in_several_ways(said, meant):
    assert parse_copies(said) == meant
    assert parse_copies(str(meant)) == meant


@pytest.mark.parametrize(
    "said", ["0", "-1", "some", "eu=0", "eu=", "=2", "eu=1,eu=2", {}, {"e u": 1}, 10_000, "1.5", ""]
)
def test_copies_that_mean_nothing_are_refused(said):
    with pytest.raises(ValueError):
        parse_copies(said)


@pytest.mark.parametrize(
    ("copies", "acknowledge"),
    [("on demand", 2), (2, 3), ("eu=1,us=1", 3), ("on demand", "each-site"), (2, "all"), (2, 0)],
)
def test_what_can_never_be_met_is_refused(copies, acknowledge):
    with pytest.raises(ValueError):
        parse_rule("*", copies, acknowledge)


def test_the_first_rule_that_matches_counts():
    rules = (parse_rule("prod/*", "everywhere", "each-site"), parse_rule("*/cache", "on demand", "local"))
    policy = Policy((*rules, parse_rule("*", 2, 2)))
    assert policy.of("prod/app/deep").acknowledge == Acknowledge(each_site=True)
    assert policy.of("team/cache").copies == Copies()
    assert policy.of("team/app").copies == Copies(number=2)


def test_a_rule_says_copies_or_sites_and_takes_the_rest_from_the_settings(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('copies = 2\nacknowledge = 2\n[[policy]]\nrepositories = "a/*"\ncopies = 3\n')
    rule = load_config({}, file, check=False).rules.of("a/b")
    assert (rule.copies.number, rule.acknowledge.number) == (3, 2)
    file.write_text('[[policy]]\nrepositories = "a/*"\ncopies = 2\nsites = { eu = 1 }\n')
    with pytest.raises(ValueError):
        _ = load_config({}, file, check=False).rules
