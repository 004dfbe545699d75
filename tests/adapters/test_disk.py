"""The contract of registry.ports.Disk. Every implementation passes these."""

import random

import pytest

from registry.adapters.disk import SystemDisk
from simulations.storage import SimulatedDisk


@pytest.fixture(params=["real", "simulated"])
def disk(request, tmp_path):
    if request.param == "real":
        yield SystemDisk(tmp_path)
        return
    simulated = SimulatedDisk(tmp_path / "scratch", random.Random(1), {}, {})
    yield simulated
    simulated.discard()


def test_what_is_appended_is_read_back(disk):
    file = disk.create("f")
    file.append([b"hello ", memoryview(b"world")])
    file.append([])
    assert file.size() == 11
    assert file.pread(0, 100) == b"hello world"
    assert file.pread(6, 3) == b"wor"
    assert file.pread(11, 5) == b""
    assert file.pread_nowait(0, 5) in (b"hello", None)
    assert file.pread_nowait(6, 100) is None, "fewer bytes than asked for may be the end, or not cached"
    file.close()


def test_many_parts_are_appended_in_order(disk):
    file = disk.create("f")
    parts = [bytes([n % 256]) * 3 for n in range(3000)]
    file.append(parts)
    assert file.pread(0, 10_000) == b"".join(parts)


def test_create_is_exclusive_and_open_needs_the_file(disk):
    disk.create("f").close()
    with pytest.raises(FileExistsError):
        disk.create("f")
    with pytest.raises(FileNotFoundError):
        disk.open("g")


def test_an_opened_file_goes_on_at_its_end(disk):
    file = disk.create("f")
    file.append([b"one"])
    file.close()
    with pytest.raises(OSError):
        disk.open("f").append([b"two"])
    again = disk.open("f", append=True)
    again.append([b"two"])
    assert again.pread(0, 10) == b"onetwo"
    again.truncate(2)
    again.append([b"x"])
    assert again.pread(0, 10) == b"onx"
    again.sync()


def test_rename_replaces_and_remove_removes(disk):
    disk.make_directory("a/b")
    disk.make_directory("a/b")
    for name in ("one", "two"):
        file = disk.create(name)
        file.append([name.encode()])
        file.close()
    disk.rename("one", "a/b/two")
    disk.rename("two", "a/b/two")
    disk.sync_directory("a/b")
    assert disk.names("a/b") == ["two"]
    assert disk.open("a/b/two").pread(0, 10) == b"two"
    disk.remove("a/b/two")
    assert disk.names("a/b") == []
    with pytest.raises(FileNotFoundError):
        disk.remove("a/b/two")


def test_a_file_stays_readable_after_it_was_renamed_or_removed(disk):
    file = disk.create("f")
    file.append([b"content"])
    disk.rename("f", "g")
    disk.remove("g")
    assert file.pread(0, 10) == b"content"


def test_a_database_is_durable_and_there_is_room(disk):
    connection = disk.connect("db")
    assert connection.pragma("journal_mode", "wal") == "wal"
    assert disk.free() > 0
