"""Tokens: what is opened, what is refused, and that every changed byte is noticed."""

import itertools
from base64 import urlsafe_b64encode

import msgspec
import pytest

from registry.access.rights import Right
from registry.access.tokens import SKEW_S, Claims, TokenRefused, TokenUse, _mac, open_token, seal_token
from registry.cluster.rpc.keys import ClusterKey

KEY, OLD, FOREIGN = (ClusterKey(f"a secret of sixteen characters {name}").tokens for name in ("new", "old", "foreign"))
NOW_S = 1_800_000_000
CLAIMS = Claims(
    TokenUse.ACCESS, "concord", "id", "alice", "c1", [], {"repository:app": [Right.PULL]}, NOW_S, NOW_S + 900
)


def opened(text, keys=(KEY,), use=TokenUse.ACCESS, service="concord", at_s=NOW_S, grace_s=0):
    return open_token(text, keys, use, service, at_s * 1000, grace_s)


def test_a_sealed_token_opens_to_its_claims():
    assert opened(seal_token(CLAIMS, KEY)) == CLAIMS


def test_a_token_under_an_older_key_opens_while_that_is_listed():
    sealed = seal_token(CLAIMS, OLD)
    assert opened(sealed, [KEY, OLD]) == CLAIMS
    with pytest.raises(TokenRefused, match="not in use any more"):
        opened(sealed, [KEY])


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"keys": [FOREIGN]}, "not from this registry"),
        ({"keys": []}, "not from this registry"),
        ({"service": "other"}, "another service"),
        ({"use": TokenUse.REFRESH}, "no refresh token"),
        ({"at_s": NOW_S - SKEW_S - 1}, "in the future"),
        ({"at_s": NOW_S + 900 + SKEW_S}, "expired"),
        ({"at_s": NOW_S + 900 + SKEW_S + 3600, "grace_s": 3600}, "expired"),
    ],
)
def test_a_token_is_refused_for_a_reason(how, why):
    with pytest.raises(TokenRefused, match=why):
        opened(seal_token(CLAIMS, KEY), **how)


@pytest.mark.parametrize("at_s", [NOW_S - SKEW_S, NOW_S + 900 + SKEW_S - 1])
def test_clocks_may_differ_by_a_minute(at_s):
    assert opened(seal_token(CLAIMS, KEY), at_s=at_s) == CLAIMS


def test_an_expired_token_counts_within_a_grace():
    assert opened(seal_token(CLAIMS, KEY), at_s=NOW_S + 900 + 3600, grace_s=3600) == CLAIMS


def test_every_changed_character_is_noticed():
    sealed = seal_token(CLAIMS, KEY)
    for at, other in itertools.product(range(len(sealed)), "A."):
        changed = sealed[:at] + other + sealed[at + 1 :]
        if changed != sealed:
            with pytest.raises(TokenRefused):
                opened(changed)


@pytest.mark.parametrize("text", ["", ".", "..", "1..", "1.a", "é.é.é", "1." + "A" * 20_000 + ".A", "\x00", "null"])
def test_what_is_no_token_is_refused(text):
    with pytest.raises(TokenRefused):
        opened(text)


def test_the_mac_has_one_spelling():
    """The last character of a MAC holds bits that base64 ignores."""
    sealed = seal_token(CLAIMS, KEY)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for last in alphabet.replace(sealed[-1], ""):
        with pytest.raises(TokenRefused):
            opened(sealed[:-1] + last)


def test_another_version_is_refused_though_its_mac_is_right():
    body = "2." + seal_token(CLAIMS, KEY).split(".")[1]
    with pytest.raises(TokenRefused, match="another version"):
        opened(f"{body}.{_mac(body, KEY)}")


def test_claims_of_a_later_version_are_refused():
    later = msgspec.msgpack.encode(["access", "concord", "id", "alice", "c1", [], {"repository:app": ["fly"]}, 0, 1])
    body = "1." + urlsafe_b64encode(later).rstrip(b"=").decode()
    with pytest.raises(TokenRefused, match="does not understand"):
        opened(f"{body}.{_mac(body, KEY)}")


def test_a_token_states_neither_key_nor_algorithm():
    assert set(Claims.__struct_fields__).isdisjoint({"alg", "kid", "jwk", "jku"})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(CLAIMS)) == [
        "access", "concord", "id", "alice", "c1", [], {"repository:app": ["pull"]}, NOW_S, NOW_S + 900,
    ]  # fmt: skip
