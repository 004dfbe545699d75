"""The lock files in requirements/: what pyproject.toml asks for, by version and hash, from no particular index."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
RUNTIME, DEMO, DEV = (ROOT / "requirements" / f"{name}.txt" for name in ("runtime", "demo", "dev"))
REMEDY = "run `make lock` and commit requirements/"

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = {
    "runtime": (PROJECT["project"]["dependencies"], [RUNTIME]),
    "build": (PROJECT["build-system"]["requires"], [RUNTIME]),
    "demo": (EXTRAS["demo"], [RUNTIME, DEMO]),
    "dev": (EXTRAS["dev"], [RUNTIME, DEMO, DEV]),
}


def entries(lock):
    """Yield each requirement of a lock file with its hashes."""
    text = re.sub(r"#.*", "", lock.read_text()).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        requirement, *hashes = re.split(r"\s+--hash=", line)
        yield Requirement(requirement), hashes


def versions(locks):
    """Return the locked versions by name: several where they depend on the Python version."""
    found = {}
    for lock in locks:
        for requirement, _ in entries(lock):
            (pin,) = requirement.specifier
            found.setdefault(requirement.name, []).append(pin.version)
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_lock_satisfies_what_the_project_depends_on(group):
    dependencies, locks = GROUPS[group]
    locked = versions(locks)
    for requirement in map(Requirement, dependencies):
        if requirement.name == PROJECT["project"]["name"]:
            continue  # an extra that includes another
        name = requirement.name.replace("_", "-").lower()
        assert name in locked, f"{requirement} is not locked: {REMEDY}"
        for version in locked[name]:
            assert version in requirement.specifier, f"{name} {version} does not satisfy {requirement}: {REMEDY}"


@pytest.mark.parametrize("lock", [RUNTIME, DEMO, DEV], ids=lambda path: path.name)
def test_lock_pins_every_package_by_hash_and_names_no_index(lock):
    for requirement, hashes in entries(lock):
        assert [pin.operator for pin in requirement.specifier] == ["=="], requirement
        assert requirement.url is None, requirement
        assert hashes, f"{requirement} has no hash: {REMEDY}"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), requirement
    assert "://" not in lock.read_text()


def test_locks_build_on_one_another_without_repetition():
    for one, other in ((RUNTIME, DEMO), (RUNTIME, DEV), (DEMO, DEV)):
        assert not versions([one]).keys() & versions([other]).keys()
