"""Checks of ID tokens in the primary: which issuers are contacted, which binding is proved, and what is logged."""

import logging

import pytest

from registry.access.id_tokens import IdTokenRefused
from registry.adapters.disk import SystemDisk
from registry.http.access import identity_checks
from registry.http.access.identity_checks import LocalIdentityChecks, PresentedIdToken
from registry.http.access.issuer_keys import IssuerKeys
from registry.telemetry.events import LogEvent
from tests.http.access.test_issuer_keys import Source
from tests.support.access_view import Facts, FileView
from tests.support.seams import StillClock

ISSUER = "https://issuer.example"


class Setting:
    def __init__(self, directory):
        self.facts, self.clock, self.source = Facts(directory / "facts.json"), StillClock(), Source()
        keys = IssuerKeys(self.source, SystemDisk(directory), self.clock)
        self.checks = LocalIdentityChecks(FileView(self.facts.path), keys, self.clock, "concord")
        self.ci = self.facts.account("ci")

    def token(self, **claims):
        now_s = self.clock.at_ms // 1000
        return self.source.issuer.token(**{"iat": now_s, "exp": now_s + 300, **claims})

    async def check(self, text, name="", network="192.0.2.0/24"):
        return await self.checks.check(PresentedIdToken(text, name, network))

    async def refused(self, text, match, name=""):
        with pytest.raises(IdTokenRefused, match=match):
            await self.check(text, name)


@pytest.fixture
def at(tmp_path):
    return Setting(tmp_path)


@pytest.fixture
def events(caplog):
    caplog.set_level(logging.INFO, "concord.access_control")

    def of(event):
        return [record.fields for record in caplog.records if record.event == str(event)]

    return of


async def test_a_token_proves_the_binding_whose_claims_it_has(at):
    one, two = at.facts.bind(at.ci, ISSUER, sub="one"), at.facts.bind(at.ci, ISSUER, sub="two", ref="main")
    assert (await at.check(at.token(sub="one"))).id == one
    assert (await at.check(at.token(sub="two", ref="main"), "ci")).id == two
    await at.refused(at.token(sub="two"), "no binding")
    await at.refused(at.token(sub="one"), "no binding", name="another")


async def test_only_issuers_of_bindings_in_force_are_contacted(at):
    await at.refused(at.token(), "no account is bound")
    await at.refused(at.token(iss="http://169.254.169.254"), "no account is bound")
    at.facts.bind(at.ci, ISSUER, expires_ms=at.clock.at_ms, sub="workload")
    await at.refused(at.token(), "no account is bound")
    at.facts.bind(at.ci, ISSUER, sub="workload")
    await at.refused(at.token(iss=f"{ISSUER}/"), "no account is bound")
    await at.refused(at.token(iss="https://issuer.example.evil"), "no account is bound")
    await at.refused(at.token(aud="another"), "audience")
    await at.refused(at.token(exp=1), "expired")
    assert at.source.fetched == []
    await at.check(at.token())
    assert at.source.fetched == [ISSUER]
    at.facts.block(at.ci)
    at.clock.at_ms += 3600_000
    await at.refused(at.token(), "no account is bound")
    at.facts.block(at.ci, False)
    at.facts.unbind(at.ci)
    await at.refused(at.token(), "no account is bound")
    assert at.source.fetched == [ISSUER]


async def test_a_binding_that_is_revoked_while_keys_are_fetched_is_not_proved(at, monkeypatch):
    at.facts.bind(at.ci, ISSUER, sub="workload")
    fetch = at.source.fetch

    async def slow(issuer):
        at.facts.unbind(at.ci)
        return await fetch(issuer)

    monkeypatch.setattr(at.source, "fetch", slow)
    await at.refused(at.token(), "no binding")


async def test_a_token_that_expires_while_keys_are_fetched_does_not_count(at, monkeypatch):
    at.facts.bind(at.ci, ISSUER, sub="workload")
    fetch = at.source.fetch

    async def slow(issuer):
        at.clock.at_ms += 400_000
        return await fetch(issuer)

    monkeypatch.setattr(at.source, "fetch", slow)
    await at.refused(at.token(), "expired")


async def test_a_key_of_one_issuer_signs_no_token_of_another(at):
    at.facts.bind(at.ci, ISSUER, sub="workload")
    at.facts.bind(at.ci, "https://another.example", sub="workload")
    await at.check(at.token())
    at.source.issuer.keys = []
    await at.refused(Source().issuer.token(iss="https://another.example", **times(at)), "does not publish")


def times(at):
    now_s = at.clock.at_ms // 1000
    return {"iat": now_s, "exp": now_s + 300}


async def test_a_token_of_several_accounts_needs_a_name(at):
    other = at.facts.account("other")
    for account in (at.ci, other):
        at.facts.bind(account, ISSUER, sub="workload")
    await at.refused(at.token(), "several accounts")
    assert (await at.check(at.token(), "other")).account == other


async def test_of_several_bindings_the_one_that_lasts_longest_counts(at):
    for expires_ms in (at.clock.at_ms + 9000, at.clock.at_ms + 1000):
        at.facts.bind(at.ci, ISSUER, expires_ms=expires_ms, sub="workload")
    assert (await at.check(at.token())).expires_ms == at.clock.at_ms + 9000
    for_ever = at.facts.bind(at.ci, ISSUER, sub="workload")
    assert (await at.check(at.token())).id == for_ever


async def test_a_token_that_is_presented_again_counts_and_is_logged(at, events):
    at.facts.bind(at.ci, ISSUER, sub="workload")
    text = at.token()
    await at.check(text)
    await at.check(at.token(jti="another"))
    assert events(LogEvent.ID_TOKEN_REUSED) == []
    await at.check(text, network="198.51.100.0/24")
    (logged,) = events(LogEvent.ID_TOKEN_REUSED)
    assert logged["account"] == "ci" and logged["first_network"] == "192.0.2.0/24"
    assert text not in str(logged) and text.rpartition(".")[2] not in str(logged)


async def test_refusals_are_logged_without_the_token(at, events):
    at.facts.bind(at.ci, ISSUER, sub="workload")
    text = at.token(sub="another")
    await at.refused(text, "no binding")
    (logged,) = events(LogEvent.ID_TOKEN_REJECTED)
    assert "no binding" in str(logged["reason"]) and text.rpartition(".")[2] not in str(logged)
    for _ in range(100):
        await at.refused(text, "no binding")
    assert len(events(LogEvent.ID_TOKEN_REJECTED)) < 30


async def test_the_memory_of_used_tokens_is_bounded(at, monkeypatch):
    monkeypatch.setattr(identity_checks, "MAX_USED", 3)
    at.facts.bind(at.ci, ISSUER, sub="workload")
    for number in range(5):
        await at.check(at.token(jti=str(number)))
    assert len(at.checks._used) == 3
    at.clock.at_ms += 900_000
    await at.check(at.token(jti="new"))
    assert len(at.checks._used) == 1, "those that have expired go"
