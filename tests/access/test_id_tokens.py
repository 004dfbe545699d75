"""ID tokens: which count, and each known way to forge one."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import OctKey, RSAKey

from registry.access import id_tokens
from registry.access.id_tokens import (
    IdTokenRefused,
    InvalidKeySet,
    KeySet,
    UnknownKey,
    check_claims,
    end_ms,
    is_id_token,
    read_id_token,
    verified_claims,
)
from tests.support.issuer import AUDIENCE, Issuer, key, signed

NOW_S = 1_700_000_000


@pytest.fixture
def issuer():
    return Issuer()


def verify(issuer, text, key_set=None, now_s=NOW_S):
    """Verify a token as the primary does."""
    token = read_id_token(text)
    check_claims(token.claims, AUDIENCE, now_s * 1000)
    claims = verified_claims(text, token, KeySet(key_set or issuer.key_set()))
    check_claims(claims, AUDIENCE, now_s * 1000)
    return claims


def at(**claims):
    return {"iat": NOW_S, "exp": NOW_S + 300, **claims}


def refused(issuer, text, match, **options):
    with pytest.raises(IdTokenRefused, match=match):
        verify(issuer, text, **options)


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"])
def test_a_token_signed_by_its_issuer_counts(issuer, algorithm):
    issuer.keys = [key("one", algorithm)]
    assert verify(issuer, issuer.token(algorithm, **at()))["sub"] == "workload"
    other = Issuer()
    other.keys = [key("another", algorithm)]
    refused(issuer, other.token(algorithm, header={"kid": "one"}, **at()), "signature")


def test_an_altered_token_is_refused(issuer):
    head, body, signature = issuer.token(**at()).split(".")
    forged = part(issuer.claims(**at(sub="another workload")))
    refused(issuer, f"{head}.{forged}.{signature}", "signature")
    refused(issuer, f"{head}.{body}.{'A' * len(signature)}", "signature")
    refused(issuer, f"{head}.{body}.", "signature")


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, 7, ["RS256"], "HS256", "RS512", "dir"])
def test_only_listed_algorithms_count(issuer, name):
    _, body, signature = issuer.token(**at()).split(".")
    for end in ("", signature):
        refused(issuer, f"{part({'alg': name, 'kid': 'one', 'typ': 'JWT'})}.{body}.{end}", "algorithm")


def test_a_public_key_is_no_secret(issuer, monkeypatch):
    issuer.keys = [key("one", "RS256")]
    public = key("one", "RS256").public_key
    for form in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1):
        secret = OctKey.import_key(base64.urlsafe_b64encode(public.public_bytes(Encoding.PEM, form)))
        text = signed({"alg": "HS256", "kid": "one"}, issuer.claims(**at()), secret)
        refused(issuer, text, "algorithm")
        monkeypatch.setitem(id_tokens.ALGORITHMS, "HS256", "oct")
        refused(issuer, text, "does not publish")
        monkeypatch.delitem(id_tokens.ALGORITHMS, "HS256")


def test_a_published_secret_verifies_nothing(issuer):
    secret = OctKey.generate_key(256, {"kid": "one"})
    published = json.dumps({"keys": [secret.as_dict(private=True)]}).encode()
    text = signed({"alg": "HS256", "kid": "one"}, issuer.claims(**at()), secret)
    refused(issuer, text, "algorithm", key_set=published)
    assert KeySet(published).find("one", "RS256") is None


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_that_the_token_brings_is_not_used(issuer, member):
    """CVE-2025-24976 and its like."""
    own = key("own", "RS256")
    brought = {
        "jwk": own.as_dict(private=False),
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/certificate",
        "x5c": [base64.b64encode(b"certificate").decode()],
    }[member]
    for key_id, match in (("own", "does not publish"), ("one", "does not publish|signature")):
        header = {"alg": "RS256", "kid": key_id, member: brought}
        refused(issuer, signed(header, issuer.claims(**at()), own), match)
    header = {"alg": "ES256", "kid": "one", member: brought}
    if member != "jwk":
        assert verify(issuer, signed(header, issuer.claims(**at()), issuer.keys[0])), "it is not read at all"


@pytest.mark.parametrize("key_id", ["../../../dev/null", "/etc/passwd", "' OR 1=1", "", None, 1, ["one"], "x" * 501])
def test_a_key_id_is_only_looked_up(issuer, key_id):
    head = {"alg": "ES256"} | ({} if key_id is None else {"kid": key_id})
    _, body, signature = issuer.token(**at()).split(".")
    refused(issuer, f"{part(head)}.{body}.{signature}", "does not publish|names no key")


def test_an_unknown_key_is_told_from_a_wrong_signature(issuer):
    with pytest.raises(UnknownKey):
        verify(issuer, issuer.token(header={"kid": "two"}, **at()))


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"b64": False}, {"crit": ["b64"], "b64": False}])
def test_a_header_that_changes_the_reading_is_refused(issuer, header):
    _, body, signature = issuer.token(**at()).split(".")
    refused(issuer, f"{part({'alg': 'ES256', 'kid': 'one', **header})}.{body}.{signature}", "not understood")


@pytest.mark.parametrize("kind", ["at+jwt", "logout+jwt", "JWE", ["JWT"]])
def test_a_token_of_another_type_is_refused(issuer, kind):
    _, body, signature = issuer.token(**at()).split(".")
    refused(issuer, f"{part({'alg': 'ES256', 'kid': 'one', 'typ': kind})}.{body}.{signature}", "another type")


@pytest.mark.parametrize("audience", ["another", "Concord", "concord ", "", None, [], ["another"], {"concord": 1}, 1])
def test_a_foreign_audience_is_refused(issuer, audience):
    refused(issuer, issuer.token(**at(aud=audience)), "audience")


def test_an_audience_may_be_one_of_several(issuer):
    assert verify(issuer, issuer.token(**at(aud=["another", "concord"])))


@pytest.mark.parametrize(
    ("claims", "late_s", "match"),
    [
        ({"exp": 300}, 300 + 59, ""),
        ({"exp": 300}, 300 + 60, "expired"),
        ({"exp": 36000}, 600 + 59, ""),
        ({"exp": 36000}, 600 + 60, "too old"),
        ({}, -59, ""),
        ({}, -61, "future"),
        ({"nbf": 100}, 41, ""),
        ({"nbf": 100}, 39, "clocks"),
    ],
)
def test_times_are_compared_with_a_minute_of_skew(issuer, claims, late_s, match):
    text = issuer.token(**at(**{name: NOW_S + value for name, value in claims.items()}))
    if match:
        refused(issuer, text, match, now_s=NOW_S + late_s)
    else:
        verify(issuer, text, now_s=NOW_S + late_s)


@pytest.mark.parametrize("value", [None, "1700000300", True, -1, 2**70, [1]])
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_a_time_is_a_number(issuer, name, value):
    if name == "nbf" and value is None:
        return  # it may be left out
    refused(issuer, issuer.token(**at(**{name: value})), f"no time {name}")


def test_a_token_ends_with_its_life_or_its_age():
    assert end_ms({"iat": NOW_S, "exp": NOW_S + 300}) == (NOW_S + 360) * 1000
    assert end_ms({"iat": NOW_S, "exp": NOW_S + 36000}) == (NOW_S + 660) * 1000


@pytest.mark.parametrize(
    "text",
    [
        "", "a password", "a.b.c", "ey.ey.x", "x" * 100, "eyJhbGciOiJ9.eyJhbGciOiJ9",
        "1.ABCDEFGHIJKLMNOP.ABCDEFGHIJKLMNOP",
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.AA\n", "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.A+A", "ey" + "J" * 20_000,
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.ÄÄ",
    ],
)  # fmt: skip
def test_what_has_another_form_is_no_id_token(text):
    assert not is_id_token(text)
    with pytest.raises(IdTokenRefused):
        read_id_token(text)


@pytest.mark.parametrize(
    "body", [[], "text", {"sub": "x"}, {"iss": ""}, {"iss": 1}, {"iss": ["https://issuer.example"]}]
)
def test_a_token_without_an_issuer_is_refused(issuer, body):
    head, _, signature = issuer.token(**at()).split(".")
    refused(issuer, f"{head}.{part(body)}.{signature}", "malformed|no issuer")


def test_a_token_of_deeply_nested_json_is_refused(issuer):
    head, _, signature = issuer.token(**at()).split(".")
    nested = base64.urlsafe_b64encode(b'{"a":' * 2000 + b"1" + b"}" * 2000).rstrip(b"=").decode()
    refused(issuer, f"{head}.{nested}.{signature}", "malformed|no issuer")


@pytest.mark.parametrize(
    "members",
    [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"alg": "ES384"},
        {"kty": "RSA"},
        {"kty": "oct"},
        {"x": "AA"},
        {"crv": "P-384"},
    ],
)
def test_a_key_for_something_else_verifies_nothing(issuer, members):
    published = json.loads(issuer.key_set())
    published["keys"][0].update(members)
    data = json.dumps(published).encode()
    refused(issuer, issuer.token(**at()), "does not publish|signature", key_set=data)
    assert not members.keys() & {"use", "key_ops", "alg", "kty"} or KeySet(data).find("one", "ES256") is None


def test_a_token_has_a_bound(issuer):
    assert verify(issuer, issuer.token(**at(more="x" * 10_000)))
    refused(issuer, issuer.token(**at(more="x" * 20_000)), "malformed")


@pytest.mark.filterwarnings("ignore")
def test_a_short_key_verifies_nothing(issuer):
    issuer.keys = [RSAKey.generate_key(1024, {"kid": "one"})]
    refused(issuer, issuer.token("RS256", **at()), "does not publish")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": ["one"]}', b"\xff", b"[" * 5000])
def test_what_is_no_key_set_is_refused(data):
    with pytest.raises(InvalidKeySet):
        KeySet(data)


def test_a_key_set_has_a_bound():
    with pytest.raises(InvalidKeySet, match="more than"):
        KeySet(json.dumps({"keys": [{"kty": "RSA"}] * 201}).encode())
    assert not KeySet(b'{"keys": []}').has("one")


def test_clients_cannot_fill_the_memory_of_a_key_set(issuer):
    keys = KeySet(issuer.key_set())
    for number in range(100):
        assert keys.find(f"unknown {number}", "ES256") is None
    assert keys.find("one", "ES256") and len(keys._imported) == 1
