"""Backups and bundles into a directory that somebody else has prepared: nothing outside it changes."""

import os
import shutil
from functools import partial

import pytest

from registry.cli.backup import backup, restore
from registry.cli.bundle_export import export_bundle
from registry.cli.bundle_import import import_bundle
from registry.errors import CannotStart
from tests.support import images
from tests.support.client import sha256
from tests.support.server import running_server

IMAGE = images.image("prepared", layer_bytes=3000)
CONTENT = f"blobs/sha256/{sha256(IMAGE.blobs[1])[7:9]}/{sha256(IMAGE.blobs[1])[7:]}"
COMMANDS = {
    "export": (
        partial(export_bundle, patterns=[], keys=[]),
        partial(import_bundle, keys=[]),
        ["documents", "bodies", "blobs", "blobs/sha256", os.path.dirname(CONTENT)],
        ["documents/0", "bundle.json", "bundle.mac", "bundle.json.part", CONTENT, f"{CONTENT}.part"],
    ),
    "backup": (
        backup,
        restore,
        ["blobs", "blobs/sha256", os.path.dirname(CONTENT)],
        ["catalog.sqlite.part", CONTENT, f"{CONTENT}.part"],
    ),
}
"""How each is written and read, and which directories and files are links."""


def cases(which):
    found = [(name, path) for name, command in COMMANDS.items() for path in command[which]]
    return pytest.mark.parametrize(("command", "path"), found, ids=[f"{name} {path[:20]}" for name, path in found])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("target") / "data") as server:
        server.client.push("app", "v1", IMAGE)
    return server.data


@pytest.fixture
def target(tmp_path, data, command):
    """A directory with an earlier backup or bundle."""
    COMMANDS[command][0](data, tmp_path / "target")
    return tmp_path / "target"


@pytest.fixture
def outside(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "thesis.tex").write_text("years")
    return tmp_path / "outside"


def content_of(directory):
    return {path.relative_to(directory): path.is_file() and path.read_bytes() for path in directory.rglob("*")}


@cases(which=2)
def test_a_directory_that_is_a_link_is_refused(data, target, outside, command, path):
    shutil.rmtree(target / path)
    (target / path).symlink_to(outside)
    before = content_of(outside)
    with pytest.raises(CannotStart, match=f"{target / path} is no directory but a link"):
        COMMANDS[command][0](data, target)
    assert content_of(outside) == before


@pytest.mark.parametrize("how", ["symlink_to", "hardlink_to"])
@cases(which=3)
def test_a_file_that_is_a_link_is_replaced_and_what_it_leads_to_stays(data, target, outside, command, path, how):
    write, read, *_ = COMMANDS[command]
    (target / path).unlink(missing_ok=True)
    getattr(target / path, how)(outside / "thesis.tex")
    write(data, target)
    assert (outside / "thesis.tex").read_text() == "years"
    if not path.endswith(".part"):
        assert not (target / path).is_symlink() and not (target / path).samefile(outside / "thesis.tex")
    again = outside.with_name("again")
    again.mkdir()
    read(target, again)
    assert (again / CONTENT).read_bytes() == IMAGE.blobs[1]


@pytest.mark.parametrize("command", ["backup"])
def test_nothing_is_removed_through_a_directory_that_is_a_link(data, target, outside):
    """What looks like content that no image needs any more lies where the link leads."""
    (outside / ("f" * 64)).write_text("looks like content")
    (target / "blobs" / "sha256" / "zz").symlink_to(outside)
    before = content_of(outside)
    backup(data, target)
    assert content_of(outside) == before


@pytest.mark.parametrize("command", ["backup"])
def test_a_backup_whose_catalog_is_a_link_is_refused(data, target, outside):
    (target / "catalog.sqlite").rename(outside / "catalog.sqlite")
    (target / "catalog.sqlite").symlink_to(outside / "catalog.sqlite")
    before = content_of(outside)
    with pytest.raises(CannotStart, match="is a link"):
        backup(data, target)
    assert content_of(outside) == before


@pytest.mark.parametrize("command", ["backup"])
def test_a_restore_that_goes_on_does_not_follow_links(target, outside, tmp_path):
    half = tmp_path / "half"
    half.mkdir()
    (half / "restoring").touch()
    (half / "blobs").symlink_to(outside)
    before = content_of(outside)
    with pytest.raises(CannotStart, match="a link"):
        restore(target, half)
    assert content_of(outside) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_the_directory_itself_may_be_a_link(data, tmp_path, command):
    (tmp_path / "stick").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "stick")
    for _ in range(2):
        COMMANDS[command][0](data, tmp_path / "link")
    assert (tmp_path / "stick" / CONTENT).is_file()
