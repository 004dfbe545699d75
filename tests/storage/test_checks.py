import hashlib

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from registry.storage.checks import CHECK_SPAN_BYTES, ContentHashes

PIECES = st.lists(st.integers(0, 2 * CHECK_SPAN_BYTES), max_size=5)


@given(PIECES)
def test_checks_do_not_depend_on_how_the_content_comes(sizes):
    content = bytes(sum(sizes))
    checks = ContentHashes()
    at = 0
    for size in sizes:
        checks.update(content[at : at + size])
        at += size
    spans = [content[i : i + CHECK_SPAN_BYTES] for i in range(0, len(content), CHECK_SPAN_BYTES)]
    assert checks.per_mib() == b"".join(blake3(span).digest() for span in spans)
    assert checks.digest() == "sha256:" + hashlib.sha256(content).hexdigest()
    assert checks.size == len(content)


def test_a_copy_goes_its_own_way():
    checks = ContentHashes("sha512")
    checks.update(b"one")
    twin = checks.copy()
    checks.update(b"two")
    assert twin.digest() == "sha512:" + hashlib.sha512(b"one").hexdigest()
    assert (twin.size, checks.size) == (3, 6)
