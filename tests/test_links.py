"""Links of the documentation, modules that it names, and pages that the code refers to: all of them exist."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOPS = [top for top in sorted(ROOT.iterdir()) if not re.match(r"\.(?!ci$|github$)|build$|.*\.egg-info$", top.name)]
FILES = [path for top in TOPS for path in [top, *sorted(top.rglob("*"))] if path.is_file()]
PAGES = [path for path in FILES if path.suffix == ".md"]
SOURCES = [
    path
    for path in FILES
    if path.suffix in {".py", ".yaml", ".conf", ".toml"} or path.name in {"Dockerfile", "Makefile", "run"}
]
PACKAGES = ("", "registry", "crdt", "tests", "simulations")
"""Where a path that the documentation names may begin."""


def name(path):
    return str(path.relative_to(ROOT))


def without_code(text):
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


@cache
def anchors(page):
    """Names that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    found = set()
    for heading in re.findall(r"^#+ +(.*)$", text, re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        assert anchor not in found, f"{name(page)} has two headings #{anchor}"
        found.add(anchor)
    return found


def problem(target, anchor):
    """What is wrong with a reference, or None."""
    if not target.exists():
        return f"there is no {target}"
    if anchor and anchor not in anchors(target):
        return f"{name(target)} has no heading #{anchor}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_of_a_page_lead_somewhere(page):
    problems = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        problems.append(problem((page.parent / path).resolve() if path else page, anchor))
    assert [one for one in problems if one] == []


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_documentation_that_code_refers_to_exists(source):
    references = re.findall(r"\bdocs/([\w./-]+\.(?:md|conf|yaml))(?:#([\w-]+))?", source.read_text())
    found = [problem(ROOT / "docs" / path, anchor) for path, anchor in references]
    assert [one for one in found if one] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)
def test_modules_that_a_page_names_exist(page):
    paths = re.findall(r"`((?:[\w-]+/)*[\w-]*\.?\w*)`", page.read_text())
    ends = (".py", ".json", ".yaml", ".conf")
    modules = {path for path in paths if path.endswith(ends if "/" in path else ".py")}
    missing = [path for path in sorted(modules) if not any((ROOT / top / path).exists() for top in PACKAGES)]
    assert missing == []


def test_every_page_is_in_an_index():
    indexes = [ROOT / "README.md", ROOT / "docs" / "README.md", ROOT / "docs" / "decisions" / "README.md"]
    linked = {
        (index.parent / link.partition("#")[0]).resolve()
        for index in indexes
        for link in re.findall(r"\]\(([^)\s]+)\)", index.read_text())
    }
    assert [name(page) for page in PAGES if name(page).startswith("docs/") and page not in {*linked, *indexes}] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 600
