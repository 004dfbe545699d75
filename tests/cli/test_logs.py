"""What an instance says: one line for each event, in either format, and no secrets."""

import io
import json
import logging
import re

import pytest

from registry.cli.logs import JsonFormatter, TextFormatter, secrets_of, set_up_logging
from registry.config import Config
from registry.telemetry.event_log import make_record
from registry.telemetry.events import LogEvent
from registry.telemetry.request_ids import CURRENT
from tests.support.server import KEY, free_port, running_server, wait_until

pytestmark = pytest.mark.slow

PASSWORD = "a-password-of-redis"
TOKEN = "c2VjcmV0LXRva2Vu"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR|DEBUG) +[a-z.]+: ")


def written(formatter, message, *arguments, **record):
    """What a formatter makes of one event."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("concord.tested")
    logger.addHandler(handler)
    logger.error(message, *arguments, **record)
    return stream.getvalue()


def fail():
    try:
        raise ValueError(f"the key is {KEY}\nand that")
    except ValueError as error:
        return error


@pytest.mark.parametrize("kind", [TextFormatter, JsonFormatter])
def test_an_event_is_one_line_whatever_it_holds(kind):
    message = 'a path /v2/a\nb\r\x1b[2K\u2028c "quoted" d=e'
    for record in ({}, {"exc_info": fail()}, {"extra": {"fields": {"client": "x y", "size": 5}}}):
        text = written(kind([]), "%s", message, **record)
        assert len(text.splitlines()) == 1 and "\x1b" not in text


@pytest.mark.parametrize("kind", [TextFormatter, JsonFormatter])
@pytest.mark.parametrize(
    "message",
    [
        f"opened with {KEY}",
        f"redis://:{PASSWORD}@10.0.0.1:6379 refused",
        "redis://:short@10.0.0.1 refused".replace("short", TOKEN),
        f"redis://10.0.0.1?password={TOKEN}&db=1",
        f"redis+sentinel://a:1,b:2/main?sentinel_password={TOKEN}",
        f"the server says that a/{PASSWORD} is wrong",
        f"Authorization: Bearer {TOKEN}",
        f"[(b'authorization', b'Basic {TOKEN}')]",
        f"authorization={TOKEN}",
    ],
)
def test_no_secret_gets_into_a_line(kind, message):
    config = Config(
        cluster_key=KEY, redis=f"redis://:a%2F{PASSWORD}@10.0.0.1:6379,redis://10.0.0.2?password={PASSWORD}2"
    )
    text = written(kind(secrets_of(config)), "%s", message, exc_info=fail())
    assert not [secret for secret in (KEY, PASSWORD, TOKEN) if secret in text], text


def test_fields_and_the_request_are_there_to_be_searched_for(request):
    current = CURRENT.set("the-request")
    request.addfinalizer(lambda: CURRENT.reset(current))
    said = json.loads(written(JsonFormatter([]), "%s", "done", extra={"fields": {"status": 201, "client": "a b"}}))
    assert (said["message"], said["request"], said["status"], said["level"]) == ("done", "the-request", 201, "error")
    text = written(TextFormatter([]), "%s", "done", extra={"fields": {"status": 201, "client": "a b"}})
    assert text.endswith(' ERROR   concord.tested: done request=the-request status=201 client="a b"\n')


def test_an_event_is_a_field_and_a_line_of_text_does_not_repeat_what_its_message_quotes():
    fields = {"member": "eu-1", "site": "eu", "error": OSError(f"key {KEY}")}
    record = make_record(LogEvent.MEMBER_SEEN, "%(member)s is here", **fields)
    line = json.loads(JsonFormatter([KEY]).format(record))
    assert (line["event"], line["member"], line["site"], line["error"]) == ("member_seen", "eu-1", "eu", "key …")
    assert TextFormatter([KEY]).format(record).endswith(': eu-1 is here event=member_seen site=eu error="key …"')


def restart(tmp_path, **settings):
    return running_server(tmp_path / "data", redis=[f"redis://:{PASSWORD}@127.0.0.1:{free_port()}"], **settings)


@pytest.mark.parametrize("kind", ["text", "json"])
def test_an_instance_logs_requests_without_their_secrets(tmp_path, kind):
    with restart(tmp_path, log_format=kind, log_level="debug", log_requests="1") as server:
        given = {"Authorization": f"Bearer {TOKEN}", "X-Request-Id": "an-id"}
        server.client.request("GET", f"/v2/app/manifests/v%0a1?token={TOKEN}", headers=given)
        server.client.request("GET", "/_concord/peer/changes", headers=given)
        wait_until(lambda: "an-id" in server.log.read_text())
        wait_until(lambda: str(LogEvent.BUS_DISCONNECTED) in server.log.read_text())
        server.stop()
        text = server.log.read_text()
    assert not [secret for secret in (KEY, PASSWORD, TOKEN) if secret in text], text
    if kind == "text":
        assert all(LINE.match(line) for line in text.splitlines()), text
        (line,) = (line for line in text.splitlines() if "concord.access" in line)
        assert "GET /v2/app/manifests/v\\n1 event=request_served request=an-id status=404" in line
    else:
        events = [json.loads(line) for line in text.splitlines()]
        (access,) = (event for event in events if event.get("event") == str(LogEvent.REQUEST_SERVED))
        assert (access["method"], access["path"], access["status"]) == ("GET", "/v2/app/manifests/v\n1", 404)
        assert access.keys() >= {"time", "level", "request", "first_byte_ms", "whole_ms", "sent_bytes", "client"}


def test_requests_are_not_logged_unless_wanted_and_nothing_below_the_level_is(tmp_path):
    with restart(tmp_path, log_level="warning") as server:
        server.client.get("/v2/")
        wait_until(lambda: str(LogEvent.BUS_DISCONNECTED) in server.log.read_text())
        text = server.log.read_text()
    assert "INFO" not in text and "/v2/" not in text


def test_what_other_libraries_say_below_a_warning_is_left_out(capsys):
    root, concord = logging.getLogger(), logging.getLogger("concord")
    before = root.handlers[:], root.level, concord.level
    try:
        set_up_logging(Config(log_level="debug"))
        logging.getLogger("redis").info("a greeting")
        logging.getLogger("concord.any").debug("a detail")
        assert [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()] == [
            "DEBUG   concord.any: a detail"
        ]
    finally:
        root.handlers[:], root.level = before[:2]
        concord.setLevel(before[2])
