"""`python -m registry` is `concord`."""

from registry.cli.main import run

run()
