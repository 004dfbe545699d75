"""The home of an upload, by its name."""

from base64 import urlsafe_b64encode
from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from registry.storage.upload_homes import ALONE, ProcessSlot

OWNER = bytes(16)


def name_of(random: bytes) -> str:
    return urlsafe_b64encode(OWNER + random).decode()


@st.composite
def slots(draw):
    count = draw(st.integers(1, 64))
    return ProcessSlot(draw(st.integers(0, count - 1)), count)


@given(slots(), st.binary(min_size=16, max_size=16))
@example(ProcessSlot(6, 7), b"\xff" * 16)
def test_an_upload_that_begins_at_a_process_has_that_process_as_its_home(slot, random):
    named = slot.at_home(random)
    assert len(named) == len(random) and named[2:] == random[2:]
    for number in range(slot.count):
        other = ProcessSlot(number, slot.count)
        assert other.home_of(name_of(named)) == slot.number
        assert other.is_home(name_of(named)) == (number == slot.number)


@given(st.binary(min_size=16, max_size=16), st.integers(1, 64))
def test_a_name_of_an_instance_with_another_count_of_processes_has_one_home(random, count):
    homes = [number for number in range(count) if ProcessSlot(number, count).is_home(name_of(random))]
    assert len(homes) == 1


def test_a_process_that_serves_alone_is_the_home_of_all():
    assert ALONE.is_home(name_of(b"\xff" * 16)) and ALONE.home_of(name_of(bytes(16))) == ALONE.number


def test_names_keep_their_randomness():
    slot = ProcessSlot(2, 3)
    drawn = Counter(slot.at_home(number.to_bytes(2) + bytes(14))[:2] for number in range(1 << 16))
    assert max(drawn.values()) <= 2 * slot.count and len(drawn) >= (1 << 16) // slot.count - 1
