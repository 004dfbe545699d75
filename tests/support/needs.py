"""What a test needs of the machine: missing, it is a visible skip on a laptop and a failure in CI."""

import os

import pytest


def need(condition: bool, what: str) -> None:
    if not condition:
        if os.environ.get("CI"):
            pytest.fail(f"{what}, and CI skips nothing")
        pytest.skip(what)
