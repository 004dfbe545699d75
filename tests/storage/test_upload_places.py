"""The bounded table of uploads: its sums, and who gives way."""

import random

from registry.storage.shared_usage import SharedUsage
from registry.storage.upload_homes import ALONE
from registry.storage.upload_places import IDLE_AFTER_S, UploadPlaces

A, B = "192.0.2.0/24", "198.51.100.0/24"


def anything(upload, idle_s):
    return True


def test_places_over_any_sequence_of_uses_keep_their_sums():
    drawn, places, model = random.Random(1), UploadPlaces(100, SharedUsage().of(ALONE)), {}
    for step in range(5000):
        upload = f"u{drawn.randrange(60)}"
        if drawn.random() < 0.3:
            places.drop(upload)
            model.pop(upload, None)
        elif drawn.random() < 0.2 and upload in model:
            model[upload] = drawn.randrange(1000)
            places.resize(upload, model[upload])
        elif drawn.random() < 0.1:
            model = {f"u{number}": number for number in drawn.sample(range(60), 30)}
            places.recount(model, step)
        else:
            model[upload] = drawn.randrange(1000)
            places.use(upload, model[upload], step, drawn.choice((A, B, None)))
        assert (len(places), places.held_bytes) == (len(model), sum(model.values()))
        assert sum(map(len, places._networks.values())) == len(model)


def test_preemption_takes_from_the_network_with_the_most_what_is_idle_for_longest():
    places = UploadPlaces(4, SharedUsage().of(ALONE))
    for at_s, (upload, network) in enumerate([("b", B), ("a1", A), ("a2", A), ("a3", A)]):
        places.use(upload, 1, at_s, network)
    places.use("a1", 1, 9)
    assert places.is_full
    assert places.next_to_preempt(100, anything) == "a2"
    assert places.next_to_preempt(100, lambda upload, idle_s: upload[0] != "a") == "b"
    assert places.next_to_preempt(100, lambda upload, idle_s: False) is None


def test_preemption_spares_those_between_two_requests_as_long_as_others_are_idle():
    places = UploadPlaces(3, SharedUsage().of(ALONE))
    places.use("b", 1, 0, B)
    for upload in ("a1", "a2"):
        places.use(upload, 1, 1, A)
    assert places.next_to_preempt(IDLE_AFTER_S + 0.5, anything) == "b"
    assert places.next_to_preempt(IDLE_AFTER_S - 0.5, anything) == "a1"


def test_an_upload_that_is_used_from_another_network_counts_there():
    places = UploadPlaces(3, SharedUsage().of(ALONE))
    for upload in ("u1", "u2", "u3"):
        places.use(upload, 1, 0)
    places.use("u1", 1, 1, A)
    places.use("u1", 1, 2, B)
    assert set(places._networks) == {"", B}
    assert places.next_to_preempt(100, anything) == "u2"
