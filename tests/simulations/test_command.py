"""`python -m simulations`."""

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from simulations.__main__ import Summary, main
from simulations.report import Point, _measure, write_report


def simulations(*words):
    command = [sys.executable, "-W", "ignore", "-m", "simulations", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_few_runs_end_with_one_line_and_status_0():
    done = simulations("--seed", 3, "--runs", 4, "--documents", 4)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("4 runs, 4 of documents alone, ")
    assert line.endswith("all held")


def test_plans_can_be_chosen():
    done = simulations("--runs", 2, "--sites", "eu,us", "--faults", "kill", "--between-sites", "0.04", "--duration", 6)
    assert done.returncode == 0, done.stderr
    assert "kill" in done.stderr


def test_an_unknown_fault_is_refused():
    done = simulations("--faults", "earthquake")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no fault earthquake" in done.stderr


def test_a_planted_bug_is_found_and_the_command_that_repeats_it_plants_it_again():
    done = simulations("--runs", 1, "--sites", "eu,us", "--faults", "none", "--plant", "push split")
    assert done.returncode == 1, done.stderr
    assert "--plant 'push split'" in done.stderr
    assert "there is no planted bug" in simulations("--plant", "rust").stderr


def test_the_trace_of_one_run_is_printed():
    options = ("--sites", "eu", "--faults", "none", "--conditions", "none", "--operations", 1, "--calm-operations", 0)
    done = simulations("--runs", 1, "--clients", 1, *options, "--trace")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.000000 start (i0.1,)\n")
    assert simulations("--runs", 2, "--trace").returncode == 2


def test_a_report_without_what_draws_it_is_refused_before_any_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("simulations.__main__.play", lambda *_: pytest.fail("it was played"))
    command = typer.Typer()
    command.command()(main)
    done = CliRunner().invoke(command, ["--report", "report.html", "--runs", "1"])
    assert done.exit_code == 2, done.output
    assert "pip install matplotlib" in done.output


def test_the_report_is_a_page_with_plots(tmp_path, monkeypatch):
    monkeypatch.setattr("simulations.report.SEEDS", range(1))
    monkeypatch.setattr("simulations.report.play_all", lambda play, points, processes: [(p, 1.0) for p in points])
    write_report(tmp_path / "report.html", Summary(delays_s=[0.1, 0.2], convergence_s=[1.0]))
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/svg+xml") == 6


def test_scenarios_of_the_report_measure_something():
    assert 0 < _measure(Point("loss", 0.0, 0))[1] < 1
    assert _measure(Point("partition", 4.0, 0))[1] > 4
    assert _measure(Point("divergence", 3.0, 0))[1] > 1000
    assert 0 < _measure(Point("size", 3.0, 0))[1] <= 10
