"""What stops an instance waits for as long as it drains: the image by itself, docs/compose.yaml, and the guide."""

import re
from pathlib import Path

import pytest
import yaml

from registry import __version__
from registry.cli.serve import exposes_plain_http
from registry.config import Config, load_config
from registry.runtime.drain import EXIT_TIMEOUT_S

ROOT = Path(__file__).parents[2]
DOCKER_STOP_S = 10
GUIDE = "".join((ROOT / "docs" / "operate" / page).read_text() for page in ("docker.md", "upgrading.md"))


@pytest.fixture
def compose():
    [service] = yaml.safe_load((ROOT / "docs" / "compose.yaml").read_text())["services"].values()
    return service


def test_the_image_ends_by_itself_within_what_docker_stop_gives():
    [drain_s] = re.findall(r"^ +CONCORD_DRAIN_S=([0-9.]+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert 0 < float(drain_s) + EXIT_TIMEOUT_S < DOCKER_STOP_S


def test_the_compose_example_gives_time_to_drain_and_takes_its_settings(compose, monkeypatch):
    for name, value in compose["environment"].items():
        monkeypatch.setenv(name, value)
    assert {name.removeprefix("CONCORD_").lower() for name in compose["environment"]} <= Config.model_fields.keys()
    config = load_config({"listen": "0.0.0.0:5000"}, None)  # as the image
    assert not exposes_plain_http(config), "TLS ends in front"
    drain_s = config.drain_s
    assert drain_s == Config.model_fields["drain_s"].default
    assert drain_s + EXIT_TIMEOUT_S < int(compose["stop_grace_period"].removesuffix("s"))
    assert compose["image"] == f"concord-registry:{__version__}"


def test_the_guide_gives_docker_time_to_drain():
    found = re.findall(r"--stop-timeout (\d+) --env CONCORD_DRAIN_S=(\d+)", GUIDE)
    assert len(found) == 2
    assert all(int(drain_s) + EXIT_TIMEOUT_S < int(stop_s) for stop_s, drain_s in found)
    assert f"{EXIT_TIMEOUT_S:g} s more" in GUIDE
