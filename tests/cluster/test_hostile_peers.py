"""Requests in the name of other instances: what is not authentic, fresh and well-formed is refused, counted, and
changes nothing."""

import itertools
import random
import socket

import msgspec
import pytest

from crdt.delta import encode_delta
from crdt.fact import tag_fact
from crdt.revisions import Revision, encode_revisions
from crdt.vector import encode_vector
from registry import __version__
from registry.capabilities import OWN
from registry.cluster.rpc import messages as m
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.sessions import (
    Session,
    hash_of,
    read_token,
    sign_answer,
    sign_opening,
    sign_request,
    token_text,
)
from tests.support.client import sha256
from tests.support.server import KEY, running_cluster, running_server

pytestmark = pytest.mark.slow

PREFIX = "/_concord/peer"
ME = "ab" * 16
BEAT = msgspec.to_builtins(
    m.Heartbeat("eu", "http://127.0.0.1:9", "", "1", 1, 0, 0, bytes(16), {}), builtin_types=(bytes,)
)


class Peer:
    """A member that can be as hostile as it likes."""

    def __init__(self, server, secret=KEY, instance=ME):
        self.client = server.client
        self.instance = instance
        self.key = ClusterKey(secret)
        self._sequences = itertools.count(1)

    def open(self, **changed) -> Session:
        answer = self.shake_hands(m.SessionRequest(self.instance, bytes(16)), **changed)
        assert answer.status == 200, answer
        token = msgspec.msgpack.decode(answer.body, type=m.SessionResponse).token
        return read_token(token_text(token), [self.key])

    def shake_hands(self, question, **changed):
        body = msgspec.msgpack.encode(question)
        headers = {"Concord-Cluster": self.key.cluster, "Concord-MAC": sign_opening(self.key, body)} | changed
        return self.client.request("POST", PREFIX + "/session", body, headers)

    def ask(self, session, path, question, sequence=None, **changed):
        body = question if isinstance(question, bytes) else msgspec.msgpack.encode(question)
        sequence = next(self._sequences) if sequence is None else sequence
        headers = {
            "Concord-Session": session.token,
            "Concord-Sequence": str(sequence),
            "Concord-MAC": sign_request(session, "POST", PREFIX + path, sequence, "", hash_of(body)),
            "Concord-Body": hash_of(body),
        }
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}
        return self.client.request("POST", PREFIX + path, body, headers)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("hostile") / "data", clustered=True) as running:
        yield running


@pytest.fixture
def peer(server):
    return Peer(server)


@pytest.fixture
def session(peer):
    return peer.open()


@pytest.fixture
def refusals(server):
    """What was refused since the beginning of a test, and that nothing was changed by it."""
    before, root = server.status()["peer_requests_refused"], server.root()

    def since():
        after = server.status()["peer_requests_refused"]
        assert server.root() == root
        return {
            reason: count - before.get(reason, 0) for reason, count in after.items() if count != before.get(reason, 0)
        }

    return since


def test_a_genuine_question_is_answered_with_a_mac(peer, session):
    answer = peer.ask(session, "/changes", m.ChangesRequest(0), sequence=10**6)
    assert answer.status == 200
    assert answer.headers["Concord-MAC"] == sign_answer(session, 10**6, 200, answer.body)


@pytest.mark.parametrize(("path", "status"), [("/unheard-of", 404), ("/changes", 400), ("/content/nonsense", 400)])
def test_refusals_of_authentic_requests_are_signed_too(peer, session, path, status):
    answer = peer.ask(session, path, b"\xc1", sequence=10**6 + status)
    assert answer.status == status
    assert answer.headers["Concord-MAC"] == sign_answer(session, 10**6 + status, status, answer.body)


def test_a_handshake_carries_version_and_capabilities_and_ignores_unknown_ones(peer, server):
    later = m.SessionRequest(ME, bytes(16), "9.9.9", ["critical-facts", "of-a-later-version"])
    answer = msgspec.msgpack.decode(peer.shake_hands(later).body, type=m.SessionResponse)
    assert (answer.version, answer.capabilities) == (__version__, list(OWN.capabilities))
    first = {"instance": ME, "nonce": bytes(16)}
    assert peer.shake_hands(first).status == 200, "they may be missing"


