import pytest

from crdt.errors import CrdtError, Malformed, Unauthentic
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.sessions import (
    SESSION_MS,
    WINDOW,
    SeenRequests,
    hash_of,
    new_token,
    read_token,
    sign_answer,
    sign_request,
    token_text,
)
from registry.cluster.rpc.upload_tokens import new_upload_name, open_upload_id, seal_upload_id
from registry.errors import BlobUploadUnknown
from registry.oci.names import Repository

KEY, OTHER = ClusterKey("our secret"), ClusterKey("another secret")
TOKEN = token_text(new_token(KEY, "ab" * 16, "cd" * 16, 7, bytes(16), bytes([1] * 16), now_ms=1000))


def test_a_token_says_who_asks_and_until_when():
    session = read_token(TOKEN, [KEY])
    assert (session.client, session.expires_ms) == ("ab" * 16, 1000 + SESSION_MS)
    assert (session.server, session.incarnation) == ("cd" * 16, 7)


def test_a_token_of_another_cluster_is_refused():
    with pytest.raises(Unauthentic):
        read_token(TOKEN, [OTHER])


@pytest.mark.parametrize("token", ["", "x", "ä", TOKEN[:-4], TOKEN + "AAAA", "A" * len(TOKEN)])
def test_what_is_no_token_is_refused(token):
    with pytest.raises(CrdtError):
        read_token(token, [KEY])


def test_every_changed_character_of_a_token_is_refused():
    for at in range(len(TOKEN) - 2):
        changed = TOKEN[:at] + ("A" if TOKEN[at] != "A" else "B") + TOKEN[at + 1 :]
        with pytest.raises((Malformed, Unauthentic)):
            read_token(changed, [KEY])


def test_a_token_that_is_spelled_in_another_way_is_refused():
    """What is known of a session, so the requests that were seen in it, is known by the token's text."""
    token = TOKEN
    for other in (token[:4] + "!" + token[4:], token + "=", token[:-1] + "\n" + token[-1]):
        with pytest.raises((Malformed, Unauthentic)):
            read_token(other, [KEY])


def test_a_signature_covers_all_of_a_request():
    session = read_token(TOKEN, [KEY])
    request = ("POST", "/x", 5, "question", hash_of(b"body"))
    signed = sign_request(session, *request)
    for at, other in enumerate(["PUT", "/y", 6, "another", hash_of(b"other")]):
        assert sign_request(session, *request[:at], other, *request[at + 1 :]) != signed
    assert sign_request(session, *request[:4], hash_of(None)) != signed
    assert sign_answer(session, 5, 200, b"x") != sign_answer(session, 6, 200, b"x")
    assert sign_answer(session, 5, 200, b"x") != sign_answer(session, 5, 404, b"x")


def test_sessions_differ_by_their_nonces():
    again = token_text(new_token(KEY, "ab" * 16, "cd" * 16, 7, bytes(16), bytes([2] * 16), now_ms=1000))
    assert read_token(again, [KEY]).key != read_token(TOKEN, [KEY]).key


def test_a_request_is_accepted_once_in_whatever_order():
    seen, session = SeenRequests(), read_token(TOKEN, [KEY])
    for sequence in (1, 5, 3, 2, 4):
        assert seen.accept(session, sequence)
        assert not seen.accept(session, sequence)
    assert seen.accept(session, 10 * WINDOW)
    assert not seen.accept(session, 6), "too old to tell"
    for sequence in range(10 * WINDOW + 1, 14 * WINDOW):
        assert seen.accept(session, sequence)


APP = Repository("app")
NAME = new_upload_name("cd" * 16, bytes(range(17)))


@pytest.mark.parametrize("has_bytes", [True, False])
def test_an_upload_id_says_who_owns_it(has_bytes):
    opened = open_upload_id(seal_upload_id(NAME, has_bytes, APP, KEY.uploads), APP, [OTHER.uploads, KEY.uploads])
    assert (opened.owner, opened.name, opened.has_bytes) == ("cd" * 16, NAME, has_bytes)


def test_a_changed_upload_id_is_unknown():
    sealed = seal_upload_id(NAME, False, APP, KEY.uploads)
    for at in range(len(sealed)):
        changed = sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :]
        with pytest.raises(BlobUploadUnknown):
            open_upload_id(changed, APP, [KEY.uploads])
    with pytest.raises(BlobUploadUnknown):
        open_upload_id(sealed, Repository("other"), [KEY.uploads])
    with pytest.raises(BlobUploadUnknown):
        open_upload_id(sealed, APP, [OTHER.uploads])


def test_the_name_in_an_upload_id_is_a_plain_file_name():
    assert set(NAME) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
