"""The demo with TLS and access control: its lines and those of docs/start/demo.md, pasted into a shell."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import images
from tests.support.layouts import write_layout
from tests.support.needs import need

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "start" / "demo.md"


@contextmanager
def running_demo(data):
    """Run the demo. Yields what it prints."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CONCORD_")}
    command = [sys.executable, "-m", "registry", "demo", "--auth", "--data", str(data)]
    with subprocess.Popen(command, env=plain, stdout=subprocess.PIPE, text=True) as process:
        try:
            printed = ""
            while "Ctrl-C" not in printed:
                line = process.stdout.readline()
                assert line, "the demo ended"
                printed += line
            yield printed
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0


@pytest.fixture
def shell(tmp_path):
    """Runs lines in a shell, which has `concord` on its path and logins of its own. Returns what they print."""
    need(shutil.which("skopeo") is not None, "skopeo is missing")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "concord").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m registry "$@"\n')
    (tools / "concord").chmod(0o755)
    (tmp_path / "auth.json").write_text("{}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONCORD_")}
    environment |= {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json"),
        "PYTHONPATH": str(PAGE.parents[2]),
    }
    image = f"oci:{write_layout(tmp_path / 'image', images.image('demo'))}:app"

    def run(lines):
        text = "\n".join(lines).replace("docker-archive:IMAGE.tar", image).replace("docker://alpine", image)
        command = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done
        return done.stdout

    return run


def pasted(printed):
    """Return the lines that the demo gives to paste; docker is another matter."""
    lines = [line.strip() for line in printed.splitlines() if line.startswith("  ")]
    return [line for line in lines if re.match(r"(export|skopeo|\S*concord|\S*python\S*) ", line)]


def of_page():
    """Return the lines of the page's part on access control."""
    part = PAGE.read_text().partition("## With TLS and access control")[2]
    blocks = re.findall(r"^```sh\n(.*?)^```", part, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.usefixtures("demo_ports")
def test_the_lines_of_the_demo_and_of_the_page_work_as_they_are_pasted(tmp_path, shell):
    data = tmp_path / "demo"
    with running_demo(data) as printed:
        lines = pasted(printed)
        assert len(lines) == 11 and lines[0] == f"export DEMO={data}"
        shown = shell(lines)
        assert "root (user " in shown and "access control is enforced" in shown
        for name in ("ci.key", "root.login", "tls/instances.key"):
            assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
        secrets = [(data / "ci.key").read_text(), (data / "root.login").read_text().strip().partition(":")[2]]
        assert not any(secret in printed + shown for secret in secrets)
        refused = [lines[0], "skopeo inspect --no-creds --cert-dir $DEMO/certs docker://127.0.0.1:5003/demo/app:v1"]
        with pytest.raises(AssertionError, match=r"(?i)unauthorized|authentication"):
            shell(refused)
        shown = shell([lines[0], *of_page()])
        assert "all other instances have confirmed it (2)" in shown and shown.endswith("refused\n")
    with running_demo(data) as printed:
        assert "ci (robot " in shell(
            [
                lines[0],
                'printf "ci:%s\\n" "$(cat $DEMO/ci.key)" > $DEMO/ci.login',
                "concord login check https://127.0.0.1:5003 --ca $DEMO/certs/ca.crt --login $DEMO/ci.login",
            ]
        ), "started again, it has the same accounts"
