"""The needs of a test from the machine: missing, it is a visible skip on a laptop and a failure in CI."""

import os
import shutil

import pytest


def need(condition: bool, what: str) -> None:
    if not condition:
        if os.environ.get("CI"):
            pytest.fail(f"{what}, and CI skips nothing")
        pytest.skip(what)


def need_go_client(name: str, package: str) -> str:
    """Return the path of a client that Debian does not have. Without it the test is skipped, in CI too: to build such
    a client takes CI minutes of each run."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing: build {package} with Go")
    return path
