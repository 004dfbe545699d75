"""Lines in the log about requests that clients can make fail, or be cut off, as often as they like."""

import logging
from unittest.mock import MagicMock

import pytest
from starlette.requests import Request

from registry.http.app import App
from registry.http.oci.answers import CutOff
from registry.http.wire.exchange import Exchange
from registry.telemetry.counters import Traffic
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import AT_ONCE, PERIOD_S, LogLimit
from tests.support.logs import recorded
from tests.support.seams import StillClock

SCOPE = {"type": "http", "method": "GET", "path": "/v2/app/blobs/x", "headers": []}


def left_out(caplog, event):
    """How many lines each line of an event stands for."""
    return [fields.get("left_out_before", 0) for fields in recorded(caplog.records, event)]


def test_counted_when_many_answers_are_cut_off_counts_all_and_logs_few(caplog):
    clock, traffic = StillClock(), Traffic()
    limit = LogLimit(clock)
    for number in range(5 * AT_ONCE + 1):
        if number == 5 * AT_ONCE:
            clock.at_ms += int(PERIOD_S * 1000)
        exchange = Exchange(SCOPE, MagicMock(), MagicMock(), "an-id", clock)
        with pytest.raises(CutOff), exchange.counted(traffic, "blob", False, limit, MagicMock()):
            raise CutOff("its client read it slowly")
    assert traffic.cut_off == 5 * AT_ONCE + 1
    assert left_out(caplog, LogEvent.RESPONSE_ABORTED) == [0] * AT_ONCE + [4 * AT_ONCE]


async def test_app_when_many_requests_fail_answers_500_and_logs_few_with_their_trace(caplog, monkeypatch):
    async def fails(request, path):
        raise ZeroDivisionError

    app = App(MagicMock(clock=StillClock()))
    monkeypatch.setattr(app, "_handle", fails)
    with caplog.at_level(logging.ERROR):
        answers = [await app._answer(Request(SCOPE), None) for _ in range(3 * AT_ONCE)]
    assert {answer.status_code for answer in answers} == {500}
    assert left_out(caplog, LogEvent.REQUEST_FAILED) == [0] * AT_ONCE
    assert caplog.text.count("Traceback") == AT_ONCE
