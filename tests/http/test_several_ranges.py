"""Several ranges in one GET: `multipart/byteranges`, bounded, each byte once (RFC 9110, sections 14 and 15.3.7)."""

import email
import os
import random
import re

import pytest

from registry.errors import RangeInvalid
from registry.http.oci.multipart import GAP_BYTES, Multipart, assembled, runs
from registry.oci.ranges import MAX_RANGES, MAX_UNORDERED, ByteRange, parse_ranges
from tests.support.client import Client, sha256
from tests.support.processes import owner_of, standing_still, wait_for_children
from tests.support.server import running_cluster, running_server, wait_until

pytestmark = pytest.mark.slow

CONTENT = random.Random(3).randbytes(3_000_000)
SMALL = CONTENT[:10_000]


def parsed(header, size=1000):
    return [(one.first, one.end - 1) for one in parse_ranges(f"bytes={header}", size) or []]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("0-9,100-109", [(0, 9), (100, 109)]),
        ("100-109, 0-9", [(100, 109), (0, 9)]),
        ("0-9,10-19", [(0, 9), (10, 19)]),
        ("0-10,10-19", [(0, 19)]),
        ("50-60,0-9,5-55", [(0, 60)]),
        ("900-,0-0,-5", [(900, 999), (0, 0)]),
        ("0-0,,5-5,", [(0, 0), (5, 5)]),
        ("0-0,5000-", [(0, 0)]),
        ("0-0,-0", [(0, 0)]),
        ("0-99,0-99,0-99", [(0, 99)]),
        ("990-5000,0-0", [(990, 999), (0, 0)]),
    ],
)
def test_ranges_come_in_their_order_and_those_that_overlap_become_one(header, expected):
    assert parsed(header) == expected


@pytest.mark.parametrize("header", ["1000-,2000-", "0-1,x", "0-1,5-2", ",", "-0,-0", "0-1,-", "0-1;5-6"])
def test_ranges_that_are_malformed_or_all_outside_are_refused(header):
    with pytest.raises(RangeInvalid):
        parse_ranges(f"bytes={header}", 1000)


def test_more_ranges_than_are_taken_are_ignored():
    def header(count, step=2):
        return "bytes=" + ",".join(f"{step * n}-{step * n}" for n in range(count))

    assert len(parse_ranges(header(MAX_RANGES), 10_000)) == MAX_RANGES
    assert parse_ranges(header(MAX_RANGES + 1), 10_000) is None
    backwards = ",".join(f"{2 * n}-{2 * n}" for n in reversed(range(MAX_UNORDERED)))
    assert len(parse_ranges(f"bytes={backwards}", 10_000)) == MAX_UNORDERED
    assert parse_ranges(f"bytes=100-100,{backwards}", 10_000) is None


def test_no_byte_is_in_two_ranges_and_none_is_missing():
    drawn = random.Random(5)
    for _ in range(500):
        asked = [sorted((drawn.randrange(200), drawn.randrange(200))) for _ in range(drawn.randrange(12))]
        asked.append((drawn.randrange(150), 199))
        found = parse_ranges("bytes=" + ",".join(f"{a}-{b}" for a, b in asked), 150)
        listed = [n for one in found or [] for n in range(one.first, one.end)]
        assert sorted(listed) == sorted({n for a, b in asked for n in range(a, min(b + 1, 150))})


def test_ranges_near_each_other_are_read_at_once():
    near = [ByteRange(0, 10), ByteRange(10 + GAP_BYTES, 10), ByteRange(21 + 2 * GAP_BYTES, 5), ByteRange(100, 1)]
    assert [(run.span, len(run.ranges)) for run in runs(near, GAP_BYTES)] == [
        (ByteRange(0, 20 + GAP_BYTES), 2),
        (near[2], 1),
        (near[3], 1),
    ]


@pytest.mark.parametrize("gap", [0, 100, 10**9])
async def test_parts_are_cut_out_of_whatever_pieces_are_read(gap):
    drawn = random.Random(gap)
    for _ in range(200):
        size = drawn.randrange(1, 600)
        firsts = sorted(drawn.sample(range(size), min(size, 5)))
        ranges = [
            ByteRange(first, drawn.randrange(1, end - first + 1))
            for first, end in zip(firsts, [*firsts[1:], size], strict=True)
        ]
        if drawn.random() < 0.3:
            drawn.shuffle(ranges)

        async def read(span):
            at = span.first
            while at < span.end:
                length = drawn.randrange(min(150, span.end - at) + 1)
                yield SMALL[at : at + length]
                at += length

        multipart = Multipart(ranges, size, "b")
        body = b"".join([bytes(piece) async for piece in assembled(multipart, gap, read)])
        expected = b"".join(multipart.head(one) + SMALL[one.first : one.end] for one in ranges) + multipart.end()
        assert body == expected and len(body) == multipart.length()


