"""Figures of one run on one machine, beside other registries. `python -m benchmarks --help`."""
