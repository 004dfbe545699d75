"""The command line: what it says, and how it ends."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys

import apsw
import pytest
from blake3 import blake3

from registry.http.app import INTERNAL_PATHS
from registry.telemetry.events import LogEvent
from tests.support import images
from tests.support.client import Client, sha256
from tests.support.logs import log_lines, select
from tests.support.server import KEY, Server, free_port, running_cluster, running_server, wait_until

pytestmark = pytest.mark.slow


def concord(*words, stdin=None, **environment):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CONCORD_")}
    return subprocess.run(
        [sys.executable, "-m", "registry", *map(str, words)],
        env=plain | {"COLUMNS": "200"} | environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


COMMANDS = [
    "",
    "serve",
    "demo",
    "status",
    "replication",
    "digest",
    "diff",
    "conflicts",
    "verify",
    "scrub",
    "gc",
    "forget",
    "leave",
    "backup",
    "restore",
    "rebuild",
    "grant",
    "revoke",
    "account create",
    "robot create",
    "key create",
    "group add",
    "access explain",
    "access recover",
    "login check",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    done = concord(*command.split(), "--help")
    assert done.returncode == 0
    assert "Example: concord" in done.stdout or not command


def test_version():
    assert concord("--version").stdout.startswith("concord 0.")


def refused(done, *said):
    """One clear line, and no stack trace."""
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("concord: ")
    for words in said:
        assert words in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        (["--listen", "nonsense"], {}, "listen"),
        (["--listen", "127.0.0.1:99999"], {}, "listen"),
        (["--site", "no spaces"], {}, "site"),
        (["--redis", "http://x"], {}, "redis"),
        (["--peer", "10.0.0.1:5000"], {}, "peer"),
        (["--advertise", "x"], {}, "advertise"),
        (["--holder-wait-s", "-1"], {}, "holder_wait_s"),
        (["--verify-after-s", "-1"], {}, "verify_after_s"),
        ([], {"CONCORD_SCRUB_MIB_S": "fast"}, "scrub_mib_s"),
        ([], {"CONCORD_SCRUB_INTERVAL_S": "0"}, "scrub_interval_s"),
        (["--redis", "redis://127.0.0.1"], {}, "CONCORD_CLUSTER_KEY"),
        ([], {"CONCORD_CLUSTER_KEY": "short"}, "16 characters"),
        (["--listen", "0.0.0.0:5000"], {"CONCORD_CLUSTER_KEY": KEY}, "--advertise"),
        ([], {"CONCORD_SPARSE": "perhaps"}, "sparse"),
        (["--config", "/nonexistent.toml"], {}, "no configuration file"),
        (["--log-format", "xml"], {}, "log_format"),
        (["--log-level", "loud"], {}, "log_level"),
        (["--trusted-proxies", "10.0.0.0/33"], {}, "trusted_proxies"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_one_line(tmp_path, options, environment, said):
    done = concord("serve", "--data", tmp_path / "data", *options, **environment)
    refused(done, said)
    assert "short" not in done.stderr, "no secret is shown"


@pytest.mark.parametrize(
    ("content", "said"),
    [("listen = ", "cannot be read"), ("unknown = 1", "unknown"), ('listen = "x"', "listen"), ("site = 5", "site")],
)
def test_a_wrong_configuration_file_ends_the_start_with_one_line(tmp_path, content, said):
    (tmp_path / "concord.toml").write_text(content)
    refused(concord("serve", "--data", tmp_path / "data", "--config", tmp_path / "concord.toml"), said)


def test_options_come_before_the_environment_and_that_before_the_file(tmp_path):
    from registry.config import load_config

    (tmp_path / "c.toml").write_text('site = "file"\nname = ["a", "b"]\nholder_wait_s = 3.5\ncopies = 2\n')
    os.environ |= {"CONCORD_SITE": "environment", "CONCORD_PEER": "http://a:1, http://b:2/", "CONCORD_CLUSTER_KEY": KEY}
    try:
        config = load_config({"listen": "127.0.0.1:1"}, tmp_path / "c.toml")
        assert (config.site, config.name, config.holder_wait_s) == ("environment", ["a", "b"], 3.5)
        assert config.rules.of("app").copies.number == 2
        assert config.peer == ["http://a:1", "http://b:2"]
        assert load_config({"site": "option"}, tmp_path / "c.toml").site == "option"
        assert KEY not in repr(config)
    finally:
        for name in ("CONCORD_SITE", "CONCORD_PEER", "CONCORD_CLUSTER_KEY"):
            del os.environ[name]


def test_an_occupied_port_ends_the_start_with_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(concord("serve", "--data", tmp_path / "data", "--listen", address), address, "in use")


def test_a_directory_in_use_ends_the_start_with_one_line(tmp_path):
    with running_server(tmp_path / "data") as server:
        done = concord("serve", "--data", server.data, "--listen", f"127.0.0.1:{free_port()}")
        refused(done, "in use by another process")


def test_a_directory_of_a_newer_version_ends_the_start_with_one_line(tmp_path):
    import apsw

    (tmp_path / "data").mkdir()
    apsw.Connection(str(tmp_path / "data" / "catalog.sqlite")).pragma("user_version", 9999)
    refused(concord("serve", "--data", tmp_path / "data", "--listen", f"127.0.0.1:{free_port()}"), "newer version")


def test_a_damaged_catalog_ends_the_start_with_one_line(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "catalog.sqlite").write_bytes(b"not a database, but long enough to look like one" * 100)
    refused(concord("serve", "--data", tmp_path / "data", "--listen", f"127.0.0.1:{free_port()}"), "catalog")


def test_a_directory_that_cannot_be_made_ends_the_start_with_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    refused(concord("serve", "--data", tmp_path / "file" / "data", "--listen", f"127.0.0.1:{free_port()}"), "data")


def test_an_instance_that_does_not_answer_is_one_line():
    for words in (["status"], ["digest"], ["conflicts"]):
        refused(concord(*words, f"http://127.0.0.1:{free_port()}"), "cannot be reached")
    refused(concord("diff", "127.0.0.1:1", "127.0.0.1:1"), "cannot be reached")


def test_something_else_that_answers_is_one_line(alone):
    refused(concord("digest", f"{alone.url}/v2"), "answered 404")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two instances that never hear of each other."""
    root = tmp_path_factory.mktemp("pair")
    with running_server(root / "a") as one, running_server(root / "b") as other:
        yield one, other


