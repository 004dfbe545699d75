"""Repositories carried to a site without a network."""

import json
import os
import shutil

import pytest
from blake3 import blake3

from crdt.delta import encode_delta
from registry.cli import bundle_import
from registry.cli.access_offline import create_administrator
from registry.cli.bundle import mac_of
from registry.cli.bundle_export import export_bundle
from registry.cli.bundle_import import import_bundle
from registry.cluster.rpc.keys import ClusterKey
from registry.errors import CannotStart
from tests.cli.test_cli import concord, refused
from tests.support import images
from tests.support.client import sha256
from tests.support.server import KEY, running_server

pytestmark = pytest.mark.slow

SIGNED = {"CONCORD_CLUSTER_KEY": KEY}


@pytest.fixture
def carried(tmp_path):
    """A bundle of two repositories, one of which matches."""
    image = images.image("carried", layers=3, layer_bytes=50_000)
    index = images.index(image)
    with running_server(tmp_path / "here") as server:
        server.client.push("prod/app", "v1", index)
        server.client.push("prod/app", "gone", images.image("gone"))
        server.client.delete("/v2/prod/app/manifests/gone")
        server.client.push("test/app", "v1", images.image("other"))
        done = concord("export", "--data", server.data, tmp_path / "bundle", "prod/*", **SIGNED)
        assert done.returncode == 0 and done.stdout.startswith("1 repositories"), done
    return index


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory):
    directory = tmp_path_factory.mktemp("unsigned")
    with running_server(directory / "data") as server:
        server.client.push("app", "v1", images.image("unsigned", layer_bytes=2000))
    export_bundle(directory / "data", directory / "bundle", [], [])
    return directory / "bundle"


