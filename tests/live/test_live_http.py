"""HTTP that cannot hang, swell or leak."""

from __future__ import annotations

import pickle
import threading

import pytest
from live_server import serving
from sagescale.errors import InputError
from sagescale.live.config import LiveConfig
from sagescale.live.http import Credentials, HttpClient, HttpError
from sagescale.live.secret import Secret, read_secret


def client(**keys):
    live = LiveConfig(**keys)
    return HttpClient(live, Credentials.of_metrics(live))


def test_a_secret_never_shows():
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {secret:>9} {[secret]}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_secrets_come_from_file_or_environment_only(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("abc\n")
    assert read_secret("x", str(tmp_path / "token"), None).reveal() == "abc"
    monkeypatch.setenv("TOKEN", "def")
    assert read_secret("x", None, "TOKEN").reveal() == "def"
    assert read_secret("x", None, None) is None
    with pytest.raises(InputError, match="both given"):
        read_secret("x", "a", "b")
    monkeypatch.delenv("TOKEN")
    with pytest.raises(InputError, match="TOKEN, which is not set"):
        read_secret("x", None, "TOKEN")
    (tmp_path / "two").write_text("secret-one\nsecret-two\n")
    with pytest.raises(InputError) as error:
        read_secret("x", str(tmp_path / "two"), None)
    assert "secret-one" not in str(error.value)


def test_credentials_are_sent_to_their_host_and_nowhere_else(tmp_path):
    (tmp_path / "token").write_text("abc")
    with serving() as home, serving() as stranger:
        home.answers["/a"] = (302, b"", {"Location": f"{stranger.url}/b"})
        home.answers["/here"] = (302, b"", {"Location": "/there"})
        home.answers["/there"] = (200, b"fine", {})
        found = client(metrics_bearer_token_file=str(tmp_path / "token"))
        with pytest.raises(HttpError, match="redirects to another host"):
            found.get(f"{home.url}/a", timeout_s=5)
        assert stranger.asked == []
        assert found.get(f"{home.url}/here", timeout_s=5).body == b"fine"
        assert home.asked[-1]["headers"]["Authorization"] == "Bearer abc"
        found.close()


def test_a_rotated_token_is_picked_up(tmp_path):
    token = tmp_path / "token"
    token.write_text("old")
    with serving() as server:
        server.answers["/"] = (200, b"", {})
        found = client(metrics_bearer_token_file=str(token))
        found.get(f"{server.url}/", timeout_s=5)
        token.write_text("new")
        found.get(f"{server.url}/", timeout_s=5)
        assert [asked["headers"]["Authorization"] for asked in server.asked] == ["Bearer old", "Bearer new"]
        found.close()


def test_an_answer_too_long_is_cut_off():
    with serving() as server:
        server.answers["/"] = (200, b"x" * 100_000, {})
        found = client(metrics_max_bytes=10_000)
        with pytest.raises(HttpError, match="metrics_max_bytes"):
            found.get(f"{server.url}/", timeout_s=5)
        found.close()


def test_an_answer_too_late_is_given_up():
    with serving() as server:
        given_up = threading.Event()
        server.answers["/"] = lambda request: (given_up.wait(60.0), (200, b"", {}))[1]
        found = client()
        with pytest.raises(HttpError, match="no answer within"):
            found.get(f"{server.url}/", timeout_s=0.2)
        given_up.set()  # the answer came no sooner
        found.close()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prometheus_url", "localhost:9090"),
        ("prometheus_url", "ftp://host"),
        ("webhook_url", "http://"),
        ("prometheus_url", "http://user:secret@host:9090"),
        ("pool_label", 'a"b'),
        ("prefill_pool", "("),
        ("decode_pool", ".*prefill.*"),
        ("actuator", "command"),
        ("metrics_preset", "vlm"),
        ("metric_queries", {"request": "x"}),
    ],
)
def test_a_wrong_setting_is_refused_by_name_and_without_secrets(key, value):
    with pytest.raises(InputError) as error:
        LiveConfig(**{key: value})
    assert key in str(error.value)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_password_needs_a_user(monkeypatch):
    monkeypatch.setenv("PASSWORD", "x")
    with pytest.raises(InputError, match="metrics_username"):
        client(metrics_password_env="PASSWORD")
