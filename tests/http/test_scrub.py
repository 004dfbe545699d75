"""Checking all content, by request."""

from tests.support.client import sha256
from tests.support.server import running_server, wait_until

CONTENT = bytes(range(256)) * 4096 * 12


def path(server, digest):
    return server.data / "blobs" / "sha256" / digest[7:9] / digest[7:]


def flip(server, digest):
    content = bytearray(path(server, digest).read_bytes())
    content[-1] ^= 1
    path(server, digest).write_bytes(content)


def test_a_scrub_is_begun_and_shows_how_far_it_is_and_what_it_found(tmp_path):
    with running_server(tmp_path / "data") as server:
        damaged = server.client.push_blob("app", CONTENT)
        right = server.client.push_blob("app", b"right")
        missing = server.client.push_blob("app", b"missing")
        flip(server, damaged)
        path(server, missing).unlink()
        assert server.client.get("/_concord/scrub").json()["running"] is None
        answer = server.client.request("POST", "/_concord/scrub")
        assert (answer.status, answer.json()["begun"]) == (202, True)
        assert answer.json()["running"]["total_bytes"] == len(CONTENT) + len(b"right") + len(b"missing")
        again = server.client.request("POST", "/_concord/scrub")
        assert (again.status, again.json()["begun"]) == (202, False), "12 MiB at 20 MiB/s are not done yet"
        assert again.json()["running"]["started_ms"] == answer.json()["running"]["started_ms"]
        wait_until(lambda: server.client.get("/_concord/scrub").json()["last"])
        state = server.client.get("/_concord/scrub").json()
        assert state["running"] is None
        last = state["last"]
        assert (last["contents"], last["corrupt"], last["repaired"]) == (3, 2, 0)
        assert last["ended_ms"] - last["started_ms"] > 400, "no faster than it may"
        assert state["since_start"]["corrupt"] == 2
        assert server.client.get(f"/v2/app/blobs/{damaged}").status == 503
        assert server.client.get(f"/v2/app/blobs/{right}").status == 200
        (kept,) = (server.data / "quarantine").iterdir()
        assert kept.name.endswith(damaged.replace(":", "-"))


def test_all_is_checked_at_the_start_if_told_so(tmp_path):
    with running_server(tmp_path / "data") as server:
        digest = server.client.push_blob("app", b"content")
        flip(server, digest)
    with running_server(tmp_path / "data", scrub_at_start="1", scrub_mib_s="0") as server:
        wait_until(lambda: server.client.get("/_concord/scrub").json()["last"])
        assert server.status()["content_quarantined"] == 1
        assert server.client.get(f"/v2/app/blobs/{sha256(b'content')}").status == 503
