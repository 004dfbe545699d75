"""docs/reference says what the code says: every setting, command, metric and route, with a description."""

import ast
import re
from pathlib import Path

import pytest

import registry
from registry.config import Config, PolicyRule
from registry.http.oci.routes import HANDLERS, SUMMARIES
from tests.support.reference import DIRECTORY, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_page_is_what_the_code_declares(name):
    assert (DIRECTORY / name).read_text() == PAGES[name](), f"docs/reference/{name} is out of date: run make reference"


@pytest.mark.parametrize("name", PAGES)
def test_every_row_has_a_description(name):
    rows = [line for line in (DIRECTORY / name).read_text().splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if not re.search(r"\| [^|]*\w[^|]* \|$", row.replace("\\|", ""))] == []


def test_every_setting_has_a_description():
    fields = {**Config.model_fields, **PolicyRule.model_fields}
    assert [name for name, field in fields.items() if not field.description] == []


def test_every_route_has_a_summary():
    methods = {resource: set(handlers) - {"HEAD"} for resource, handlers in HANDLERS.items()}
    assert methods == {resource: set(summaries) for resource, summaries in SUMMARIES.items()}


SOURCES = sorted((Path(registry.__file__).parent / "http").rglob("*.py"))


def test_every_metric_of_the_code_is_listed():
    """Also one that a scrape shows only under a condition that `scraped` does not meet."""
    calls = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    makers = {"_gauge", "_gauges", "_counter", "_counters"}
    names = {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id in makers and isinstance(call.args[0], ast.Constant)
    }
    listed = (DIRECTORY / "metrics.md").read_text()
    assert len(names) > 40
    assert {name for name in names if not re.search(rf"`concord_{name}(_total)?`", listed)} == set()


def test_every_path_of_the_code_is_listed():
    paths = {
        path
        for source in SOURCES
        for path in re.findall(r'"(/(?:_concord|v2|healthz|readyz|metrics)[^"\s{]*)"', source.read_text())
    }
    listed = (DIRECTORY / "api.md").read_text()
    assert len(paths) > 10
    assert {path for path in paths if path not in listed} == set()


GUIDES = sorted(path for path in DIRECTORY.parent.rglob("*.md") if path.parent != DIRECTORY)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_metrics_and_variables_that_a_guide_names_exist(guide):
    """Names of test switches and of the image's own variables are not settings."""
    declared = "".join((DIRECTORY / name).read_text() for name in PAGES)
    named = set(re.findall(r"\bconcord_[a-z_]+[a-z]|\bCONCORD_[A-Z_]+[A-Z]", guide.read_text()))
    assert {name for name in named if f"`{name}`" not in declared} - {"CONCORD_CHAOS_S"} == set()
