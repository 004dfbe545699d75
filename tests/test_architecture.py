"""The rules of layout and prose: which module may import which, what goes around the seams, how docstrings begin."""

import ast
import functools
import re
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("crdt", "registry")
PROSE = sorted(
    path
    for top in (*PACKAGES, "simulations", "tests/scenarios", "tests/simulations", "tests/support")
    for path in (ROOT / top).rglob("*.py")
)
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
OUTSIDE_CRDT = {"pycrdt", "blake3", "crdt"}
AMBIENT_MODULES = {"asyncio", "os", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid"}
BEHIND_SEAMS = {"aiohttp", "redis", "socket", "threading", "subprocess", "secrets", "random", "time", "uuid", "os"}
EDGES = ("registry/adapters/", "registry/runtime/", "registry/cli/", "registry/__main__.py")


read = functools.cache(Path.read_text)


@functools.cache
def nodes(text):
    """Return the syntax tree of a module as a list. Every rule walks every module."""
    return [*ast.walk(ast.parse(text))]


def imports(path):
    for node in nodes(read(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def name(path):
    return str(path.relative_to(ROOT))


def files_of(*places):
    return [path for path in FILES if name(path).startswith(places)]


def imported_by(paths):
    return [(path, module) for path in paths for module in imports(path)]


def test_crdt_is_pure():
    """The standard library, pycrdt and blake3; and nothing of the first that has a clock, chance or the outside in
    it."""
    allowed = OUTSIDE_CRDT | sys.stdlib_module_names - AMBIENT_MODULES
    imported = imported_by(files_of("crdt/"))
    assert [f"{name(path)} imports {m}" for path, m in imported if m.partition(".")[0] not in allowed] == []


def test_only_the_edges_go_around_the_seams():
    edges = ("registry.adapters", "registry.runtime", "registry.cli")
    imported = imported_by(path for path in FILES if not name(path).startswith(EDGES))
    around = [(path, m) for path, m in imported if m.partition(".")[0] in BEHIND_SEAMS or m.startswith(edges)]
    assert [f"{name(path)} imports {module}" for path, module in around] == []


TOPS = ("crdt", "registry", "simulations", "tests/support")
INDEXES = sorted(path for top in TOPS for path in (ROOT / top).rglob("__init__.py") if "\n\n" in path.read_text())


@pytest.mark.parametrize("index", INDEXES, ids=name)
def test_an_index_names_every_module(index):
    modules = {path.stem for path in index.parent.glob("*.py")} - {"__init__", "__main__"}
    docstring = ast.get_docstring(ast.parse(index.read_text())) or ""
    assert {module for module in modules if not re.search(rf"\b{module}\b", docstring)} == set()


LAYERS = (
    (
        "access", "oci", "event_loop", "telemetry", "settings", "config", "errors", "disk_errors", "capabilities",
        "ports", "units",
    ),
    ("catalog",),
    ("storage", "audit"),
    ("cluster",),
    ("http",),
    ("commit_steps", "shared_state", "instance"),
    ("app",),
    ("adapters",),
    ("runtime",),
    ("cli", "__main__"),
)  # fmt: skip
"""The rooms of `registry`, from the lowest to the highest."""
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}


def room_of(path):
    return path.relative_to(ROOT / "registry").parts[0].removesuffix(".py")


def test_no_import_runs_upwards():
    imported = imported_by(path for path in files_of("registry/") if room_of(path) != "__init__")
    rooms = [(path, m) for path, m in imported if m.startswith("registry.") and m != "registry.__version__"]
    upwards = [(path, m) for path, m in rooms if LAYER_OF[m.split(".")[1]] > LAYER_OF[room_of(path)]]
    assert [f"{name(path)} imports {module}, of a higher layer" for path, module in upwards] == []


ROOMS_OF_THE_CLUSTER = sorted(path for path in (ROOT / "registry/cluster").rglob("*.py") if path.name != "node.py")


def test_nothing_in_the_cluster_imports_its_wiring():
    imported = imported_by(ROOMS_OF_THE_CLUSTER)
    assert [name(path) for path, module in imported if module == "registry.cluster.node"] == []


HTTP_HEADER = re.compile(r"(?i)(content-[a-z]+|docker-[a-z-]+|oci-[a-z-]+|retry-after|connection|location|link|accept)")
BELOW_HTTP = ("oci", "event_loop", "telemetry", "settings", "errors", "disk_errors", "catalog", "storage")


def named_headers(source):
    """Return the strings in a module that are names of HTTP header fields."""
    constants = (node.value for node in nodes(source) if isinstance(node, ast.Constant))
    return [text for text in constants if isinstance(text, str) and HTTP_HEADER.fullmatch(text)]


def test_no_header_field_is_named_below_http():
    """Errors say when to try again and whether the connection ends; `http` turns that into header fields."""
    below = [path for path in files_of("registry/") if room_of(path) in BELOW_HTTP]
    assert [(name(path), header) for path in below for header in named_headers(read(path))] == []


def test_names_of_header_fields_are_found():
    assert named_headers('raise Error({"Retry-After": "2"})') == ["Retry-After"]


def test_nothing_that_starts_threads_of_its_own_is_used():
    """anyio's threads hide in starlette's file responses and in synchronous endpoints."""
    starting = {"FileResponse", "run_in_threadpool", "to_thread", "BackgroundTask"}
    used = [(path, getattr(node, "id", getattr(node, "attr", ""))) for path in FILES for node in nodes(read(path))]
    assert [f"{name(path)} uses {one}" for path, one in used if one in starting] == []


def size_faults(path):
    """Yield what a module lacks or has too much of: a head comment, lines, lines of a function."""
    text = read(path)
    if not ast.get_docstring(nodes(text)[0]):
        yield f"{name(path)} has no head comment"
    if text.count("\n") > 500:
        yield f"{name(path)} has more than 500 lines"
    for node in nodes(text):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > 70:
                yield f"{name(path)}: {node.name} has {length} lines"


def test_files_and_functions_stay_small_and_say_what_they_are_for():
    assert [fault for path in FILES for fault in size_faults(path)] == []


OPENINGS = re.compile(r"(Answers|Whether|What|How|See the module)\b")
"""A docstring begins with a verb or a noun phrase instead, and that of a boolean attribute with "True"."""
BANNED_WORDS = re.compile(r"\b(whoever|whom|nobody|somebody)\b", re.IGNORECASE)
"""They hide which instance, client or operator a sentence is about."""


def opening_faults(path):
    """Return the lines of docstrings, also those of attributes, that begin with one of the openings."""
    return [
        f"{name(path)}:{node.lineno}: {node.value.value.strip().splitlines()[0]}"
        for node in nodes(read(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if OPENINGS.match(node.value.value.strip())
    ]


def word_faults(path):
    """Return the lines of strings, docstrings among them, and of comments that hold a banned word."""
    texts = [
        (node.lineno, node.value)
        for node in nodes(read(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    with path.open("rb") as file:
        texts += [
            (token.start[0], token.string)
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT
        ]
    return [f"{name(path)}:{line}: {found[0]}" for line, text in texts for found in BANNED_WORDS.finditer(text)]


def test_docstrings_begin_with_what_they_say():
    faults = [fault for path in PROSE for fault in opening_faults(path)]
    assert not faults, "\n".join(faults)


def test_prose_has_no_banned_words():
    faults = [fault for path in PROSE for fault in word_faults(path)]
    assert not faults, "\n".join(faults)


def returns_a_constant(node):
    """Return whether an expression, or the body of a function, computes nothing."""
    if isinstance(node, list):
        return all(
            isinstance(one, ast.Pass)
            or (isinstance(one, ast.Return) and (one.value is None or returns_a_constant(one.value)))
            or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
            for one in node
        )
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return not node.elts
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Dict) and not node.keys)


def no_op_defaults(text):
    """Yield line and name of each default that is a callback which does nothing: of parameters, of attributes, and of
    dataclass fields. An attribute for a callback may have no default at all, None included."""
    idle = {
        node.name: returns_a_constant(node.body)
        for node in nodes(text)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }

    def does_nothing(value):
        if isinstance(value, ast.Lambda):
            return returns_a_constant(value.body)
        return isinstance(value, ast.Name) and idle.get(value.id, False)

    def is_empty(value):
        names = {"dict", "list", "tuple", "set", "frozenset", "int", "str", "bytes", "bool"}
        is_none = isinstance(value, ast.Constant) and value.value is None
        return is_none or isinstance(value, ast.Lambda) or (isinstance(value, ast.Name) and value.id in names)

    for node in nodes(text):
        if isinstance(node, ast.arguments):
            arguments = [*node.posonlyargs, *node.args]
            pairs = [*zip(arguments[len(arguments) - len(node.defaults) :], node.defaults, strict=True)]
            pairs += [pair for pair in zip(node.kwonlyargs, node.kw_defaults, strict=True) if pair[1] is not None]
            yield from ((value.lineno, argument.arg) for argument, value in pairs if does_nothing(value))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            is_callback = isinstance(node, ast.AnnAssign) and "Callable" in ast.unparse(node.annotation)
            values = [node.value]
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func).rpartition(".")[2] == "field":
                values = [word.value for word in node.value.keywords]
            for value in values:
                if does_nothing(value) or (is_callback and is_empty(value)):
                    yield value.lineno, ast.unparse(targets[0]).rpartition(".")[2]


def test_no_callback_does_nothing_by_default():
    """A forgotten one would mean a disk without a bound, or a commit that is never published. Collaborators are
    required arguments; what is to do nothing is an object that says so, and is given explicitly."""
    defaults = [(path, *default) for path in files_of("registry/") for default in no_op_defaults(read(path))]
    assert [f"{name(path)}:{line}: {slot}" for path, line, slot in defaults] == []


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n    def __init__(self):\n        self.slot: Callable[[int], None] = lambda size: None",
        "class A:\n    def __init__(self):\n        self.slot = lambda: 0",
        "class A:\n    def __init__(self):\n        self.slot: Callable[[], Mapping[str, int]] = dict",
        "class A:\n    def __init__(self):\n        self.slot: Callable[[], None] | None = None",
        "class A:\n    slot: Callable[[], tuple[int, ...]] = lambda: ()",
        "class A:\n    slot: Callable[[], bool] = field(default=lambda: True)",
        "class A:\n    slot: Callable[[], None] = field(default=nothing)\ndef nothing(): pass",
        "class A:\n    slot: Callable[[], dict[str, int]] = dataclasses.field(default=dict)",
        "def nothing(size):\n    '''Do nothing.'''\ndef act(slot=nothing): slot(1)",
        "def act(*, slot=lambda: False): slot()",
        "def act(first, slot: Callable[[], None] = lambda: None): slot()",
    ],
)
def test_a_callback_that_does_nothing_by_default_is_found(text):
    assert [slot for _, slot in no_op_defaults(text)] == ["slot"]


def test_what_computes_something_or_has_no_default_is_no_fault():
    text = (
        "class A:\n    items: list[int] = field(default_factory=list)\n    key: Callable[[int], int]\n"
        "def act(key, size=0, order=lambda one: one.size): sorted([], key=lambda one: -one)\ndef other(): pass"
    )
    assert [*no_op_defaults(text)] == []


MAX_ATTRIBUTES = 12
MANY_ATTRIBUTES = {
    "registry/adapters/bus.py:_Server": "one connection with its counts, its backlog and its two tasks",
    "registry/cluster/membership/members.py:Member": "a record of what is known of one instance",
    "registry/cluster/membership/reachability.py:Reachability": "a check's result: problem, reporting member, times",
    "registry/cluster/node.py:Cluster": "the parts of the cluster node, which it wires, starts and ends",
    "registry/cluster/placement/eviction.py:Evictor": "a decision that depends on all that protects content",
    "registry/cluster/placement/garbage_collection.py:GarbageCollector": "removals and answers under the same leases",
    "registry/cluster/placement/replicator.py:Replicator": "a queue of links and a walk over all, which fetch alike",
    "registry/cluster/replication/acknowledgements.py:Acknowledgements": "one state machine of waits and exclusions",
    "registry/cluster/replication/site_lease.py:SiteLease": "a lease, valid by what many parts say at one moment",
    "registry/cluster/rpc/messages.py:Heartbeat": "a message: a field for each fact that an instance announces",
    "registry/cluster/transfer/scrubber.py:Scrubber": "three loops that share one pace",
    "registry/cluster/transfer/transfer.py:Transfers": "transfers of two kinds that share room, holders and distrust",
    "registry/config.py:Config": "a field for each setting",
    "registry/http/context.py:HttpContext": "the collaborators of the application of the primary",
    "registry/http/wire/protocol.py:BoundedProtocol": "the state of one HTTP connection, beside that of its base class",
    "registry/instance.py:Instance": "the parts of an instance, which it starts and ends",
    "registry/runtime/supervisor.py:Supervisor": "the state of all processes and of their end",
    "registry/storage/upload_session.py:UploadSession": "the state of one upload, and what it is written with",
    "registry/storage/uploads.py:Uploads": "the table of uploads, and what each of them is written with",
}
"""Classes that need more attributes, each with the reason."""


def attribute_counts(text):
    """Return the number of attributes of each class: its fields, and what its methods set."""
    counts = {}
    for node in nodes(text):
        if isinstance(node, ast.ClassDef):
            fields = {
                one.target.id
                for one in node.body
                if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
            }
            is_set = {
                one.attr
                for one in ast.walk(node)
                if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store)
                if isinstance(one.value, ast.Name) and one.value.id == "self"
            }
            counts[node.name] = len(fields | is_set)
    return counts


def test_no_object_has_more_than_a_dozen_attributes():
    found = {
        f"{name(path)}:{kind}"
        for path in FILES
        for kind, count in attribute_counts(read(path)).items()
        if count > MAX_ATTRIBUTES
    }
    assert found == MANY_ATTRIBUTES.keys()


def test_attributes_are_counted_wherever_they_are_set():
    text = (
        "class A:\n    kind: int\n    def __init__(self):\n        self.a, self.b = 1, 2\n        self.c: int = 3\n"
        "    def more(self, other):\n        self.d += 1\n        self.a = other.e = 0\n"
    )
    assert attribute_counts(text) == {"A": 5}


def reaches_through(text):
    """Yield line and text of each expression that reaches through a collaborator of a context: `context.cluster.x.y()`
    knows how two objects are joined; a context that has `x` itself leaves that to the composition root."""
    for node in nodes(text):
        chain = re.fullmatch(r"(?:self\._)?(context|instance|admin)((?:\.\w+)+)", ast.unparse(node).partition("(")[0])
        if isinstance(node, ast.Attribute) and chain and chain[2].count(".") > 2:
            yield node.lineno, ast.unparse(node)


def service_locators(text):
    """Yield the names of fields of contexts through which a handler would find everything."""
    for node in nodes(text):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Context"):
            for one in node.body:
                if isinstance(one, ast.AnnAssign) and ast.unparse(one.annotation) in {"Instance", "Cluster"}:
                    yield ast.unparse(one.target)


def test_handlers_do_not_reach_through_their_context():
    texts = [(name(path), read(path)) for path in files_of("registry/http/")]
    assert [(path, *one) for path, text in texts for one in reaches_through(text)] == []
    assert [(path, one) for path, text in texts for one in service_locators(text)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("context.members.get(name)", []),
        ("context.cluster.members.get(name)", ["context.cluster.members.get"]),
        ("self._context.cluster.space.free_bytes", ["self._context.cluster.space.free_bytes"]),
        ("f(instance.cluster.gossip.frames)", ["instance.cluster.gossip.frames"]),
        ("admin.members.watch.empty_sites()", ["admin.members.watch.empty_sites"]),
        ("context.queries.body(digest).decode().strip()", []),
    ],
)
def test_an_expression_that_reaches_through_a_context_is_found(text, found):
    assert [chain for _, chain in reaches_through(text)] == found


def test_a_context_with_everything_in_it_is_found():
    text = "class PeerContext:\n    members: Members\n    cluster: Cluster\n    instance: Instance"
    assert [*service_locators(text)] == ["cluster", "instance"]


def private_names(package):
    """Return the private names that the modules of a package define or use as attributes."""
    names = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in nodes(read(path)):
            used = node.attr if isinstance(node, ast.Attribute) else getattr(node, "name", None)
            if isinstance(used, str) and used.startswith("_"):
                names.add(used)
    return names


def test_scenarios_use_nothing_private_of_the_simulator():
    """Scenarios replace methods of the registry to force a schedule; of the simulator they use the API alone."""
    private = private_names("simulations") - private_names("registry") - private_names("crdt")
    assert len(private) > 100
    faults = [
        f"{name(path)}:{node.lineno}: {node.attr}"
        for path in sorted((ROOT / "tests/simulations").glob("*.py"))
        for node in nodes(read(path))
        if isinstance(node, ast.Attribute) and node.attr in private
    ]
    assert not faults, "\n".join(faults)
