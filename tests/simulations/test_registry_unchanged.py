"""Simulations run the registry itself: outside of `simulations/planted`, nothing of it is replaced."""

import ast
import sys
import types
from pathlib import Path

import pytest

from simulations.mixed_versions import mixed_versions
from simulations.phases import play
from simulations.plan import draw_plan
from simulations.planted.meaning import any_clock_followed
from simulations.run import run

SIMULATIONS = Path(__file__).parents[2] / "simulations"
MODULES = [path for path in sorted(SIMULATIONS.rglob("*.py")) if "planted" not in path.relative_to(SIMULATIONS).parts]
PRODUCT = ("registry", "crdt")
MAY_PATCH = {
    "faults/links.py": "rates of the packet simulator, by their names",
    "guard.py": "clocks, randomness, threads and sockets of the machine, which the registry must not use",
    "small_limits.py": "constants: limits that only large objects would reach",
    "cheap_hashes.py": "the parameters of the hashes of passwords",
    "evictions.py": "constants: watermarks and intervals of eviction",
}
"""Modules that replace something, each with what that is."""


def is_of_product(module):
    return module.partition(".")[0] in PRODUCT


class Replacements(ast.NodeVisitor):
    """Collects what a module replaces of the product: assignments to attributes of its modules, classes and objects,
    calls of `setattr` and `patch`, and classes that inherit from its classes.

    An object of the product is what has the annotation of one, what a call of its code has returned, and what is
    reached through an attribute `instance` or through another such object.
    """

    def __init__(self):
        self.found = []
        self._product = set()

    def visit_ImportFrom(self, node):
        if is_of_product(node.module or ""):
            self._product |= {alias.asname or alias.name for alias in node.names}

    def visit_Import(self, node):
        self._product |= {alias.asname or alias.name for alias in node.names if is_of_product(alias.name)}

    def visit_arg(self, node):
        if isinstance(node.annotation, ast.Name) and self._is_product(node.annotation):
            self._product.add(node.arg)

    def visit_ClassDef(self, node):
        self.found += [f"inherits from {ast.unparse(base)}" for base in node.bases if self._is_product(base)]
        self.generic_visit(node)

    def visit_Assign(self, node):
        self._assign(node.targets, node.value)

    def visit_AnnAssign(self, node):
        self._assign([node.target], node.value)

    def visit_AugAssign(self, node):
        self._assign([node.target], node.value)

    def visit_Delete(self, node):
        self._assign(node.targets, None)

    def visit_Call(self, node):
        called = ast.unparse(node.func)
        if called in ("setattr", "delattr") or called.partition(".")[0] in ("patch", "mock", "monkeypatch"):
            self.found.append(f"calls {called}")
        self.generic_visit(node)

    def _assign(self, targets, value):
        for target in targets:
            for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(one, ast.Attribute) and self._is_product(one.value):
                    self.found.append(f"assigns to {ast.unparse(one)}")
                elif value is not None and self._is_product(value):
                    self._product.add(ast.unparse(one))
        if value is not None:
            self.visit(value)

    def _is_product(self, node):
        if isinstance(node, (ast.Call, ast.Await)):
            return self._is_product(node.func if isinstance(node, ast.Call) else node.value)
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            is_instance = isinstance(node, ast.Attribute) and node.attr == "instance"
            return is_instance or ast.unparse(node) in self._product or self._is_product(node.value)
        return isinstance(node, ast.Name) and node.id in self._product


def replacements(text):
    visitor = Replacements()
    visitor.visit(ast.parse(text))
    return visitor.found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SIMULATIONS)))
def test_no_module_replaces_anything_of_the_registry(path):
    found = replacements(path.read_text())
    if str(path.relative_to(SIMULATIONS)) in MAY_PATCH:
        assert {*found} <= {"calls patch.object", "calls setattr"}
    else:
        assert found == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f(node):\n    database = node.instance.catalog.database\n    database.write = g", "database.write"),
        ("from registry.instance import Instance\ndef f(one: Instance):\n    one.catalog.heal = g", "one.catalog.heal"),
        ("import registry.catalog.replica as replica\nreplica.PAGE = 2", "replica.PAGE"),
        ("from registry.cluster.node import Cluster\nclass Part(Cluster): pass", "Cluster"),
        (
            "from registry.cluster.node import Cluster\none = Cluster()\none.peers._keys, other = 1, 2",
            "one.peers._keys",
        ),
        ("from unittest.mock import patch\nwith patch.object(Evictor, '_evict', g): pass", "patch.object"),
        ("setattr(owner, 'name', 1)", "setattr"),
    ],
)
def test_a_replacement_is_found(text, found):
    assert [one.split()[-1] for one in replacements(text)] == [found]


def test_attributes_of_the_simulator_may_be_set():
    text = "from simulations.node import Node\ndef f(node: Node):\n    node.abilities = 1\n    self.cluster.loss = 2"
    assert replacements(text) == []


def foreign_functions():
    """Return the functions in modules and classes of the product that are defined elsewhere than in packages."""
    found = set()
    for name, module in [*sys.modules.items()]:
        if is_of_product(name):
            owners = [module, *(value for value in vars(module).values() if isinstance(value, type))]
            for owner in owners:
                for attribute, value in vars(owner).items():
                    function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
                    if isinstance(function, types.FunctionType) and function.__module__.startswith("simulations"):
                        found.add(f"{owner.__name__}.{attribute}")
    return found


def shadowed_methods(part, seen):
    """Return the methods that an object of the product, or an object that it holds, has in place of its class's."""
    if id(part) in seen or not is_of_product(type(part).__module__) or isinstance(part, type):
        return
    seen.add(id(part))
    for name, value in getattr(part, "__dict__", {}).items():
        if isinstance(getattr(type(part), name, None), types.FunctionType):
            yield f"{type(part).__name__}.{name}"
        yield from shadowed_methods(value, seen)


async def look(simulation, found):
    for node in simulation.nodes:
        found.update(shadowed_methods(node.instance, set()))
    found.update(foreign_functions())


def replaced_in(scenario):
    """Play a scenario, and return what is replaced in the registry before its end."""
    found = set()

    async def looking(simulation):
        await scenario(simulation)
        await look(simulation, found)

    conditions = ("small", "collect", "two-copies", "evict")
    plan = draw_plan(0, faults=("leave",), conditions=conditions, operations=2, calm_operations=1)
    assert run(plan, looking).violations == []
    return found


@pytest.mark.parametrize("scenario", [play, mixed_versions])
def test_nothing_of_the_registry_is_replaced_while_a_simulation_runs(scenario):
    assert replaced_in(scenario) == set()


def test_what_is_replaced_while_a_simulation_runs_is_found():
    async def replacing(simulation):
        await simulation.start()
        database = simulation.nodes[0].instance.catalog.database
        database.write = database.write

    assert replaced_in(replacing) == {"Database.write"}
    with any_clock_followed():
        assert len(foreign_functions()) == 1
