"""HTTP that cannot hang, swell or leak."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import socket
import threading
import time
import tracemalloc
from base64 import b64decode, b64encode
from urllib.parse import quote

import pytest
from hostile_server import DRIP_S, DRIPS, ENOUGH_S, FLOODS, OK, attacking
from hypothesis import given
from hypothesis import strategies as st
from live_server import serving
from sagescale.errors import InputError
from sagescale.live.actuators.protocol import ActuatorError
from sagescale.live.config import LiveConfig
from sagescale.live.doctor import Finding
from sagescale.live.http import HttpClient, HttpError, metrics_authorization
from sagescale.live.journal import Journal
from sagescale.live.metrics.presets import PRESETS
from sagescale.live.metrics.scrape import ScrapeReader, parse_page
from sagescale.live.metrics.source import make_source
from sagescale.live.metrics.window import Problem
from sagescale.live.records import Event, Note
from sagescale.live.secret import Secret, foreign_text, read_secret


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests(monkeypatch):
    monkeypatch.setattr("sagescale.live.secret._known", {})


def client(**keys):
    live = LiveConfig(**keys)
    return HttpClient(live, metrics_authorization)


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


def test_a_secret_is_not_read_from_what_has_no_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_text("x" * 100_000)
    for name in ("/dev/zero", str(tmp_path), str(tmp_path / "pipe"), str(tmp_path / "long")):
        with pytest.raises(InputError, match="expected one line with the secret"):
            read_secret("x", name, None)


def test_credentials_are_sent_to_their_host_and_nowhere_else(tmp_path):
    (tmp_path / "token").write_text("abc")
    with serving() as home, serving() as stranger:
        home.answers["/a"] = (302, b"", {"Location": f"{stranger.url}/b"})
        home.answers["/here"] = (302, b"", {"Location": "/there"})
        home.answers["/there"] = (200, b"fine", {})
        found = client(metrics_bearer_token_file=str(tmp_path / "token"))
        with pytest.raises(HttpError, match="redirects to another host"):
            found.get(f"{home.url}/a", timeout_s=60)
        assert stranger.asked == []
        assert found.get(f"{home.url}/here", timeout_s=60).body == b"fine"
        assert home.asked[-1]["headers"]["Authorization"] == "Bearer abc"


def test_a_rotated_token_is_picked_up(tmp_path):
    token = tmp_path / "token"
    token.write_text("old")
    with serving() as server:
        server.answers["/"] = (200, b"", {})
        found = client(metrics_bearer_token_file=str(token))
        found.get(f"{server.url}/", timeout_s=60)
        token.write_text("new")
        found.get(f"{server.url}/", timeout_s=60)
        assert [asked["headers"]["Authorization"] for asked in server.asked] == ["Bearer old", "Bearer new"]


def test_an_answer_too_long_is_cut_off():
    with serving() as server:
        server.answers["/"] = (200, b"x" * 100_000, {})
        found = client(metrics_max_bytes=10_000)
        with pytest.raises(HttpError, match="metrics_max_bytes"):
            found.get(f"{server.url}/", timeout_s=60)


def test_an_answer_too_late_is_given_up():
    with serving() as server:
        given_up = threading.Event()
        server.answers["/"] = lambda request: (given_up.wait(60.0), (200, b"", {}))[1]
        found = client()
        with pytest.raises(HttpError, match="no answer within"):
            found.get(f"{server.url}/", timeout_s=0.2)
        given_up.set()  # the answer came no sooner


# --- whatever the other end does ---------------------------------------------------------------------

DEADLINE_S = 0.4


def ends_in_time(url, match, *, method="GET", content=None, **keys):
    """A request fails within its deadline (generously) and needs little memory."""
    found = client(**keys)
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(HttpError, match=match) as error:
            found.request(method, url, timeout_s=DEADLINE_S, content=content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < ENOUGH_S
    assert peak < 10_000_000
    assert len(str(error.value)) <= 500
    assert str(error.value).isprintable()


@pytest.mark.parametrize("attack", DRIPS)
def test_a_deadline_holds_however_slowly_a_server_drips(attack):
    with attacking(*DRIPS[attack], DRIP_S) as port:
        scheme = "https" if attack == "TLS handshake" else "http"
        ends_in_time(f"{scheme}://127.0.0.1:{port}/", "no answer within|timed out")


def test_a_deadline_holds_for_a_server_that_does_not_listen():
    with attacking([], [], listens=False) as port:
        ends_in_time(f"http://127.0.0.1:{port}/", "no answer within", method="POST", content=b"x" * 9_000_000)


def test_a_deadline_is_one_for_all_redirects():
    def later(request):
        threading.Event().wait(DEADLINE_S / 2)
        return 302, b"", {"Location": request["path"] + "x"}

    with serving() as server:
        server.answers = {"/" + "x" * number: later for number in range(9)}
        ends_in_time(f"{server.url}/", "no answer within")


def test_a_deadline_holds_where_names_are_not_resolved(monkeypatch):
    given_up, asked, resolve = threading.Event(), [], socket.getaddrinfo

    def stuck(host, port, *rest, flags=0, **keys):
        if flags & socket.AI_NUMERICHOST:
            return resolve(host, port, *rest, flags=flags, **keys)
        asked.append(host)
        given_up.wait(60.0)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    for _ in range(3):
        ends_in_time("http://prometheus.example/", "no answer within")
    assert asked == ["prometheus.example"]  # one thread waits for a name, however often it is asked for
    given_up.set()


@pytest.mark.parametrize("attack", FLOODS)
def test_no_more_is_read_or_unpacked_than_is_allowed(attack):
    with attacking(*FLOODS[attack]) as port:
        ends_in_time(
            f"http://127.0.0.1:{port}/",
            "metrics_max_bytes|is encoded as|too large|too long|no answer within",
            metrics_max_bytes=1_000_000,
        )


@pytest.mark.parametrize(
    "packed", [gzip.compress(b"metrics")[:-1], b"metrics", gzip.compress(b"a") * 2],
    ids=["cut short", "not packed", "two"],
)  # fmt: skip
def test_an_answer_that_is_not_whole_gzip_is_refused(packed):
    with serving() as server:
        server.answers["/"] = (200, packed, {"Content-Encoding": "gzip"})
        with pytest.raises(HttpError, match="gzip"):
            client().get(f"{server.url}/", timeout_s=60)


UNPACKER = client(metrics_max_bytes=5000)


@given(st.binary(max_size=5000))
def test_an_answer_is_the_same_packed_and_plain(data):
    for body, encoding in (
        (data, "identity"),
        (gzip.compress(data), "gzip"),
        (gzip.compress(data), "x-gzip"),
    ):
        pieces = [body[start : start + 100] for start in range(0, len(body), 100)]
        assert UNPACKER._decoded(pieces, encoding) == data


def test_nothing_is_taken_for_the_next_answer():
    second = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"
    with attacking([OK + b"Content-Length: 4\r\n\r\ngood" + second], []) as port:
        found = client()
        assert [found.get(f"http://127.0.0.1:{port}/", timeout_s=60).body for _ in "ab"] == [b"good"] * 2


@pytest.mark.parametrize("location", ["http://[::1", "//\x7f", "http://a:b", "/%00\x00", "http://ö..x/"])
def test_a_redirect_to_nowhere_is_an_error_of_the_request(location):
    answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    with attacking([answer], []) as port, pytest.raises(HttpError) as error:
        client().get(f"http://127.0.0.1:{port}/", timeout_s=60)
    assert "no answer within" not in str(error.value)


# --- foreign text -------------------------------------------------------------------------------------


@given(st.text() | st.binary(), st.integers(10, 400))
def test_foreign_text_is_one_printable_line_of_bounded_length(text, most):
    found = foreign_text(text, most)
    assert len(found) <= most
    assert found.isprintable()
    found.encode()
    assert foreign_text(found, most) == found
    if isinstance(text, str) and text.isprintable() and len(text) <= most:
        assert found == " ".join(text.split())


@given(st.text(st.characters(codec="utf-8"), min_size=8), st.text(), st.text(), st.integers(10, 400))
def test_no_secret_is_left_in_foreign_text_in_any_spelling(secret, before, after, most):
    Secret(secret)
    shown = " ".join(secret.split())
    for spelt in (secret, json.dumps(secret), quote(secret), quote(secret, safe=""), repr(secret)):
        found = foreign_text(f"{before}{spelt}{after}", most)
        assert shown not in found or shown in "***" or shown in f"{before}***{after}"


def test_twenty_megabytes_of_text_need_no_more_than_themselves():
    text = "a " * 10_000_000
    tracemalloc.start()
    try:
        foreign_text(text)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("start", "more", "times"),
    [("", "m 1\n", 8_000_000), ("m{", 'a="",', 6_000_000), ("", "\n", 32_000_000), ("m ", "9", 400)],
    ids=["samples", "labels", "lines", "digits"],
)  # fmt: skip
def test_a_hostile_page_takes_little_more_memory_than_itself(start, more, times):
    page = start + more * times
    tracemalloc.start()
    try:
        with pytest.raises(HttpError, match="text format") as error:
            parse_page(page, "i", "instance", frozenset({"m"}), {})
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) <= 500


@given(st.lists(st.sampled_from(["x", "y_total", "z"]), max_size=30), st.integers(1, 5))
def test_a_page_reads_the_same_in_pieces(names, size):
    text = "".join(f'# HELP {n} of it\n# TYPE {n} counter\n{n}{{a="1"}} 1\n{n}{{a="2"}} 2\n' for n in names)
    wanted = frozenset({"x_total", "y_total", "z"})
    whole = parse_page(text, "i", "instance", wanted, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sagescale.live.metrics.scrape._PIECE_LINES", size)
        assert parse_page(text, "i", "instance", wanted, {}) == whole


def test_instances_and_their_discovery_share_one_deadline():
    with serving() as lister, attacking(*DRIPS["headers"], DRIP_S) as port:

        def late(request):
            threading.Event().wait(0.75 * DEADLINE_S)
            return 200, [{"targets": [f"127.0.0.1:{port}"], "labels": {"job": "prefill"}}], {}

        lister.answers["/sd"] = late
        reader = ScrapeReader(
            LiveConfig(
                metrics_preset="vllm", scrape_discovery_url=f"{lister.url}/sd", metrics_timeout_s=DEADLINE_S
            )
        )
        began = time.monotonic()
        with pytest.raises(HttpError, match="no answer"):
            reader.read(PRESETS["vllm"], 60.0)
        assert time.monotonic() - began < ENOUGH_S
        reader.close()


@given(st.text(max_size=3000))
def test_whatever_a_message_quotes_it_is_one_printable_line(text):
    quoted = [
        str(InputError(text)), str(HttpError(text)), str(ActuatorError(text)), Problem("x", text).text,
        Finding("ok", text).what, Note("x", text).text, Event(0.0, None, "x", text).text,
    ]  # fmt: skip
    for found in quoted:
        assert found.isprintable()
        assert len(found) <= 2000


def test_twenty_megabytes_of_error_are_a_line_in_the_journal(tmp_path):
    error = {"status": "error", "error": "\x1b[31m" + "no " * 7_000_000}
    with serving() as server:
        server.answers["/api/v1/query"] = (400, error, {})
        live = LiveConfig(prometheus_url=server.url, metrics_preset="vllm")
        metrics, _ = make_source(live, "prefill").collect(60.0)
        (problem,) = metrics.problems
        server.answers["/api/v1/query"] = (200, error, {})
        metrics, _ = make_source(live, "prefill").collect(60.0)
        problems = (problem, *metrics.problems)
    assert [item.code for item in problems] == ["source_failed"] * 2
    path = tmp_path / "journal"
    journal = Journal(path, "a target", 1e9)
    for item in problems:
        journal.add_event(Event(0.0, None, item.code, item.text))
    journal.close()
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize("key", ["bearer", "basic"])
def test_an_echoing_server_gets_no_secret_into_a_message(key, tmp_path):
    (tmp_path / "secret").write_text("s3cr3t-t0k3n")
    keys = (
        {"metrics_bearer_token_file": str(tmp_path / "secret")}
        if key == "bearer"
        else {"metrics_username": "planner", "metrics_password_file": str(tmp_path / "secret")}
    )
    with serving() as server:
        server.answers["/"] = lambda request: (
            401,
            (
                "\x1b[31m"
                + str(request["headers"])
                + b64decode(request["headers"]["Authorization"].split()[1] + "====").decode("latin-1")
            ).encode(),
            {},
        )
        with pytest.raises(HttpError) as error:
            client(**keys).get(f"{server.url}/", timeout_s=60)
    text = str(error.value)
    assert "answered 401" in text
    assert "\x1b" not in text
    for word in ("s3cr3t", b64encode(b"planner:s3cr3t-t0k3n").decode()[:8]):
        assert word not in text


def test_a_secret_that_no_header_can_hold_is_refused_without_showing_it(tmp_path):
    (tmp_path / "token").write_text("s3cr3t-\u00e9")
    with pytest.raises(InputError, match="expected printable ASCII") as error:
        client(metrics_bearer_token_file=str(tmp_path / "token"))
    assert "s3cr3t" not in str(error.value)


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
