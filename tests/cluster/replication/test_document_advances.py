import pytest

from registry.cluster.replication.document_advances import DocumentAdvances


class Noting:
    def __init__(self, noted):
        self._noted = noted

    def on_advanced(self, document, vector):
        self._noted.append((self, document, vector))


def test_a_diff_before_listeners_are_connected_is_an_error():
    """The frames that wait for the diff would never be applied, and nothing would say so."""
    with pytest.raises(AssertionError, match="listeners are connected before"):
        DocumentAdvances().announce("repository/a", {})


def test_listeners_hear_of_a_diff_in_their_order():
    advances, noted = DocumentAdvances(), []
    first, second = Noting(noted), Noting(noted)
    advances.connect(first, second)
    advances.announce("repository/a", {1: 2})
    assert noted == [(first, "repository/a", {1: 2}), (second, "repository/a", {1: 2})]
