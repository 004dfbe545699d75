"""The numbers that the processes of an instance share about its disk."""

import os

import pytest

from registry.storage.shared_usage import SharedUsage
from registry.storage.upload_homes import ProcessSlot

COUNT = 3


@pytest.fixture
def shared():
    return SharedUsage(COUNT)


@pytest.fixture
def own(shared):
    return [shared.of(ProcessSlot(number, COUNT)) for number in range(COUNT)]


def test_sums_are_those_of_all_processes(shared, own):
    for number, usage in enumerate(own):
        usage.set_uploads(number, 10 * number)
        usage.set_requests(number)
    own[1].count_preempted()
    own[2].count_preempted()
    shared.content_bytes = 7
    assert (shared.uploads, shared.upload_bytes, shared.requests, shared.preempted) == (3, 30, 3, 2)
    assert shared.content_bytes == 7


def test_another_process_sees_what_one_has_written(shared, own):
    child = os.fork()
    if child == 0:
        own[1].set_uploads(4, 400)
        os._exit(0)
    os.waitpid(child, 0)
    assert (shared.uploads, shared.upload_bytes) == (4, 400)


def test_a_dead_process_leaves_no_uploads_and_keeps_its_counts(shared, own):
    own[0].set_uploads(1, 10)
    own[1].set_uploads(2, 20)
    own[1].set_activity(1, 5000)
    own[1].set_requests(3)
    own[1].count_preempted()
    assert own[1].begin() == 1
    shared.clear(1)
    assert (shared.uploads, shared.upload_bytes, shared.requests, shared.preempted) == (1, 10, 0, 1)
    assert not shared.uploads_at_work(0)
    assert own[1].begin() == 2, "its place has a higher number of its start than it had"


def test_uploads_are_at_work_while_a_request_is_under_way_or_has_just_ended(shared, own):
    assert not shared.uploads_at_work(1000)
    own[2].set_activity(1, 0)
    assert shared.uploads_at_work(1000)
    own[2].set_activity(0, 1500)
    assert shared.uploads_at_work(1000) and not shared.uploads_at_work(1500)


@pytest.mark.parametrize("others, room", [((0, 0), 10), ((3, 2), 5), ((5, 5), 4), ((9, 9), 4)])
def test_a_process_has_the_room_that_others_leave_and_its_share_in_any_case(own, others, room):
    own[1].set_uploads(others[0], 0)
    own[2].set_uploads(others[1], 0)
    own[0].set_uploads(7, 0)
    assert own[0].room_for(10) == room
