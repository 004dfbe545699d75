"""The rules of layout and prose: which module may import which, what goes around the seams, how docstrings begin."""

import ast
import re
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("crdt", "registry")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
OUTSIDE_CRDT = {"pycrdt", "blake3", "crdt"}
AMBIENT_MODULES = {"asyncio", "os", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid"}
BEHIND_SEAMS = {"aiohttp", "redis", "socket", "threading", "subprocess", "secrets", "random", "time", "uuid", "os"}
EDGES = ("registry/adapters/", "registry/runtime/", "registry/cli/", "registry/__main__.py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [p for p in FILES if name(p).startswith("crdt/")], ids=name)
def test_crdt_is_pure(path):
    """The standard library, pycrdt and blake3; and nothing of the first that has a clock, chance or the outside in
    it."""
    for module in imports(path):
        top = module.partition(".")[0]
        assert top in OUTSIDE_CRDT or top in sys.stdlib_module_names, f"{name(path)} imports {module}"
        assert top not in AMBIENT_MODULES, f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", [p for p in FILES if not name(p).startswith(EDGES)], ids=name)
def test_only_the_edges_go_around_the_seams(path):
    for module in imports(path):
        assert module.partition(".")[0] not in BEHIND_SEAMS, f"{name(path)} imports {module}"
        assert not module.startswith(("registry.adapters", "registry.runtime", "registry.cli")), (
            f"{name(path)} imports {module}"
        )


TOPS = ("crdt", "registry", "simulations", "tests/support")
INDEXES = sorted(path for top in TOPS for path in (ROOT / top).rglob("__init__.py") if "\n\n" in path.read_text())


@pytest.mark.parametrize("index", INDEXES, ids=name)
def test_an_index_names_every_module(index):
    modules = {path.stem for path in index.parent.glob("*.py")} - {"__init__", "__main__"}
    assert {module for module in modules if not re.search(rf"\b{module}\b", index.read_text())} == set()


LAYERS = (
    ("oci", "event_loop", "telemetry", "settings", "config", "errors", "disk_errors", "capabilities", "ports"),
    ("catalog",),
    ("storage",),
    ("cluster",),
    ("commit_steps", "instance"),
    ("http",),
    ("adapters",),
    ("runtime",),
    ("cli", "__main__"),
)
"""The rooms of `registry`, from the lowest to the highest."""
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}


@pytest.mark.parametrize("path", [p for p in FILES if name(p).startswith("registry/")], ids=name)
def test_no_import_runs_upwards(path):
    room = path.relative_to(ROOT / "registry").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for module in imports(path):
        if module.startswith("registry.") and module != "registry.__version__":
            imported = module.split(".")[1]
            assert LAYER_OF[imported] <= LAYER_OF[room], f"{name(path)} imports {module}, of a higher layer"


ROOMS_OF_THE_CLUSTER = sorted(path for path in (ROOT / "registry/cluster").rglob("*.py") if path.name != "node.py")


@pytest.mark.parametrize("path", ROOMS_OF_THE_CLUSTER, ids=name)
def test_nothing_in_the_cluster_imports_its_wiring(path):
    assert "registry.cluster.node" not in imports(path)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_that_starts_threads_of_its_own_is_used(path):
    """anyio's threads hide in starlette's file responses and in synchronous endpoints."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            used = node.id if isinstance(node, ast.Name) else node.attr
            assert used not in {"FileResponse", "run_in_threadpool", "to_thread", "BackgroundTask"}, name(path)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_and_functions_stay_small_and_say_what_they_are_for(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{name(path)} has no head comment"
    assert text.count("\n") <= 500, f"{name(path)} has more than 500 lines"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 70, f"{name(path)}: {node.name} has {length} lines"


OPENINGS = re.compile(r"(Answers|Whether|What|How|See the module)\b")
"""A docstring begins with a verb or a noun phrase instead, and that of a boolean attribute with "True"."""
BANNED_WORDS = re.compile(r"\b(whoever|whom|nobody|somebody)\b", re.IGNORECASE)
"""They hide which instance, client or operator a sentence is about."""


def opening_faults(path):
    """Return the lines of docstrings, also those of attributes, that begin with one of the openings."""
    return [
        f"{name(path)}:{node.lineno}: {node.value.value.strip().splitlines()[0]}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if OPENINGS.match(node.value.value.strip())
    ]


def word_faults(path):
    """Return the lines of strings, docstrings among them, and of comments that hold a banned word."""
    texts = [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    with path.open("rb") as file:
        texts += [
            (token.start[0], token.string)
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT
        ]
    return [f"{name(path)}:{line}: {found[0]}" for line, text in texts for found in BANNED_WORDS.finditer(text)]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_docstrings_begin_with_what_they_say(path):
    faults = opening_faults(path)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_prose_has_no_banned_words(path):
    faults = word_faults(path)
    assert not faults, "\n".join(faults)
