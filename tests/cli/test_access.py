"""The commands of access control, against an instance and in data directories."""

import json
import os

import pytest

from tests.cli.test_cli import concord, refused
from tests.support.server import KEY, Server, running_cluster, running_server, wait_until

pytestmark = pytest.mark.slow

PASSWORD = "a password of root"


def with_input(text, *words, **environment):
    """Run a command that reads a password."""
    import subprocess
    import sys

    plain = {name: value for name, value in os.environ.items() if not name.startswith("CONCORD_")}
    plain |= {"CONCORD_CLUSTER_KEY": KEY}
    return subprocess.run(
        [sys.executable, "-m", "registry", *map(str, words), "--password-stdin"],
        env=plain | environment, input=f"{text}\n", capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An instance whose first administrator was made in its data directory."""
    data = tmp_path_factory.mktemp("access") / "data"
    done = with_input(PASSWORD, "account", "create", "root", "--admin", "--data", data)
    assert done.returncode == 0 and done.stdout.startswith("root is an administrator"), done
    with running_server(data, clustered=True) as running:
        yield running


def run(server, *words, status=0):
    done = concord(*words, "--url", server.url, CONCORD_CLUSTER_KEY=KEY)
    assert done.returncode == status, done
    return done.stdout


def test_accounts_robots_keys_and_groups(server):
    assert with_input("alices password", "account", "create", "alice", "--url", server.url).returncode == 0
    run(server, "robot", "create", "ci")
    key = run(server, "key", "create", "ci", "--expires", "90d").strip()
    assert key.startswith("concord_") and len(key) > 40
    (listed,) = json.loads(run(server, "key", "list", "ci", "--json"))["keys"]
    assert listed["kind"] == "key" and listed["expires_ms"] and key not in json.dumps(listed)
    run(server, "group", "add", "developers", "alice")
    assert run(server, "group", "list") == "developers: alice\n"
    assert run(server, "account", "list") == "alice  user  groups developers\nci  robot\nroot  user\n"
    run(server, "grant", "group:developers", "team/*", "pull,push")
    assert "alice may pull, push at team/app" in run(server, "access", "explain", "alice", "team/app")
    run(server, "account", "block", "alice")
    assert "blocked" in run(server, "access", "explain", "alice", "team/app", status=1)
    run(server, "account", "unblock", "alice")
    run(server, "grant", "alice", "team/app", "pull", "--expires", "1h")
    said = run(server, "revoke", "alice", "team/*", status=1)
    assert "group:developers  team/*  pull,push" in said
    run(server, "group", "remove", "developers", "alice")
    assert "these ways remain" not in run(server, "revoke", "alice", "team/*")
    run(server, "key", "revoke", listed["id"])
    assert run(server, "key", "list", "ci") == ""
    assert with_input("another password", "account", "password", "alice", "--url", server.url).returncode == 0
    assert "administrators: root" in run(server, "access", "list")
    assert run(server, "access", "conflicts") == "no conflicts\n"
    run(server, "account", "remove", "alice")
    assert "alice" not in run(server, "account", "list")


def run_wrong(server, *words):
    """Run a command whose options are wrong. Return its message."""
    done = concord(*words, "--url", server.url, CONCORD_CLUSTER_KEY=KEY)
    assert done.returncode == 2, done
    return done.stderr


def test_bindings_to_identity_providers(server):
    run(server, "robot", "create", "builder")
    issuer = "https://token.actions.githubusercontent.com"
    words = ["--issuer", issuer, "--claim", "repository_id=42", "--claim", "ref=refs/heads/main", "--expires", "90d"]
    assert "builder is bound" in run(server, "account", "bind", "builder", *words)
    (listed,) = json.loads(run(server, "account", "bindings", "--json"))["bindings"]
    assert listed["claims"] == {"repository_id": "42", "ref": "refs/heads/main"} and listed["expires_ms"]
    line = f"{listed['id']}  {issuer}  ref=refs/heads/main repository_id=42  expires "
    assert run(server, "account", "bindings").startswith(f"builder  {line}")
    assert f"\n  {line}" in run(server, "account", "list")
    for claims in (["--claim", "sub"], ["--claim", "=x"], ["--claim", "sub=x", "--claim", "sub=y"]):
        assert "expected NAME=VALUE" in run_wrong(server, "account", "bind", "builder", "--issuer", issuer, *claims)
    run(server, "account", "unbind", listed["id"])
    assert run(server, "account", "bindings") == "" and run(server, "key", "list", "builder") == ""
    run(server, "account", "remove", "builder")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["account", "remove", "root"], "no administrator"),
        (["account", "remove", "unknown"], "there is no account"),
        (["grant", "root", "Team/*", "pull"], "invalid pattern"),
        (["grant", "root", "team/*", "write"], "invalid rights"),
        (["key", "revoke", "0" * 16], "there is no credential"),
        (["account", "unbind", "0" * 16], "there is no binding"),
        (["account", "bind", "root", "--issuer", "http://a.example", "--claim", "sub=x"], "expected https://"),
        (
            ["account", "bind", "root", "--issuer", "https://gitlab.com", "--claim", "sub=x"],
            "project_id or namespace_id",
        ),
        (["access", "approve", "0" * 16], "there is no void fact"),
        (["access", "explain", "unknown", "team/app"], "there is no account"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(server, words, said):
    refused(concord(*words, "--url", server.url, CONCORD_CLUSTER_KEY=KEY), said)


def test_a_short_password_is_refused(server, tmp_path):
    refused(with_input("short", "account", "create", "bob", "--url", server.url), "8 to 1024 characters")
    refused(with_input("short", "account", "create", "bob", "--admin", "--data", tmp_path), "8 characters")
    assert not (tmp_path / "catalog.sqlite").exists()


def test_data_is_for_the_first_administrator_alone(server, tmp_path):
    refused(with_input(PASSWORD, "account", "create", "bob", "--data", tmp_path), "--admin")
    done = with_input(PASSWORD, "account", "create", "bob", "--admin", "--data", server.data)
    refused(done, "in use")


def access_of(server):
    return json.loads(run(server, "access", "list", "--json"))


def test_a_restored_directory_lets_no_credential_count_before_recovery(tmp_path):
    with_input(PASSWORD, "account", "create", "root", "--admin", "--data", tmp_path / "data")
    assert concord("backup", "--data", tmp_path / "data", tmp_path / "backup").returncode == 0
    assert concord("restore", tmp_path / "backup", "--data", tmp_path / "again").returncode == 0
    with running_server(tmp_path / "again", clustered=True) as again:
        assert access_of(again)["restored"] and again.status()["access"]["restored"]
    done = with_input("a new password", "access", "recover", "root", "--data", tmp_path / "again")
    assert done.returncode == 0 and done.stdout.startswith("root is an administrator"), done
    with running_server(tmp_path / "again", clustered=True) as again:
        state = access_of(again)
        assert not state["restored"] and state["administrators"] == ["root"]
    refused(with_input("a new password", "access", "recover", "root", "--data", tmp_path / "none"), "no such directory")


def test_credentials_of_a_restored_instance_count_once_it_has_met_a_member(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        key = {"CONCORD_CLUSTER_KEY": KEY}
        done = with_input(PASSWORD, "account", "create", "root", "--admin", "--url", cluster[0].url, **key)
        assert done.returncode == 0, done
        assert concord("backup", "--data", cluster[0].data, tmp_path / "backup").returncode == 0
        assert concord("restore", tmp_path / "backup", "--data", tmp_path / "again").returncode == 0
        again = Server(tmp_path / "again", "eu", [cluster.redis.url])
        cluster.servers.append(again.start())
        wait_until(lambda: not again.status()["access"]["restored"])


def test_the_first_start_makes_an_administrator_of_a_password_file(tmp_path):
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    with running_server(tmp_path / "data", clustered=True, admin_password_file=str(file)) as server:
        assert access_of(server)["administrators"] == ["admin"]
        done = with_input(PASSWORD, "account", "create", "root", "--admin", "--url", server.url)
        assert done.returncode == 0, done
        assert access_of(server)["administrators"] == ["root"], "the first account has ended"
        assert "admin" not in run(server, "account", "list")
    with running_server(tmp_path / "data", clustered=True, admin_password_file=str(file)) as server:
        assert access_of(server)["administrators"] == ["root"], "a later start does not bring it back"


def test_a_password_file_that_cannot_be_used_ends_the_start(tmp_path):
    (tmp_path / "short").write_text("short")
    for file, said in ((tmp_path / "none", "cannot be read"), (tmp_path / "short", "too short")):
        done = concord("serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--admin-password-file", file,
                       "--workers", "1")  # fmt: skip
        assert done.returncode == 2 and said in done.stderr, done


def test_a_client_of_the_same_host_plants_no_administrator_beside_one(server):
    body, typed = b'{"name": "planted", "password": "a long one", "admin": true}', {"Content-Type": "application/json"}
    answer = server.client.request("POST", "/_concord/access/account/create", body, typed)
    assert answer.status == 403 and b"sign in as one" in answer.body
