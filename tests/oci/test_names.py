"""The grammar under a million hostile inputs: nothing that passes can leave its directory."""

import posixpath
import random
import re

import pytest

from registry.errors import DigestInvalid, NameInvalid
from registry.oci.names import is_digest, is_tag, parse_digest, parse_repository
from registry.storage.store import content_path

PIECES = [
    "..",
    ".",
    "/",
    "\\",
    "\0",
    "\n",
    "%2e",
    "sha256:",
    "sha512:",
    "a" * 64,
    "A" * 64,
    "0",
    "a",
    "-",
    "_",
    "__",
    "___",
]
SHAPE = re.compile(r"blobs/sha(256|512)/[0-9a-f]{2}/[0-9a-f]+")


@pytest.mark.slow
def test_a_million_hostile_digests_and_tags_stay_inside():
    drawn = random.Random(1)
    passed = 0
    for _ in range(1_000_000):
        text = "".join(drawn.choices(PIECES, k=drawn.randrange(1, 5)))
        if is_digest(text):
            passed += 1
            path = content_path(text)
            assert SHAPE.fullmatch(path) and posixpath.normpath(path) == path
        if is_tag(text):
            assert "/" not in text and "\\" not in text and text not in ("", ".", "..")
    assert passed > 0


@pytest.mark.parametrize("name", ["a", "a/b", "a.b", "a_b", "a__b", "a-b", "a---b", "0/1/2", "a" * 255])
def test_repository_names_that_the_specification_allows(name):
    assert parse_repository(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "a.", ".a", "a..b", "a._b", "a___b", "a/", "a//b", "a" * 256, "a\n", "a b", "ä"]
)
def test_repository_names_that_it_does_not(name):
    with pytest.raises(NameInvalid):
        parse_repository(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha512:" + "a" * 64,
        "sha256:" + "a" * 64 + "\n",
        "md5:" + "a" * 32,
    ],
)
def test_digests_have_exactly_the_length_of_their_algorithm(text):
    with pytest.raises(DigestInvalid):
        parse_digest(text)
