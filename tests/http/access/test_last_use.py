"""The last use of a key: whichever process has accepted it, and also after a restart."""

import time

import pytest

from tests.support.access import basic, done, enforce
from tests.support.server import running_server, wait_until


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_key_shows_when_it_was_last_used(tmp_path, workers):
    with running_server(tmp_path / "data", workers=workers) as server:
        enforce(server)
        done(server, "robot/create", name="ci")
        key = done(server, "key/create", account="ci")["key"]

        def last_use():
            (one,) = done(server, "key/list", name="ci")["keys"]
            return one["last_used_ms"]

        assert last_use() is None
        before = time.time() * 1000
        assert server.client.request("GET", "/v2/", None, basic("ci", key + "x")).status == 401
        time.sleep(2.5)
        assert last_use() is None, "a wrong key is no use"
        assert server.client.request("GET", "/v2/", None, basic("ci", key)).status == 200
        used = wait_until(last_use)
        assert before <= used <= time.time() * 1000
        assert server.stop() == 0
        server.start()
        assert last_use() == used
