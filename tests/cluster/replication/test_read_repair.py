"""Questions before a miss is answered, in virtual time: how many there are, whom they wait for, what counts for how
long."""

import asyncio
import http.client
import time

import pytest

from registry.cluster.replication.read_repair import DOCUMENTS_AT_ONCE, REMEMBERED_S, REQUESTS_AT_ONCE, ReadRepair
from registry.cluster.transfer.locator import MISS_BOUND_S
from simulations.loop import VirtualLoop
from tests.http.admin.test_metrics import value
from tests.support import images
from tests.support.server import running_cluster

ANSWER_S = 0.02


class Member:
    def __init__(self, instance="one", prompt=True):
        self.instance, self.prompt = instance, prompt


class PeerClient:
    """Members that answer after a while."""

    def __init__(self, answer_s=ANSWER_S, answers=True):
        self.answer_s, self.answers = answer_s, answers
        self.asked, self.at_once, self._now = [], 0, 0

    async def learn(self, member, documents):
        self.asked.append((member.instance, list(documents)))
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        await asyncio.sleep(self.answer_s)
        self._now -= 1
        return self.answers


@pytest.fixture
def play():
    loop = VirtualLoop()
    yield loop.run_until_complete
    loop.close()


def now():
    return asyncio.get_running_loop().time()


async def misses(repair, documents, every_s=0.0, members=None):
    """A miss for each document, one begun after the other, whatever becomes of those before. Answers how long the
    longest took."""

    async def miss(document, after_s):
        await asyncio.sleep(after_s)
        begun = now()
        await repair.before_miss(document, members or [Member()])
        return now() - begun

    return max(await asyncio.gather(*(miss(one, number * every_s) for number, one in enumerate(documents))))


def test_many_misses_of_one_document_are_one_question_for_a_moment(play):
    """5,000 within a second."""
    peers = PeerClient()
    longest = play(misses(ReadRepair(peers.learn), ["app"] * 5000, every_s=1 / 5000))
    assert len(peers.asked) <= 1 / REMEMBERED_S + 1
    assert longest <= ANSWER_S + 0.001


def test_what_was_answered_a_moment_ago_is_asked_again_later(play):
    peers = PeerClient()
    play(misses(ReadRepair(peers.learn), ["app"] * 5, every_s=REMEMBERED_S * 1.01))
    assert len(peers.asked) == 5


def test_what_was_not_answered_is_not_remembered(play):
    peers = PeerClient(answers=False)
    play(misses(ReadRepair(peers.learn), ["app"] * 3, every_s=ANSWER_S * 1.5))
    assert len(peers.asked) == 3


def test_misses_of_many_documents_share_questions_of_which_few_are_under_way(play):
    peers, documents = PeerClient(), [f"app{number}" for number in range(5000)]
    repair = ReadRepair(peers.learn)
    play(misses(repair, documents, every_s=0.0001))
    assert sorted(one for _, asked in peers.asked for one in asked) == sorted(documents), "each is asked about once"
    assert peers.at_once == REQUESTS_AT_ONCE
    assert max(len(asked) for _, asked in peers.asked) <= DOCUMENTS_AT_ONCE
    assert len(peers.asked) <= 0.5 / ANSWER_S * REQUESTS_AT_ONCE + REQUESTS_AT_ONCE
    (asked,) = repair._members.values()
    assert not asked.pending and not asked.gathering and not asked.under_way


def test_every_prompt_member_is_asked_and_no_other_and_a_slow_one_is_not_waited_for(play):
    peers = PeerClient(answer_s=10)
    members = [Member("one"), Member("two"), Member("dead", prompt=False)]
    longest = play(misses(ReadRepair(peers.learn), ["app"], members=members))
    assert peers.asked == [("one", ["app"]), ("two", ["app"])]
    assert longest == pytest.approx(MISS_BOUND_S)


@pytest.mark.slow
def test_a_client_that_asks_for_what_does_not_exist_costs_the_neighbours_little(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu"]) as cluster:
        one, other = cluster.servers
        before, begun, misses = value(other, "concord_peer_requests_total"), time.monotonic(), 0
        connection = http.client.HTTPConnection(one.host, one.port)
        while time.monotonic() - begun < 3 or misses < 200:
            connection.request("HEAD", "/v2/no/such/manifests/v1")
            assert connection.getresponse().read() == b""
            misses += 1
        questions, lasted_s = value(other, "concord_peer_requests_total") - before, time.monotonic() - begun
        assert questions <= lasted_s / REMEMBERED_S + 3 * lasted_s + 10, f"{questions} for {misses} misses"
        other.client.push("no/such", "v1", images.image("there is now"))
        assert one.client.head("/v2/no/such/manifests/v1").status == 200
