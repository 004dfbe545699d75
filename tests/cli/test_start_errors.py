"""Reasons not to start are lines of the log's format."""

import json

import pytest

from registry.cli.start_errors import wants_json
from registry.telemetry.events import LogEvent
from tests.cli.test_cli import concord
from tests.support.server import free_port

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--listen", "nonsense"], "the setting listen is wrong"),
        (["--nonsense"], "--nonsense"),
        (["--workers"], "requires an argument"),
        (["--redis", "redis://:pass/word@h"], "%2F for /"),
        (["--log-level", "loud"], "log_level"),
    ],
)
def test_a_wrong_setting_is_one_json_object_where_the_log_is_json(tmp_path, words, said):
    done = concord("serve", "--data", tmp_path / "data", *words, CONCORD_LOG_FORMAT="json")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    event = json.loads(line)
    assert event["level"] == "error" and said in event["message"] and "pass/word" not in line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_damaged_catalog_is_one_json_object_where_the_log_is_json(tmp_path, workers):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "catalog.sqlite").write_bytes(b"not a database, but long enough to look like one" * 100)
    (tmp_path / "c.toml").write_text('log_format = "json"\n')
    where = ["--data", tmp_path / "data", "--listen", f"127.0.0.1:{free_port()}", "--config", tmp_path / "c.toml"]
    done = concord("serve", *where, "--workers", workers)
    assert done.returncode == 2
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(one["event"], one["reason"]) for one in events] == [(str(LogEvent.START_FAILED), "catalog-corrupt")]


def test_other_commands_say_what_is_wrong_in_text_whatever_the_log_is(tmp_path):
    done = concord("status", "http://", CONCORD_LOG_FORMAT="json")
    assert done.returncode == 2 and done.stderr.startswith("concord: ")


def test_the_format_is_found_where_settings_come_from(tmp_path, monkeypatch):
    monkeypatch.delenv("CONCORD_LOG_FORMAT", raising=False)
    (tmp_path / "c.toml").write_text('log_format = "json"\n')
    (tmp_path / "broken.toml").write_text("log_format = ")
    file = str(tmp_path / "c.toml")
    assert wants_json(["serve", "--log-format", "json"]) and wants_json(["serve", "--log-format=json"])
    assert wants_json(["serve", "--config", file]) and wants_json(["serve", f"--config={file}"])
    assert not wants_json(["serve", "--config", file, "--log-format", "text"])
    assert not wants_json(["serve", "--config", str(tmp_path / "broken.toml")]) and not wants_json(
        ["serve", "--config"]
    )
    assert not wants_json(["status", "--log-format", "json"]) and not wants_json([])
    monkeypatch.setenv("CONCORD_LOG_FORMAT", "json")
    assert wants_json(["serve"]) and not wants_json(["serve", "--log-format", "text"])
