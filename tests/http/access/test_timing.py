"""Times tell nothing: two kinds of requests, interleaved, are compared by a Mann–Whitney test at 1 %."""

import http.client
import math
import os
import time

import pytest

from registry.access.passwords import hash_password
from registry.access.rights import Credential, CredentialKind
from registry.http.access.password_checks import Attempt, LocalPasswordChecks
from registry.http.access.verified import SharedTable, VerifiedPasswords
from tests.http.access.conftest import Guarded
from tests.support.seams import StillClock

pytestmark = pytest.mark.slow

SAMPLES = 1000
HASHES = 40
Z_OF_1_PERCENT = 2.576


def mann_whitney_z(first: list[float], second: list[float]) -> float:
    """Return how many standard deviations the rank sum of the first sample is off what chance makes of it (no ties)."""
    ranked = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    rank_sum = sum(rank for rank, (_, sample) in enumerate(ranked, 1) if sample == 0)
    n, m = len(first), len(second)
    return (rank_sum - n * (n + m + 1) / 2) / math.sqrt(n * m * (n + m + 1) / 12)


def differ(measure, first, second, samples) -> bool:
    """Return whether the times of two requests differ, twice in a row: chance alone makes one in a hundred differ."""
    for _ in range(2):
        times = ([], [])
        for number in range(samples):
            for kind in (0, 1) if number % 2 else (1, 0):
                times[kind].append(measure((first, second)[kind]))
        if abs(mann_whitney_z(*times)) <= Z_OF_1_PERCENT:
            return False
    return True


def test_the_comparison_finds_a_difference():
    def measure(seconds):
        return seconds + os.urandom(1)[0] / 1000

    assert differ(measure, 1.0, 1.05, SAMPLES)
    assert not differ(measure, 1.0, 1.0, SAMPLES) or not differ(measure, 1.0, 1.0, SAMPLES)


@pytest.fixture(scope="module")
def requests(alone_at: Guarded):
    """Measure requests of an account without rights, on one connection."""
    at = alone_at
    at.facts.account("stranger", "password")
    at.facts.grant(at.facts.account("mine", "password"), "mine/*", "pull", "push")
    credentials = {
        "stranger": at.basic("stranger", "password"),
        "anonymous": at.token("repository:team/app:pull"),
        "mine": at.basic("mine", "password"),
        "nothing": {},
    }
    connection = http.client.HTTPConnection(at.server.host, at.server.port, timeout=10)

    def measure(request):
        method, path, who = request
        body = b"" if method == "POST" else None
        begun = time.perf_counter()
        connection.request(method, path, body, credentials[who])
        connection.getresponse().read()
        return time.perf_counter() - begun

    yield at, measure
    connection.close()


@pytest.mark.parametrize("who", ["stranger", "anonymous", "nothing"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_a_forbidden_repository_takes_the_time_of_an_absent_one(requests, who, method):
    _, measure = requests
    there, absent = ((method, f"/v2/team/{name}/manifests/v1", who) for name in ("app", "xyz"))
    assert not differ(measure, there, absent, SAMPLES)


def test_a_mount_of_a_forbidden_blob_takes_the_time_of_an_absent_one(requests):
    at, measure = requests
    absent = f"sha256:{'7' * 64}"
    for source in ("&from=team/app", ""):
        first, second = (
            ("POST", f"/v2/mine/app/blobs/uploads/?mount={digest}{source}", "mine") for digest in (at.blob, absent)
        )
        assert not differ(measure, first, second, SAMPLES // 4)


async def test_an_unknown_account_takes_the_time_of_a_known_one():
    """The clock that counts is the processor's: threads of other tests compute meanwhile."""
    verified = VerifiedPasswords(SharedTable(), lambda: [b"k" * 32])
    checks = LocalPasswordChecks(StillClock(), verified, lambda: 1, None)
    known = [Credential("c", "a", CredentialKind.PASSWORD, hash_password("right"), None)]
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(HASHES):
        for kind, credentials in ((0, known), (1, [])) if number % 2 else ((1, []), (0, known)):
            begun = time.process_time()
            assert (
                await checks.check(Attempt(f"name {kind}", f"wrong {number}", f"10.0.{number}.0/24"), credentials)
                is None
            )
            times[kind].append(time.process_time() - begun)
    assert abs(mann_whitney_z(*times)) <= Z_OF_1_PERCENT * 1.5
