"""Lists of referrers that change while a client reads them page by page."""

import json

from hypothesis import given
from hypothesis import strategies as st

from crdt.fact import manifest_fact
from registry.catalog.referrers import BEGINNING, Position, ReferrersQuery, walk_referrers
from registry.catalog.repository import Pushed, push_manifest
from registry.oci.manifest import OCI_IMAGE, parse_manifest
from registry.oci.names import digest_of
from tests.support.seams import opened_catalog

SUBJECT = "sha256:" + "5" * 64


def referrer(number):
    part = {"mediaType": "x", "digest": f"sha256:{number:064x}", "size": 1}
    subject = {"mediaType": OCI_IMAGE, "digest": SUBJECT, "size": 1}
    content = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": part, "layers": [], "subject": subject}
    return json.dumps(content).encode()


async def push(catalog, number):
    body = referrer(number)
    pushed = Pushed(digest_of(body), body, parse_manifest(body, None), [])
    await catalog.database.write_in_steps(lambda tx: push_manifest(tx, catalog.documents, "app", pushed, True, 1))
    return digest_of(body)


def page(catalog, position, size=2):
    """A page, and the position behind it; None at the end."""
    query = ReferrersQuery("app", SUBJECT, None, position)
    listed = []
    for one in walk_referrers(catalog.database.reading, query):
        if len(listed) == size:
            return [entry.referrer.digest for entry in listed], listed[-1].behind
        listed.append(one)
    return [entry.referrer.digest for entry in listed], None


async def test_a_referrer_that_is_pushed_again_between_two_pages_is_not_missed(tmp_path):
    catalog = await opened_catalog(tmp_path)
    pushed = [await push(catalog, number) for number in range(6)]
    seen, position = page(catalog, BEGINNING)
    assert seen == [pushed[5], pushed[4]]
    await push(catalog, 1)  # from the end to the front
    new = await push(catalog, 7)
    while position is not None:
        found, position = page(catalog, Position.parse(position.text()))
        seen += found
    assert seen == [pushed[5], pushed[4], pushed[3], pushed[2], pushed[0], new, pushed[1]]


async def test_what_comes_while_the_newest_are_read_comes_after_them(tmp_path):
    catalog = await opened_catalog(tmp_path)
    pushed = [await push(catalog, number) for number in range(3)]
    seen, position = page(catalog, BEGINNING)
    for number in range(3, 6):
        pushed.append(await push(catalog, number))
    found, position = page(catalog, position)
    seen += found
    pushed.append(await push(catalog, 6))
    while position is not None:
        found, position = page(catalog, position)
        seen += found
    assert sorted(seen) == sorted(pushed) and len(seen) == 7


async def test_a_manifest_without_its_body_is_listed_by_a_list_without_a_type(tmp_path):
    """Until the body has come, nothing says of what type it is; a list does not."""
    catalog = await opened_catalog(tmp_path)
    writer = catalog.documents.writer
    child = referrer(9)
    entry = {"mediaType": OCI_IMAGE, "digest": digest_of(child), "size": 5, "artifactType": "said/by-the-list"}
    listing = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    await catalog.database.write(
        lambda tx: catalog.documents.write(
            tx, "repository/app", [], [manifest_fact(digest_of(child), OCI_IMAGE, len(child), 1, writer)]
        )
    )
    manifest = parse_manifest(listing, None)
    pushed = Pushed(digest_of(listing), listing, manifest, [SUBJECT.replace(":", "-")])
    await catalog.database.write_in_steps(lambda tx: push_manifest(tx, catalog.documents, "app", pushed, False, 1))
    (found,) = walk_referrers(catalog.database.reading, ReferrersQuery("app", SUBJECT, None, BEGINNING))
    assert found.referrer == (digest_of(child), OCI_IMAGE, len(child), None, None)
    assert not list(
        walk_referrers(catalog.database.reading, ReferrersQuery("app", SUBJECT, "said/by-the-list", BEGINNING))
    )


@given(st.integers(-1, 2**63 - 1), *[st.integers(0, 2**63 - 1)] * 2, st.sampled_from(["", SUBJECT]))
def test_a_position_is_read_as_it_was_written(low, top, time, digest):
    position = Position(low, top, time, digest)
    assert Position.parse(position.text()) == position