def test_diff_names_what_differs_and_says_when_they_agree(pair):
    one, other = pair
    done = concord("diff", one.url, other.url)
    assert (done.returncode, done.stdout.startswith("they agree: ")) == (0, True)
    first, second = images.image("first"), images.image("second")
    one.client.push("app/one", "v1", first)
    other.client.push("app/one", "v1", second)
    one.client.push("app/two", "only-here", first)
    done = concord("diff", one.url, other.url)
    assert done.returncode == 1
    assert "app/one" in done.stdout and f"v1: {first.digest} | {second.digest}" in done.stdout
    assert f"only-here: {first.digest} | not there" in done.stdout
    said = json.loads(concord("diff", "--json", one.url, other.url).stdout)
    assert said["agree"] is False
    assert [entry["name"] for entry in said["repositories"]] == ["app/one", "app/two"]
    assert said["roots"] == [one.root(), other.root()]


def test_diff_of_many_repositories_finds_the_few_that_differ(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        for number in range(150):
            cluster[0].client.push_blob(f"many/r{number}", b"x")
        cluster.wait_agreed()
        done = concord("diff", cluster[0].url, cluster[1].url)
        assert (done.returncode, done.stdout) == (0, f"they agree: {cluster[0].root()}\n")


def test_digest_status_and_conflicts(pair):
    one, _ = pair
    one.client.push("app/shown", "v1", images.image("shown"))
    assert json.loads(concord("digest", "--json", one.url).stdout)["root"] == one.root()
    assert concord("digest", one.url).stdout.strip() == one.root()
    assert concord("digest", CONCORD_URL=one.url).stdout.strip() == one.root()
    shown = concord("digest", "--repository", "app/shown", one.url).stdout
    assert images.image("shown").digest in shown
    said = json.loads(concord("status", "--json", one.url).stdout)
    assert (said["ready"], said["root"], said["members"]) == (True, one.root(), [])
    assert one.root() in concord("status", one.url).stdout
    assert concord("conflicts", one.url).stdout == "no conflicts\n"
    assert json.loads(concord("conflicts", "--json", one.url).stdout) == {"count": 0, "conflicts": []}


@pytest.mark.parametrize(
    ("how", "changed", "cut"),
    [
        ([], "at byte 0: its bytes have changed", "at byte 99999: the file has 99999 of 100000 bytes"),
        (["--digests"], "its digest is another one", "at byte 99999: the file has 99999 of 100000 bytes"),
    ],
)
def test_verify_finds_what_is_damaged_and_what_is_missing(tmp_path, how, changed, cut):
    image = images.image("verified", layers=3, layer_bytes=100_000)
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", image)
        done = concord("verify", *how, "--data", server.data)
        assert (done.returncode, "5 contents" in done.stdout, " 0 damaged" in done.stdout) == (0, True, True)
        paths = [server.data / "blobs" / "sha256" / sha256(b)[7:9] / sha256(b)[7:] for b in image.blobs]
        flipped = bytearray(paths[1].read_bytes())
        flipped[777] ^= 4
        paths[1].write_bytes(flipped)
        paths[2].write_bytes(paths[2].read_bytes()[:-1])
        paths[3].unlink()
        done = concord("verify", *how, "--json", "--data", server.data)
        assert done.returncode == 1
        found = {entry["digest"]: entry["problem"] for entry in json.loads(done.stdout)["damaged"]}
        assert found == {
            sha256(image.blobs[1]): changed,
            sha256(image.blobs[2]): cut,
            sha256(image.blobs[3]): "the file is missing",
        }


def test_verify_finds_damage_anywhere_in_a_large_content(tmp_path):
    content = os.urandom(70 * 1024 * 1024)
    with running_server(tmp_path / "data") as server:
        digest = server.client.push_blob("app", content)
    path = server.data / "blobs" / "sha256" / digest[7:9] / digest[7:]
    assert concord("verify", "--data", server.data).returncode == 0
    for at in (40 * 1024 * 1024 + 3, len(content) - 1):
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(bytes([content[at] ^ 1]))
        done = concord("verify", "--data", server.data)
        assert (done.returncode, f"{at - at % 2**20}" in done.stdout) == (1, True), done
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(content[at : at + 1])


def test_what_was_changed_with_its_row_is_seen_by_its_digest_alone(tmp_path):
    with running_server(tmp_path / "data") as server:
        digest = server.client.push_blob("app", b"x" * 1000)
    (server.data / "blobs" / "sha256" / digest[7:9] / digest[7:]).write_bytes(b"y" * 1000)
    with apsw.Connection(str(server.data / "catalog.sqlite")) as catalog:
        catalog.execute("UPDATE content SET chunk_digests = ?", (blake3(b"y" * 1000).digest(),))
    assert concord("verify", "--data", server.data).returncode == 0
    assert concord("verify", "--digests", "--data", server.data).returncode == 1


def test_scrub_has_an_instance_check_itself_and_ends_with_a_finding(tmp_path):
    image = images.image("scrubbed", layers=2, layer_bytes=100_000)
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", image)
        assert concord("scrub", server.url).stdout == "begun\n"
        wait_until(lambda: server.client.get("/_concord/scrub").json()["running"] is None)
        done = concord("scrub", "--wait", server.url)
        assert (done.returncode, "0 corrupt, 0 repaired" in done.stdout) == (0, True), done
        digest = sha256(image.blobs[1])
        (server.data / "blobs" / "sha256" / digest[7:9] / digest[7:]).unlink()
        done = concord("scrub", "--wait", "--json", server.url)
        assert (done.returncode, json.loads(done.stdout)["last"]["corrupt"]) == (1, 1)
        assert "1 corrupt blobs since the start, 0 repaired" in concord("status", server.url).stdout
    refused(concord("scrub", server.url), "cannot be reached")


def test_verify_of_no_data_directory_is_one_line(tmp_path):
    refused(concord("verify", "--data", tmp_path), "not a data directory")


def test_sparse_by_option_and_by_environment(tmp_path):
    image = images.image("sparse")
    for number, environment in enumerate([{}, {"sparse": "1"}]):
        with running_server(tmp_path / f"data{number}", **environment) as server:
            answer = server.client.put_manifest("app", "v1", image.body, image.media_type)
            assert answer.status == (201 if environment else 404)


def test_own_listener_for_everything_that_is_not_the_registry(tmp_path):
    port = free_port()
    server = Server(tmp_path / "data", listen_internal=f"127.0.0.1:{port}")
    internal = Client("127.0.0.1", port)
    try:
        server.start(wait=False)
        wait_until(lambda: answers(internal) and internal.get("/readyz").status == 200)
        assert server.client.get("/v2/").status == 200
        assert internal.get("/_concord/status").status == 200
        assert internal.get("/metrics").status == 200
        assert internal.get("/_concord/replication/app/v1").json()["errors"][0]["code"] == "MANIFEST_UNKNOWN"
        for path in (*INTERNAL_PATHS, "/_concord/peer/changes", "/_concord/replication/app/v1"):
            assert server.client.get(path).status == 404
        assert internal.get("/v2/").status == 404
    finally:
        server.kill()


def answers(client):
    try:
        return client.get("/healthz").status == 200
    except OSError:
        return False


def test_the_demo_runs_three_instances_that_agree(tmp_path, demo_ports):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CONCORD_")}
    command = [sys.executable, "-m", "registry", "demo", "--data", str(tmp_path / "demo")]
    process = subprocess.Popen(command, env=plain, stdout=subprocess.PIPE, text=True)
    try:
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, "the demo ended"
            said += line
        eu, us, ap = (Client("127.0.0.1", port) for port in (5001, 5002, 5003))
        image = images.image("demo")
        eu.push("demo/app", "v1", image)
        for client in (us, ap):
            wait_until(lambda client=client: client.head("/v2/demo/app/manifests/v1").status == 200)
            assert client.pull("demo/app", "v1") == image.body
        assert concord("diff", "127.0.0.1:5001", "127.0.0.1:5002").returncode == 0
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    wait_until(lambda: not answers(eu))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", ""], "the setting data is wrong: the data directory has no name"),
        (["--listen", ""], "the setting listen is wrong: invalid address '': expected HOST:PORT"),
        (["--redis", "redis://:secret@127.0.0.1:abc"], "the port of a Redis address is a number up to 65535"),
        (["--site", "a b"], "a site is at most 63 letters"),
        (["--advertise", "http://"], "invalid address 'http://': expected http://HOST:PORT or https://HOST:PORT"),
        (["--advertise", "http://h:5000/path?q"], "expected http://HOST:PORT or https://HOST:PORT"),
        (["--redis", "redis://:secret/5@127.0.0.1"], "%2F for /"),
        (["--redis", "redis://:secret,5@127.0.0.1"], "%2C for a comma"),
        (["--peer", "http://me:secret@10.0.0.1:5000"], "holds no user and no password"),
        (["--name", "http://registry.example.com"], "the setting name is wrong: invalid name"),
        (["--listen", "::1:5000"], "an IPv6 address stands in brackets"),
        (["--holder-wait-s", "nan"], "the setting holder_wait_s is wrong"),
        (["--gc-interval-s", "inf"], "expected a finite number"),
        (["--listen-internal", "127.0.0.1:5"], "say the address at which others reach it"),
    ],
)
def test_settings_that_cannot_work_end_the_start_with_one_line(tmp_path, options, said):
    environment = {"CONCORD_DATA": str(tmp_path / "data"), "CONCORD_CLUSTER_KEY": "a-key-of-the-tests"}
    ended = concord("serve", *options, **environment)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "secret" not in ended.stderr