def parts_of(answer):
    """The parts of an answer, as a client that knows MIME finds them: where each begins, and its bytes."""
    assert (answer.status, answer.headers.get_content_type()) == (206, "multipart/byteranges")
    assert answer.headers["Content-Length"] == str(len(answer.body)) and "Content-Range" not in answer.headers
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    found = []
    for part in email.message_from_bytes(head + answer.body).get_payload():
        first, last, size = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", part["Content-Range"]).groups()
        raw = part.get_payload(decode=True)
        found.append((int(first), int(last), int(size), raw))
    return found


def asks(client, repository, content, ranges):
    """Whether these ranges are answered, in their order."""
    digest = sha256(content)
    header = "bytes=" + ",".join(f"{first}-{last}" for first, last in ranges)
    answer = client.get(f"/v2/{repository}/blobs/{digest}", Range=header)
    boundary = re.search("boundary=(.*)", answer.headers["Content-Type"])[1].encode()
    expected = b"".join(
        b"\r\n--%b\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%b"
        % (boundary, first, last, len(content), content[first : last + 1])
        for first, last in ranges
    )
    assert len(parts_of(answer)) == len(ranges)
    return answer.body == expected + b"\r\n--%b--\r\n" % boundary and len(boundary) >= 32


FEW = [(0, 9), (100, 109), (9_000, 9_999)]
FAR = [(5, 5), (1_000_000, 1_700_000), (1_700_001, 1_700_001), (2_999_999, 2_999_999)]
MANY = [(2_900 * n, 2_900 * n + n) for n in range(1_000)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("ranges") / "data", workers="2") as running:
        wait_for_children(running, 2)
        for content in (SMALL, CONTENT):
            running.client.push_blob("app", content)
        yield running


def test_several_ranges_are_answered_by_every_process(server):
    for _ in range(5):
        assert asks(server.client, "app", SMALL, FEW)
        assert asks(server.client, "app", SMALL, FEW[::-1])
        assert asks(server.client, "app", CONTENT, FAR)
        assert asks(server.client, "app", CONTENT, FAR[::-1])
        assert asks(server.client, "app", CONTENT, MANY)


def test_a_worker_answers_several_ranges_while_the_primary_stands_still(server):
    with standing_still(owner_of(server)):
        client = Client(server.host, server.port, timeout_s=5)
        assert asks(client, "app", CONTENT, FAR)


def test_one_range_that_is_left_is_answered_alone(server):
    path = f"/v2/app/blobs/{sha256(SMALL)}"
    for header in ("bytes=0-9,5-19", "bytes=0-19,20000-"):
        answer = server.client.get(path, Range=header)
        assert (answer.status, answer.headers["Content-Range"], answer.body) == (206, "bytes 0-19/10000", SMALL[:20])


def test_several_ranges_outside_are_416_and_too_many_are_answered_whole(server):
    path = f"/v2/app/blobs/{sha256(SMALL)}"
    assert server.client.get(path, Range="bytes=10000-,20000-").status == 416
    many = ",".join(f"{2 * n}-{2 * n}" for n in range(MAX_RANGES + 1))
    answer = server.client.get(path, Range=f"bytes={many}")
    assert (answer.status, answer.body) == (200, SMALL)
    other = server.client.get(path, Range="bytes=0-1,5-6", If_Range='"other"')
    assert (other.status, other.body) == (200, SMALL)


def test_a_boundary_is_never_the_same(server):
    path = f"/v2/app/blobs/{sha256(SMALL)}"
    kinds = {server.client.get(path, Range="bytes=0-1,5-6").headers["Content-Type"] for _ in range(5)}
    assert len(kinds) == 5


def test_several_ranges_of_content_that_is_elsewhere_cost_one_transfer(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"], copies="eu=1") as cluster:
        content = os.urandom(3_000_000)
        digest = cluster[0].client.push_blob("app", content)
        cluster.wait_agreed()
        assert asks(cluster[1].client, "app", content, FAR)
        wait_until(lambda: cluster[1].client.get(f"/v2/app/blobs/{digest}").body == content)
        other = os.urandom(3_000_000)
        digest = cluster[0].client.push_blob("app", other)
        cluster.wait_agreed()
        header = "bytes=" + ",".join(f"{first}-{last}" for first, last in FAR[::-1])
        answer = cluster[1].client.get(f"/v2/app/blobs/{digest}", Range=header)
        assert answer.status == 206 or (answer.status, answer.body) == (200, other)


def test_a_part_of_a_damaged_blob_is_never_sent(tmp_path):
    """Each part is checked where that is due, and none of them is told to be right before it is."""
    with running_server(tmp_path / "data", verify_after_s="0") as server:
        digest = server.client.push_blob("app", CONTENT)
        assert asks(server.client, "app", CONTENT, FAR)
        file = server.data / "blobs" / "sha256" / digest[7:9] / digest[7:]
        file.write_bytes(CONTENT[:2_999_999] + b"?")
        answer = server.client.get(f"/v2/app/blobs/{digest}", Range="bytes=0-1,2999999-2999999")
        assert answer.status == 503