@pytest.fixture
def bundle(tmp_path, unsigned):
    """A small bundle without a key."""
    shutil.copytree(unsigned, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def there(tmp_path):
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def test_a_bundle_arrives_whole_and_merges(tmp_path, carried):
    mine = images.image("mine")
    with running_server(tmp_path / "there") as server:
        server.client.push("prod/app", "mine", mine)
        refused(concord("import", tmp_path / "bundle", "--data", server.data, **SIGNED), "in use")
    for new in ("7 of them new", "0 of them new"):
        done = concord("import", tmp_path / "bundle", "--data", tmp_path / "there", **SIGNED)
        assert done.returncode == 0 and new in done.stdout, done
    with running_server(tmp_path / "there") as server:
        assert server.client.tags("prod/app") == ["mine", "v1"]
        assert server.client.pull("prod/app", "v1") == carried.body
        assert server.client.tags("test/app") == []
    assert concord("verify", "--data", tmp_path / "there").returncode == 0


def test_an_export_goes_on_where_it_was_broken_off(tmp_path, carried):
    (content,) = list((tmp_path / "bundle" / "blobs").rglob(sha256(carried.children[0].blobs[1])[7:]))
    content.unlink()
    (tmp_path / "bundle" / "bundle.json").unlink()
    done = concord("export", "--data", tmp_path / "here", tmp_path / "bundle", "prod/*", **SIGNED)
    assert done.returncode == 0 and "1 of them new" in done.stdout
    assert concord("import", tmp_path / "bundle", "--data", tmp_path / "there", **SIGNED).returncode == 0


def change_list(bundle):
    said = json.loads((bundle / "bundle.json").read_bytes())
    said["documents"][0]["name"] = "repository/other"
    (bundle / "bundle.json").write_text(json.dumps(said))


def change_document(bundle):
    file = bundle / "documents" / "0"
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")


def change_content(bundle):
    largest = max(
        (file for file in (bundle / "blobs").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size
    )
    largest.write_bytes(bytes(largest.stat().st_size))


def lose_body(bundle):
    next((bundle / "bodies").iterdir()).unlink()


@pytest.mark.parametrize("tamper", [change_list, change_document, change_content, lose_body])
def test_a_bundle_that_was_tampered_with_changes_nothing(tmp_path, carried, tamper):
    tamper(tmp_path / "bundle")
    refused(concord("import", tmp_path / "bundle", "--data", tmp_path / "there", **SIGNED), "bundle")
    assert not (tmp_path / "there" / "catalog.sqlite").exists()


def forged(bundle, name=None, update=None):
    """What somebody writes who has no key, for whoever has none either."""
    said = json.loads((bundle / "bundle.json").read_bytes())
    document = said["documents"][0]
    document["name"] = name if name is not None else document["name"]
    if update is not None:
        (bundle / document["file"]).write_bytes(update)
        document["hash"] = blake3(update).hexdigest()
    data = json.dumps(said).encode()
    (bundle / "bundle.json").write_bytes(data)
    (bundle / "bundle.mac").write_text(mac_of(data, None))


HOSTILE = [
    "cluster/members",
    "cluster/",
    "cluster/another",
    "access",
    "access/",
    "access/x",
    "repository/",
    "repository/UPPER",
    "repository/../escape",
    "repository/a\n",
    "repository/" + "a" * 256,
    "",
    "members",
    "/x",
    "Accounts/x",
    "accounts/",
    "accounts/a\x00b",
    "accounts/" + "x" * 256,
]


def test_a_bundle_carries_no_facts_of_access_control(tmp_path, unsigned):
    """Neither does it take any out of a data directory that has some."""
    data = tmp_path / "data"
    create_administrator(data, "root", "a password of root")
    with pytest.raises(CannotStart, match="no repository is matched"):
        export_bundle(data, tmp_path / "none", ["*"], [])
    done = export_bundle(data, tmp_path / "bundle", [], [])
    assert done.repositories == 0 and json.loads((tmp_path / "bundle/bundle.json").read_text())["documents"] == []
    assert not any(b"!account" in file.read_bytes() for file in (tmp_path / "bundle").rglob("*") if file.is_file())


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_bundle_that_names_what_none_may_bring_changes_nothing(there, bundle, name):
    forged(bundle, name)
    with pytest.raises(CannotStart, match=r"has (a|the) document"):
        import_bundle(bundle, there, [])
    assert not any(there.iterdir())


def test_a_signed_bundle_has_no_say_about_members_either(there, bundle):
    forged(bundle, "cluster/members")
    key = ClusterKey(KEY)
    (bundle / "bundle.mac").write_text(mac_of((bundle / "bundle.json").read_bytes(), key))
    with pytest.raises(CannotStart, match="belongs to the cluster"):
        import_bundle(bundle, there, [key])


def test_a_document_of_an_unknown_kind_is_kept_and_no_repository(there, bundle):
    fact = f"z\0from a newer version\0{1:016x}\0{7:x}"
    forged(bundle, "accounts/Some.Body", encode_delta(7, 0, [fact], []))
    assert import_bundle(bundle, there, []).repositories == 0
    with running_server(there) as server:
        assert server.client.get("/v2/_catalog").json() == {"repositories": []}
        assert server.status()["facts"] == 1


def test_a_document_before_which_something_is_missing_changes_nothing(there, bundle):
    forged(bundle, update=encode_delta(7, 5, [f"z\0late\0{1:016x}\0{7:x}"], []))
    with pytest.raises(CannotStart, match="damaged: documents/0"):
        import_bundle(bundle, there, [])
    assert not any(there.iterdir())


def link_to_itself(file):
    """The same bytes, but elsewhere."""
    file.with_name("elsewhere").write_bytes(file.with_name(f"{file.name}.kept").read_bytes())
    file.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("what", "says"),
    [("documents/0", "damaged"), ("bodies/*", "damaged"), ("blobs/sha256/*/*", "damaged"),
     ("bundle.json", "not a regular file"), ("bundle.mac", "not a regular file")],
)  # fmt: skip
@pytest.mark.parametrize(
    "put", [lambda file: file.symlink_to("/dev/zero"), os.mkfifo, os.mkdir, link_to_itself],
    ids=["endless", "pipe", "directory", "link"],
)  # fmt: skip
def test_what_is_no_regular_file_is_not_read(there, bundle, what, says, put):
    file = next(bundle.glob(what))
    file.rename(file.with_name(f"{file.name}.kept"))
    put(file)
    with pytest.raises(CannotStart, match=says):
        import_bundle(bundle, there, [])
    assert not any(there.iterdir())


@pytest.mark.parametrize("above", ["documents", "bodies", "blobs", "blobs/sha256"])
def test_what_lies_behind_a_link_is_not_read(tmp_path, there, bundle, above):
    (bundle / above).rename(tmp_path / "elsewhere")
    (bundle / above).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotStart, match="damaged"):
        import_bundle(bundle, there, [])
    assert not any(there.iterdir())


