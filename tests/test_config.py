"""What an operator may set, beside what the command line's tests see."""

import pytest

from registry.config import load_config
from registry.errors import CannotStart

KEY = "a-cluster-key-for-the-tests"


@pytest.fixture(autouse=True)
def clustered(monkeypatch):
    monkeypatch.setenv("CONCORD_CLUSTER_KEY", KEY)


@pytest.mark.parametrize(
    "given", [["redis://a:1,redis://b:2"], ["redis://a:1", "redis://b:2"], "redis://a:1 , redis://b:2,"]
)
def test_load_config_of_a_list_takes_commas_and_repeated_options_alike(given):
    assert load_config({"redis": given}, None).redis == ["redis://a:1", "redis://b:2"]


def test_load_config_of_names_and_peers_takes_commas_within_a_repeated_option():
    config = load_config({"name": ["a.example,B.example", "c"], "peer": ["http://a:1,http://b:2/"]}, None)
    assert (config.name, config.peer) == (["a.example", "b.example", "c"], ["http://a:1", "http://b:2"])


def test_load_config_keeps_the_sentinels_of_one_address_together(monkeypatch):
    several = "redis+sentinel://a:1,b:2,[::1]:3/main"
    assert load_config({"redis": [f"{several},redis://c"]}, None).redis == [several, "redis://c"]
    monkeypatch.setenv("CONCORD_REDIS", f"redis://c,{several}")
    assert load_config({}, None).redis == ["redis://c", several]


def test_load_config_keeps_a_key_of_a_file_whole_that_holds_a_comma(tmp_path, monkeypatch):
    monkeypatch.delenv("CONCORD_CLUSTER_KEY")
    (tmp_path / "c.toml").write_text('cluster_key = ["one,secret,of,a,file", "another-secret-of-it"]')
    keys = load_config({}, tmp_path / "c.toml").cluster_key
    assert [key.get_secret_value() for key in keys] == ["one,secret,of,a,file", "another-secret-of-it"]


@pytest.mark.parametrize("password", ["pa#ss", "pa/ss", "pa?ss", "12#ss", "12/ss", "12?ss", "pa,ss", "p:a#s,s"])
@pytest.mark.parametrize(
    "form", ["redis://me:{}@10.0.0.1:6379", "rediss://:{}@host/0", "redis+sentinel://:{}@a:1,b:2/main"]
)
def test_load_config_of_a_password_that_breaks_its_address_says_how_to_write_it(form, password):
    if "sentinel" in form and password == "pa,ss":
        return  # commas divide Sentinels there, and what stands before the @ is a password
    with pytest.raises(CannotStart, match="%23 for #") as refused:
        load_config({"redis": [form.format(password)]}, None)
    assert password not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["redis://me:p%40%2Fss@a:1/0", "redis://a?username=me@home", "rediss+sentinel://:p%2Css@a,b/main"]
)
def test_load_config_of_an_encoded_password_takes_it(url):
    assert load_config({"redis": [url]}, None).redis == [url]


@pytest.mark.parametrize("listen", ["[::]:5000", "[0::0]:5000", "0.0.0.0:5000", ":5000"])
def test_load_config_of_a_wildcard_without_an_address_for_others_is_refused(listen):
    with pytest.raises(CannotStart, match="--advertise"):
        load_config({"listen": listen}, None)
    assert load_config({"listen": listen, "advertise": "http://[2001:db8::1]:5000"}, None)
