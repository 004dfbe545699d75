"""Hashes of passwords, and keys of robots."""

import os
import string

import pytest

from registry.access.keys import PREFIX, RANDOM_SIZE, is_key, key_hash, new_key
from registry.access.passwords import DUMMY_HASH, hash_password, verify_password


def test_a_password_matches_its_hash_alone():
    hashed = hash_password("correct horse")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert verify_password(hashed, "correct horse")
    assert not verify_password(hashed, "correct horse ")


def test_a_salt_makes_each_hash_another_one():
    assert hash_password("same") != hash_password("same")
    assert hash_password("same", b"0" * 16) == hash_password("same", b"0" * 16)


@pytest.mark.parametrize("hashed", ["", "x", "$argon2id$", "$argon2id$v=19$m=1,t=1,p=1$AA$AA", "plain"])
def test_what_is_no_hash_matches_nothing(hashed):
    assert not verify_password(hashed, hashed)


def test_the_dummy_costs_what_a_hash_costs():
    assert DUMMY_HASH.split("$")[:4] == hash_password("x").split("$")[:4]
    assert [len(part) for part in DUMMY_HASH.split("$")] == [len(part) for part in hash_password("x").split("$")]
    assert not verify_password(DUMMY_HASH, "")


def test_a_key_is_told_by_prefix_and_checksum():
    text, hashed = new_key(os.urandom(RANDOM_SIZE))
    assert text.startswith(PREFIX) and is_key(text) and key_hash(text) == hashed
    for at in range(len(text)):
        assert not is_key(text[:at] + ("a" if text[at] != "a" else "b") + text[at + 1 :])
    assert not is_key(text + "a") and not is_key(text.upper()) and not is_key("") and not is_key("é" * len(text))


def test_a_key_needs_no_quoting():
    text, _ = new_key(os.urandom(RANDOM_SIZE))
    assert set(text) <= set(string.ascii_lowercase + string.digits + "_")


def test_every_random_bit_is_in_the_key():
    none = new_key(bytes(RANDOM_SIZE))[0]
    flipped = {new_key((1 << bit).to_bytes(RANDOM_SIZE))[0] for bit in range(8 * RANDOM_SIZE)}
    assert len(flipped | {none}) == 8 * RANDOM_SIZE + 1
    with pytest.raises(ValueError, match="random bytes"):
        new_key(b"too short")