def test_lists_on_the_command_line_are_separated_by_commas(tmp_path):
    port = free_port()
    words = ["serve", "--listen", f"127.0.0.1:{port}", "--data", str(tmp_path / "data"), "--workers", "1"]
    words += ["--name", "a.example.com,b.example.com", "--name", "C.example.com"]
    with subprocess.Popen([sys.executable, "-m", "registry", *words], stderr=subprocess.DEVNULL) as running:
        client = Client("127.0.0.1", port)
        try:
            wait_until(lambda: answers(client))
            for name in ("a.example.com", "b.example.com", "c.example.com", "B.Example.com"):
                assert client.get(f"/v2/?ns={name}").status == 200
            assert client.get("/v2/?ns=a.example.com,b.example.com").status == 404
        finally:
            running.terminate()


def test_what_of_the_configuration_has_no_effect_is_a_warning(tmp_path):
    (tmp_path / "c.toml").write_text(
        '[[policy]]\nrepositories = "Prod/*"\n[[policy]]\nrepositories = "*"\n[[policy]]\nrepositories = "prod/*"\n'
    )
    words = [
        "serve",
        "--listen",
        f"127.0.0.1:{free_port()}",
        "--data",
        tmp_path / "file",
        "--config",
        tmp_path / "c.toml",
    ]
    (tmp_path / "file").touch()
    variables = {"CONCORD_LSITEN": "127.0.0.1:1", "CONCORD_PORT_5000_TCP": "tcp://10.0.0.1:5000"}
    ended = concord(*words, **variables, CONCORD_LOG_FORMAT="json")
    assert ended.returncode == 2
    lines = log_lines(ended.stderr)
    (unknown,) = select(lines, LogEvent.UNKNOWN_SETTING_IGNORED)
    assert (unknown["variable"], unknown["meant"]) == ("CONCORD_LSITEN", "CONCORD_LISTEN")
    ignored = select(lines, LogEvent.POLICY_RULE_IGNORED)
    assert [(line["rule"], line["repositories"]) for line in ignored] == [(1, "Prod/*"), (3, "prod/*")]