@pytest.mark.parametrize("capabilities", [["x" * 33], ["A"], [""], ["two words"], ["a"] * 65, "a", [1]])
def test_capabilities_are_bounded_in_number_and_length(peer, session, capabilities):
    first = {"instance": ME, "nonce": bytes(16), "capabilities": capabilities}
    assert peer.shake_hands(first).status == 400
    hello = {"instance": ME, "sequence": 1, "heartbeat": BEAT | {"capabilities": capabilities}, "members": []}
    assert peer.ask(session, "/handshake", hello).status == 400


def test_a_session_needs_the_clusters_key(server, refusals):
    stranger = Peer(server, "some other cluster's key")
    body = msgspec.msgpack.encode(m.SessionRequest(ME, bytes(16)))
    for cluster in (stranger.key.cluster, ClusterKey(KEY).cluster, "", "xx"):
        headers = {"Concord-Cluster": cluster, "Concord-MAC": sign_opening(stranger.key, body)}
        assert stranger.client.request("POST", PREFIX + "/session", body, headers).status == 403
    assert refusals() == {"unauthentic": 4}


@pytest.mark.parametrize("question", [b"", b"\xff" * 20, msgspec.msgpack.encode({"instance": "x", "nonce": b""})])
def test_a_malformed_opening_is_refused(peer, question, refusals):
    headers = {"Concord-Cluster": peer.key.cluster, "Concord-MAC": sign_opening(peer.key, question)}
    assert peer.client.request("POST", PREFIX + "/session", question, headers).status == 400
    assert refusals() == {"malformed": 1}


@pytest.mark.parametrize(
    "changed",
    [
        {"Concord_MAC": "0" * 64},
        {"Concord_MAC": ""},
        {"Concord_Session": ""},
        {"Concord_Session": "AAAA"},
        {"Concord_Sequence": "2"},
        {"Concord_Sequence": "x"},
        {"Concord_Sequence": "9" * 40},
        {"Concord_Sequence": "\u00b2"},
        {"Concord_Parameters": "gA=="},
    ],
)
def test_a_forged_request_is_refused(peer, session, changed, refusals):
    answer = peer.ask(session, "/changes", m.ChangesRequest(0), sequence=1, **changed)
    assert answer.status in (400, 401, 403)
    assert sum(refusals().values()) == 1


def test_a_request_without_any_session_is_refused(server, refusals):
    for path in ("/changes", "/updates", f"/content/{sha256(b'x')}", "/upload"):
        assert server.client.request("POST", PREFIX + path, b"").status in (400, 401, 403)
    assert sum(refusals().values()) == 4


def test_a_replayed_request_is_refused(peer, session, refusals):
    assert peer.ask(session, "/changes", m.ChangesRequest(0), sequence=77).status == 200
    assert peer.ask(session, "/changes", m.ChangesRequest(0), sequence=77).status == 403
    assert refusals() == {"replayed": 1}


def test_another_body_or_path_under_the_same_mac_is_refused(peer, session, refusals):
    body = msgspec.msgpack.encode(m.ChangesRequest(0))
    headers = {
        "Concord-Session": session.token,
        "Concord-Sequence": "500",
        "Concord-MAC": sign_request(session, "POST", PREFIX + "/changes", 500, "", hash_of(body)),
        "Concord-Body": hash_of(body),
    }
    other = msgspec.msgpack.encode(m.ChangesRequest(1))
    assert peer.client.request("POST", PREFIX + "/changes", other, headers).status == 403
    assert peer.client.request("POST", PREFIX + "/fingerprints", body, headers).status == 403
    assert refusals() == {"unauthentic": 2}


