"""Log events of instances reach the listeners of a run, and nothing else."""

import logging

from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from simulations.log_events import LogEvents
from simulations.process import PROCESS, Process, in_process

log = EventLog("concord.evict")


def test_a_listener_gets_the_fields_of_its_event_and_the_process_that_logged_it():
    heard = []
    events = LogEvents(heard.append)
    events.listen(LogEvent.REPLICA_EVICTED, lambda name, fields: heard.append((name, fields, PROCESS.get())))
    with events.received():
        in_process(Process("i1", 1)).run(log.debug, LogEvent.REPLICA_EVICTED, "%(digest)s", digest="sha256:1")
        log.debug(LogEvent.CONTENT_EVICTED, "another event")
    assert heard == [("i1", {"digest": "sha256:1"}, None)]


def test_a_logged_exception_is_reported():
    reported = []
    with LogEvents(reported.append).received():
        try:
            raise ValueError("not in the list")
        except ValueError:
            log.exception(LogEvent.EVICTION_FAILED, "an eviction failed")
    assert reported == ["an eviction failed: ValueError('not in the list')"]


def test_logging_is_afterwards_as_it_was_before():
    logger, heard = logging.getLogger("concord"), []
    before = logger.propagate, logger.handlers, logger.level
    events = LogEvents(heard.append)
    events.listen(LogEvent.REPLICA_EVICTED, lambda name, fields: heard.append(name))
    with events.received():
        pass
    log.debug(LogEvent.REPLICA_EVICTED, "after the run")
    assert (logger.propagate, logger.handlers, logger.level) == before
    assert heard == []
