"""Which instance is meant where one is to be removed for good."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from registry.errors import Unsupported
from registry.http.admin.membership import MIN_PREFIX_DIGITS, forget

BEEF, BEAD, NAMED = "beefbeef" + "0" * 24, "beadbead" + "1" * 24, "cafecafe" + "2" * 24
PREFIX = BEEF[:MIN_PREFIX_DIGITS]


def forgotten(wanted, members):
    """The instances that are forgotten. Raises Unsupported."""
    done = []

    async def note(instance):
        done.append(instance)

    known = [SimpleNamespace(instance=i, live=False, beat=SimpleNamespace(name=name)) for i, name in members.items()]
    context = SimpleNamespace(members=SimpleNamespace(all=lambda: known), removals=SimpleNamespace(remove=note))
    try:
        asyncio.run(forget(SimpleNamespace(leaving=context), json.dumps({"instance": wanted}).encode()))
    except Unsupported:
        assert not done
        raise
    return done


MEMBERS = {BEEF: "", BEAD: "us-1", NAMED: "be"}


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [(BEEF, BEEF), (PREFIX, BEEF), (BEEF[:-1], BEEF), ("us-1", BEAD), ("be", NAMED)],
)
def test_forget_name_id_or_long_beginning_removes_that_instance(wanted, meant):
    assert forgotten(wanted, MEMBERS) == [meant]


@pytest.mark.parametrize("wanted", ["", "b", "bee", PREFIX[:-1], "us-2", "us", "deadbeef", BEEF + "0"])
def test_forget_short_beginning_or_unknown_name_removes_nothing(wanted):
    with pytest.raises(Unsupported) as raised:
        forgotten(wanted, MEMBERS)
    assert (raised.value.status, raised.value.detail["reason"]) == (404, "member-unknown")


def test_forget_name_that_begins_the_id_of_another_means_the_one_of_that_name():
    assert forgotten(PREFIX, {BEEF: "", BEAD: PREFIX}) == [BEAD]


@pytest.mark.parametrize(
    ("wanted", "members"), [("us-1", {BEEF: "us-1", BEAD: "us-1"}), (PREFIX, {BEEF: "", BEEF[:-1] + "f": "us-1"})]
)
def test_forget_several_that_are_named_so_removes_nothing(wanted, members):
    with pytest.raises(Unsupported) as raised:
        forgotten(wanted, members)
    assert (raised.value.status, raised.value.detail["reason"]) == (404, "member-ambiguous")
