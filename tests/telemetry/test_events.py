"""Every line of the log carries a listed event, and every listed event is logged."""

import ast
import logging
import re
from pathlib import Path

import pytest

from registry.telemetry.event_log import RESERVED, EventLog, make_record
from registry.telemetry.events import LogEvent

ROOT = Path(__file__).parents[2]
OWN = {"registry/telemetry/event_log.py", "registry/telemetry/events.py"}
FILES = [path for path in sorted((ROOT / "registry").rglob("*.py")) if str(path.relative_to(ROOT)) not in OWN]
LEVELS = {"debug", "info", "warning", "error", "exception", "log"}
FROM_LOGGING = {"DEBUG", "INFO", "WARNING", "ERROR", "getLogger"}
"""Attributes of `logging` that may be used: levels, and setting levels in the module that sets logging up."""


def calls(tree):
    """The calls that write a line, each with the function it stands in."""
    loggers = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and names(node.value.func) == "EventLog"
        for target in node.targets
    }
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and names(node.func) == "make_record":
                    yield function, node
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                    owner = node.func.value
                    is_new = isinstance(owner, ast.Call) and names(owner.func) == "EventLog"
                    if is_new or names(owner) in loggers:
                        yield function, node


def names(node):
    return node.id if isinstance(node, ast.Name) else None


def event_of(call, function):
    """The name of the event of a call; an empty one where the function takes it from its caller; None without one."""
    is_level = isinstance(call.func, ast.Attribute) and call.func.attr == "log"
    given = call.args[is_level] if len(call.args) > is_level else None
    if isinstance(given, ast.Attribute) and names(given.value) == "LogEvent":
        return given.attr
    parameters = {argument.arg for argument in function.args.args if names(argument.annotation) == "LogEvent"}
    return "" if names(given) in parameters else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_log_call_has_a_listed_event_and_fields_of_its_own(path):
    for function, call in calls(ast.parse(path.read_text())):
        where = f"{path.relative_to(ROOT)}:{call.lineno}"
        event = event_of(call, function)
        assert event is not None, f"{where} logs without an event"
        assert event == "" or event in LogEvent.__members__, f"{where} logs {event}, which is not listed"
        assert not RESERVED & {keyword.arg for keyword in call.keywords}, f"{where} has a field with a reserved name"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_logs_around_events(path):
    used = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and names(node.value) == "logging"
    }
    allowed = FROM_LOGGING | {"Filter", "Formatter", "LogRecord", "StreamHandler", "basicConfig"}
    if path.name != "logs.py":
        allowed -= {"getLogger", "StreamHandler", "basicConfig", "Formatter"}
    assert used <= allowed, f"{path.relative_to(ROOT)} logs without an event: it uses logging.{(used - allowed).pop()}"


def test_every_listed_event_is_logged():
    logged = {
        node.attr
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and names(node.value) == "LogEvent"
    }
    assert set(LogEvent.__members__) - logged == set()


@pytest.mark.parametrize("event", LogEvent, ids=str)
def test_an_event_has_a_stable_name_and_a_sentence(event):
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", str(event))
    assert re.fullmatch(r"[A-Z].*[^.]\.( [A-Z].*\.)?", event.value)


def test_a_record_carries_its_event_and_its_fields(caplog):
    log = EventLog("concord.tested")
    with caplog.at_level(logging.INFO, "concord.tested"):
        log.info(LogEvent.MEMBER_SEEN, "%(member)s is 100%% here", member="eu-1", site="eu")
        log.info(LogEvent.SCRUB_STARTED, "100% of it")
        log.debug(LogEvent.MEMBER_SEEN, "below the level")
    first, second = caplog.records
    assert (first.event, first.fields) == ("member_seen", {"member": "eu-1", "site": "eu"})
    assert first.getMessage() == "eu-1 is 100% here" and second.getMessage() == "100% of it"
    assert (second.event, second.fields, second.pathname) == ("scrub_started", {}, __file__)


def test_a_record_made_by_hand_is_like_those_of_a_log():
    record = make_record(LogEvent.START_FAILED, "%(problem)s", problem="no disk")
    assert (record.event, record.fields, record.getMessage()) == ("start_failed", {"problem": "no disk"}, "no disk")