PATHS = ["/handshake", "/changes", "/summaries", "/names", "/fingerprints", "/diffs", "/updates", "/facts", "/locate"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "question", [b"", b"\xc1", b"\x80", b"\x93\x01\x02\x03", b"\xdd\xff\xff\xff\xff", b"\x81\xa1x" * 3]
)
def test_a_malformed_question_is_400(peer, session, path, question, refusals):
    assert peer.ask(session, path, question).status == 400
    assert refusals() == {"malformed": 1}


def test_an_unknown_question_is_404(peer, session, refusals):
    assert peer.ask(session, "/unheard-of", b"\x80").status == 404
    assert refusals() == {"unknown question": 1}


@pytest.mark.parametrize(
    "question",
    [
        ("/diffs", m.DiffsRequest([("repository/app", b"\xff\xff\xff\xff\x0f")])),
        ("/diffs", m.DiffsRequest([("repository/app", b"")])),
        ("/summaries", m.SummariesRequest([("zz", 4)])),
        ("/summaries", m.SummariesRequest([("1", 4000)])),
        ("/summaries", m.SummariesRequest([("0", 0)] * 5000)),
        ("/updates", m.UpdatesRequest([("repository/app", b"\x01\x01\x05\x00\x00\x05\x00")], {}, [])),
        ("/updates", m.UpdatesRequest([("repository/app", b"")], {}, [])),
        ("/changes", {"since": -1}),
        ("/changes", {"since": 2**63}),
        ("/handshake", {"instance": ME, "sequence": 1, "heartbeat": BEAT | {"incarnation": 2**64 - 1}, "members": []}),
        ("/handshake", {"instance": ME, "sequence": 1, "heartbeat": BEAT | {"root": b"short"}, "members": []}),
        ("/handshake", {"instance": "x", "sequence": 1, "heartbeat": BEAT, "members": []}),
        ("/handshake", {"instance": ME, "sequence": 1, "heartbeat": BEAT | {"site": "x" * 10**6}, "members": []}),
    ],
)
def test_hostile_vectors_places_and_updates_are_400(peer, session, question, refusals):
    assert peer.ask(session, *question).status == 400
    assert refusals() == {"malformed": 1}


def test_an_update_before_which_something_is_missing_is_said_to_be_early(peer, session, refusals):
    text = tag_fact("v1", sha256(b"x"), 1, 5).text()
    for raw in (encode_delta(5, 7, [text], []), encode_delta(6, 0, [], [(5, 2**30)])):
        answer = peer.ask(session, "/updates", m.UpdatesRequest([("repository/app", raw)], {}, []))
        assert msgspec.msgpack.decode(answer.body, type=m.UpdatesResponse).missing_dependencies == ["repository/app"]
    assert refusals() == {}


def test_an_update_whose_sender_had_seen_other_rights_is_refused(peer, session, refusals):
    raw = encode_delta(5, 0, [tag_fact("v1", sha256(b"x"), 1, 5).text()], [])
    ahead = encode_revisions([Revision("access", {5: 1})])
    answer = peer.ask(session, "/updates", m.UpdatesRequest([("repository/app", raw)], {}, [], ahead))
    assert answer.status == 409
    assert refusals() == {"ahead of rights": 1}


def test_one_malformed_update_of_several_applies_none(peer, session, refusals):
    good = encode_delta(5, 0, [tag_fact("v1", sha256(b"x"), 1, 5).text()], [])
    updates = m.UpdatesRequest([("repository/app", good), ("repository/app", b"bad")], {}, [])
    assert peer.ask(session, "/updates", updates).status == 400
    assert refusals() == {"malformed": 1}


def test_bodies_that_nobody_named_are_not_kept(peer, session, server, refusals):
    assert (
        peer.ask(session, "/updates", m.UpdatesRequest([], {"zz": "x", "5": "y" * 5000}, [b"unasked for"])).status
        == 200
    )
    answer = peer.ask(session, "/locate", m.LocateRequest(sha256(b"unasked for")))
    assert msgspec.msgpack.decode(answer.body, type=m.LocateResponse).size is None
    assert refusals() == {}