@pytest.mark.parametrize("url", ["", "ftp://127.0.0.1:1", "http://"])
def test_an_address_that_is_none_is_said_to_be_none(url):
    ended = concord("status", url)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "is no address of an instance" in ended.stderr


def test_what_keeps_instances_apart_is_said(tmp_path):
    nowhere = free_port()
    address = f"redis://:pass@127.0.0.1:{nowhere}?username=pass@"
    with running_server(tmp_path / "data", redis=[address]) as server:
        wait_until(lambda: server.logged(LogEvent.BUS_DISCONNECTED, bus=f"redis://127.0.0.1:{nowhere}"))
        assert f"bus redis://127.0.0.1:{nowhere}: not heard" in concord("status", server.url).stdout
        assert "pass@" not in server.log.read_text()
    with running_server(tmp_path / "other", peers=[f"http://127.0.0.1:{nowhere}"]) as server:
        wait_until(lambda: server.logged(LogEvent.HANDSHAKE_FAILED, address=f"http://127.0.0.1:{nowhere}"))


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_leaves_nothing_behind(name, tmp_path, demo_ports):
    command = [sys.executable, "-m", "registry", "demo", "--data", str(tmp_path / "demo")]
    deaf = functools.partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # as a shell starts what it puts behind
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=deaf) as running:
        for line in running.stdout:
            if line.startswith("Three instances"):
                break
        again = concord("demo")
        assert (again.returncode, "is in use" in again.stderr) == (2, True)
        running.send_signal(name)
        running.wait(30)
    for port in demo_ports:
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