@pytest.mark.parametrize(
    ("what", "bound", "says"),
    [("bundle.json", "MAX_LIST_BYTES", "no bundle.json"), ("bundle.mac", "MAX_MAC_BYTES", "no bundle.mac"),
     ("documents/0", "MAX_DOCUMENT_BYTES", "damaged"), ("bodies/*", "MAX_MANIFEST_BYTES", "damaged")],
)  # fmt: skip
def test_a_file_beyond_its_bound_is_refused_before_it_is_in_memory(there, bundle, monkeypatch, what, bound, says):
    monkeypatch.setattr(f"registry.cli.bundle_import.{bound}", 10_000)
    os.truncate(next(bundle.glob(what)), 1 << 40)
    with pytest.raises(CannotStart, match=says):
        import_bundle(bundle, there, [])
    assert not any(there.iterdir())


def test_content_that_goes_on_beyond_its_size_is_not_read_to_its_end(there, bundle):
    os.truncate(next(bundle.glob("blobs/sha256/*/*")), 1 << 40)
    with pytest.raises(CannotStart, match="damaged"):
        import_bundle(bundle, there, [])
    assert not any(there.iterdir())


@pytest.mark.parametrize("what", ["documents/0", "bodies/*", "blobs/sha256/*/*"])
def test_what_is_exchanged_after_it_was_verified_is_not_taken_in(tmp_path, there, bundle, what, monkeypatch):
    """Everything was read again, and documents and bodies were not compared again."""
    evil = images.image("evil", layer_bytes=2000)
    with running_server(tmp_path / "evil") as server:
        server.client.push("app", "v1", evil)
    export_bundle(tmp_path / "evil", tmp_path / "evil-bundle", [], [])
    exchanged = []

    async def exchange(*arguments, import_=bundle_import._import):
        for file in bundle.glob(what):
            file.write_bytes(next((tmp_path / "evil-bundle").glob(what)).read_bytes())
            exchanged.append(file)
        return await import_(*arguments)

    monkeypatch.setattr(bundle_import, "_import", exchange)
    import_bundle(bundle, there, [])
    assert exchanged
    with running_server(there) as server:
        assert server.client.pull("app", "v1") == images.image("unsigned", layer_bytes=2000).body
    assert concord("verify", "--data", there, "--digests").returncode == 0


def test_an_import_that_was_broken_off_goes_on_and_leaves_nothing_behind(there, bundle, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bundle_import, "_import", die)
        import_bundle(bundle, there, [])
    assert sorted(path.name for path in there.iterdir()) == ["import"]
    (contents,) = [{p.stat().st_ino for p in there.glob("import/blobs/*/*/*")}]
    assert import_bundle(bundle, there, []).new == len(contents) > 0
    assert {path.stat().st_ino for path in there.glob("blobs/*/*/*")} == contents, "they were not copied again"
    assert not (there / "import").exists()


def test_a_bundle_of_another_cluster_is_refused(tmp_path, carried):
    other = {"CONCORD_CLUSTER_KEY": "another-cluster's key"}
    refused(concord("import", tmp_path / "bundle", "--data", tmp_path / "there", **other), "this cluster's key")
    refused(concord("import", tmp_path / "bundle", "--data", tmp_path / "there"), "this cluster's key")
    shutil.rmtree(tmp_path / "bundle")
    refused(concord("import", tmp_path / "bundle", "--data", tmp_path / "there", **SIGNED), "not a bundle")
    refused(concord("export", "--data", tmp_path / "there", tmp_path / "bundle"), "not a data directory")


def test_an_export_of_nothing_leaves_the_bundle_that_is_there(tmp_path, carried):
    before = (tmp_path / "bundle" / "bundle.json").read_bytes()
    refused(concord("export", "--data", tmp_path / "here", tmp_path / "bundle", "nope/*", **SIGNED), "nope/*")
    assert (tmp_path / "bundle" / "bundle.json").read_bytes() == before


def test_damaged_content_is_not_exported_and_named(tmp_path, carried):
    damaged = next(path for path in (tmp_path / "here" / "blobs").rglob("*") if path.is_file())
    good = damaged.read_bytes()
    for content, code in ((b"x" * len(good), 1), (good, 0)):
        damaged.write_bytes(content)
        (tmp_path / "bundle" / damaged.relative_to(tmp_path / "here")).write_bytes(content)
        done = concord("export", "--data", tmp_path / "here", tmp_path / "bundle", **SIGNED)
        assert done.returncode == code and (damaged.name in done.stdout) == (code == 1), done
    assert concord("import", tmp_path / "bundle", "--data", tmp_path / "there", **SIGNED).returncode == 0
