"""Keys that every reader takes the same way."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ManifestInvalid
from registry.oci.json_objects import MAX_MEMBERS, AmbiguousKeys, KnownKeys, elements_of

KEYS = KnownKeys(("layers", "mediaType"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(st.characters(exclude_characters="LlMm", codec="utf-8"), max_size=4)


def written(pairs, spaced, escaped):
    colon, comma = (" :\t", "\n, ") if spaced else (":", ",")
    members = [f"{json.dumps(key, ensure_ascii=escaped)}{colon}{json.dumps(value)}" for key, value in pairs]
    return (" { " + comma.join(members) + " } ").encode()


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6, unique_by=lambda pair: pair[0]), st.booleans(), st.booleans())
def test_members_of_an_object_without_repeated_keys_are_its_values(pairs, spaced, escaped):
    members = KEYS.members_of("here", written(pairs, spaced, escaped))
    assert {key: json.loads(value) for key, value in members.items()} == json.loads(json.dumps(dict(pairs)))


@given(
    st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=5, unique_by=lambda pair: pair[0]),
    VALUES,
    st.integers(0, 9),
    st.integers(0, 9),
    st.booleans(),
)
def test_a_repeated_key_is_refused_wherever_it_stands_and_whatever_its_values(pairs, value, which, at, spaced):
    pairs.insert(at % (len(pairs) + 1), (pairs[which % len(pairs)][0], value))
    with pytest.raises(AmbiguousKeys):
        KEYS.members_of("here", written(pairs, spaced, False))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":12,"a":1}',
        b'{"a":1,"a":12}',
        b'{"a":1,"a":1}',
        b'{"a":-1,"a":-1.5}',
        b'{"a":1.5,"b":2,"a":1}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":{"a":1},"a":{"a":1}}',
        b'{"a":"x\\"","a":"x\\""}',
    ],
)
def test_a_repeated_key_whose_values_begin_alike_is_refused(body):
    with pytest.raises(AmbiguousKeys):
        KEYS.members_of("here", body)


@pytest.mark.parametrize("key", ["Layers", "LAYERS", "layerS", "mediatype", "MediaType", "layer\u017f", "\\u004cayers"])
@pytest.mark.parametrize("beside", ["", '"layers":1,"mediaType":2,'])
def test_a_known_key_in_another_case_is_refused(key, beside):
    """As Go folds case: the long s and the Kelvin sign too."""
    with pytest.raises(AmbiguousKeys) as raised:
        KEYS.members_of("here", f'{{{beside}"{key}":3}}'.encode())
    assert raised.value.detail["in"] == "here" and raised.value.detail["known"] in ("layers", "mediaType")


def test_unknown_keys_are_free():
    assert set(KEYS.members_of("here", b'{"X":1,"x":2,"layers":3,"layer":4}')) == {"X", "x", "layers", "layer"}


def test_an_object_of_very_many_keys_is_refused():
    body = json.dumps({f"k{number}": 0 for number in range(MAX_MEMBERS + 1)}).encode()
    with pytest.raises(ManifestInvalid):
        KEYS.members_of("here", body)


def test_elements_of_an_array_are_as_they_stand():
    assert elements_of(b'[ {"a": 1} , 2,"x"]') == [b'{"a": 1}', b"2", b'"x"']
