"""Who is to hold a content."""

from hypothesis import given
from hypothesis import strategies as st

from registry.cluster.placement.rendezvous import Candidate, designated, ranked, spread
from registry.settings.policy import Copies
from tests.support.client import sha256

candidates = st.lists(
    st.builds(Candidate, st.uuids().map(lambda u: u.hex), st.sampled_from(["eu", "us", "ap"])), unique=True, max_size=12
)
digests = st.binary(max_size=8).map(sha256)


@given(digests, candidates)
def test_everybody_ranks_alike(digest, members):
    assert ranked(digest, members) == ranked(digest, reversed(members))


@given(digests, candidates, st.integers(1, 5))
def test_copies_are_at_as_many_sites_as_can_be(digest, members, count):
    chosen = designated(Copies(number=count), digest, members)
    assert len(chosen) == min(count, len(members))
    assert len({one.site for one in chosen}) == min(count, len({one.site for one in members}))


@given(digests, candidates)
def test_who_leaves_moves_nothing_but_what_it_held(digest, members):
    for gone in members:
        rest = [one for one in members if one != gone]
        assert ranked(digest, rest) == [one for one in ranked(digest, members) if one != gone]


@given(digests, candidates)
def test_numbers_by_site_are_kept(digest, members):
    chosen = designated(Copies(sites=(("eu", 2), ("us", 1))), digest, members)
    for site, number in (("eu", 2), ("us", 1), ("ap", 0)):
        there = [one for one in members if one.site == site]
        assert sum(one.site == site for one in chosen) == min(number, len(there))


@given(candidates)
def test_spreading_loses_nobody(members):
    assert sorted(spread(members)) == sorted(members)


def test_load_is_even():
    members = [Candidate(f"{number:032x}", f"s{number % 2}") for number in range(6)]
    held = [one for number in range(3000) for one in designated(Copies(number=2), sha256(b"%d" % number), members)]
    assert all(800 < held.count(one) < 1200 for one in members)