def test_a_hello_in_another_instances_name_is_refused(peer, session, server, refusals):
    beat = m.Heartbeat("eu", "http://127.0.0.1:9", "", "1", 1, 0, 0, bytes(16), {})
    assert peer.ask(session, "/handshake", m.Handshake("cd" * 16, 1, beat, [])).status == 400
    assert "cd" * 16 not in [member["instance"] for member in server.status()["members"]]
    assert refusals() == {"malformed": 1}


def test_random_questions_end_nothing(peer, session, server):
    drawn = random.Random(1)
    for _ in range(500):
        answer = peer.ask(session, drawn.choice(PATHS), drawn.randbytes(drawn.randrange(60)))
        assert answer.status in (200, 400)
    assert server.client.get("/v2/").status == 200


def test_names_and_vectors_of_any_length_are_answered(peer, session):
    question = m.DiffsRequest([("x" * 100_000, encode_vector({n: n for n in range(1000)}))])
    assert peer.ask(session, "/diffs", question).status == 200


def test_what_was_recorded_is_worth_nothing_after_a_restart_or_at_another_instance(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu"]) as cluster:
        first, second = cluster
        peer = Peer(first)
        session = peer.open()
        body = msgspec.msgpack.encode(m.ChangesRequest(0))
        recorded = {
            "Concord-Session": session.token,
            "Concord-Sequence": "9",
            "Concord-Body": hash_of(body),
            "Concord-MAC": sign_request(session, "POST", PREFIX + "/changes", 9, "", hash_of(body)),
        }
        assert first.client.request("POST", PREFIX + "/changes", body, recorded).status == 200
        assert second.client.request("POST", PREFIX + "/changes", body, recorded).status == 401
        first.kill()
        first.start()
        assert first.client.request("POST", PREFIX + "/changes", body, recorded).status == 401


def test_a_request_that_is_not_authentic_is_refused_before_its_body_is_read(server, refusals):
    with socket.create_connection((server.host, server.port)) as connection:
        connection.settimeout(5)
        head = f"POST {PREFIX}/updates HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
        connection.sendall(head.encode())
        assert b" 40" in connection.recv(1000)
    assert sum(refusals().values()) == 1


def test_text_that_is_no_utf_8_is_400(peer, session, refusals):
    assert peer.ask(session, "/locate", b"\x81\xa6digest\xa3\xff\xff\xff").status == 400
    assert refusals() == {"malformed": 1}


@pytest.mark.parametrize(
    "question",
    [
        m.ReplicationRequest("app", "v1", [], ["sha256:" + "a" * 64] * 2001),
        m.ReplicationRequest("APP", "v1", [], []),
        m.ReplicationRequest("app", "no tag", [], []),
    ],
    ids=["too_many_parts", "no_repository", "no_tag"],
)
def test_a_question_about_replication_that_is_none_is_refused(peer, session, question, refusals):
    assert peer.ask(session, "/replication", question).status == 400
    assert refusals() == {"malformed": 1}


def test_a_replay_under_a_token_that_is_spelled_in_another_way_is_refused(peer, session, refusals):
    body = msgspec.msgpack.encode(m.NamesRequest([]))
    assert peer.ask(session, "/names", body, sequence=7001).status == 200
    spelled = session.token[:4] + "!" + session.token[4:]
    assert peer.ask(session, "/names", body, sequence=7001, Concord_Session=spelled).status in (400, 401, 403)
    refusals()


@pytest.mark.parametrize("path", ["%2e%2e/status", "%252e%252e/leave", "content/%2e%2e", "x", "names/%2e%2e/names"])
def test_nothing_but_what_instances_ask_each_other_is_passed_on(pair, path):
    first, second = pair.servers
    owner = second.status()["instance"]
    answer = first.client.request("POST", f"{PREFIX}/{path}", b"", {"Concord-For": owner})
    assert answer.status in (400, 404) and second.process.poll() is None
    assert not second.client.get("/_concord/leave").json()["leaving"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("pair"), ["eu", "eu"]) as cluster:
        yield cluster
