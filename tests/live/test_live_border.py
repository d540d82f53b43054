"""Whatever a source answers, it is read or named: no answer ends the planner or makes a pool smaller."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sagescale.errors import SagescaleError
from sagescale.live.actuators.protocol import ActuatorError, parse_pool_states, pool_states
from sagescale.live.config import LiveConfig
from sagescale.live.http import Reply
from sagescale.live.metrics.source import make_source
from sagescale.planner import AutoscalerConfig

NAMES = st.sampled_from(
    [
        "status",
        "data",
        "result",
        "resultType",
        "metric",
        "value",
        "values",
        "targets",
        "labels",
        "error",
        "prefill",
        "decode",
        "ready",
        "starting",
        "le",
        "__scheme__",
        "instance",
        "kind",
    ]
)
VALUES = ["success", "vector", "matrix", "scalar", "1e999", "NaN", "localhost:1", 10**19, 10**400]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | NAMES
    | st.sampled_from(VALUES)
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)

HOSTILE = {
    "empty": b"",
    "deep list": b"[" * 100_000,
    "deep object": b'{"prefill":' * 100_000,
    "400 digits": b'{"prefill": {"ready": ' + b"9" * 400 + b"}}",
    "5000 digits": b'{"status": ' + b"9" * 5000 + b"}",
    "half a character": b'{"status": "\\ud800"}',
    "not UTF-8": b'\xff\xfe{"status": "success"}',
    "infinite": b'{"prefill": {"ready": Infinity}, "decode": {"ready": NaN}}',
    "a web page": b"<html>502 Bad Gateway</html>",
}


def prometheus_says(kind, result):
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()


SHAPES = {
    f"{kind} of {shape}": prometheus_says(kind, result)
    for kind in ("vector", "scalar", "matrix", "string", 7)
    for shape, result in {
        "null": None, "numbers": [1, 2, 3], "text": "value", "texts": ["value", "metric"],
        "no labels": [{"value": [1, "2"]}], "labels that are a list": [{"metric": [], "value": [1, "2"]}],
        "labels that are numbers": [{"metric": {"instance": 1}, "value": [1, "2"]}],
        "no pair": [{"metric": {}, "value": 3}], "empty pair": [{"metric": {}, "value": []}],
        "values that are a number": [{"metric": {}, "values": 3}],
        "points of one": [{"metric": {}, "values": [[1], [2]]}],
        "times that are text": [{"metric": {}, "values": [["soon", "3"]]}],
        "times beyond all": [{"metric": {}, "values": [[1e308, "3"], ["1e999", "3"], [-1e308, "1"]]}],
        "a huge list": [1] * 100_000,
    }.items()
}  # fmt: skip


class Says:
    """An HTTP client to which everybody says the same; Prometheus' clock may be left right."""

    def __init__(self, body, *, keeps_time=False):
        self.body, self.keeps_time = body, keeps_time

    def request(self, method, url, *, timeout_s, form=None, **_):
        if self.keeps_time and form == {"query": "time()"}:
            return Reply(200, prometheus_says("scalar", [1e6, "1e6"]))
        return Reply(200, self.body)

    def get(self, url, **keys):
        return self.request("GET", url, **keys)

    def close(self):
        pass


PROMETHEUS = {"prometheus_url": "http://localhost:1"}
SOURCES = {
    "query": (PROMETHEUS, True),
    "time()": (PROMETHEUS, False),
    "own query": ({**PROMETHEUS, "metric_queries": '{"requests": "x"}'}, True),
    "discovery": ({"scrape_discovery_url": "http://localhost:1/sd"}, False),
    "page": ({"scrape_prefill": ["http://localhost:1"], "scrape_decode": ["http://localhost:2"]}, False),
}


def source_that_says(name, body):
    keys, keeps_time = SOURCES[name]
    source = make_source(LiveConfig(**keys), "prefill", AutoscalerConfig())
    source.reader._http.close()
    source.reader._http = Says(body, keeps_time=keeps_time)
    return source


def nothing_unforeseen(name, body):
    source = source_that_says(name, body)
    ready = {"prefill": 3, "decode": 3}
    try:
        source.prime()
        for _ in range(2):
            metrics, _ = source.collect(60.0, ready)
            source.look(5.0, ready)
            assert all("unforeseen" not in problem.text for problem in metrics.problems), metrics.problems
            assert all("\n" not in problem.text and len(problem.text) < 1000 for problem in metrics.problems)
            assert not metrics.usable or metrics.values.get("requests") is not None
        with contextlib.suppress(SagescaleError):
            source.history(60.0, 10)
    finally:
        source.close()


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("body", (HOSTILE | SHAPES).values(), ids=HOSTILE | SHAPES)
def test_a_malformed_answer_is_named(name, body):
    nothing_unforeseen(name, body)


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=50)
@given(document=ANYTHING)
def test_any_json_is_an_answer(name, document):
    nothing_unforeseen(name, json.dumps(document).encode())


@pytest.mark.parametrize("name", ["query", "own query"])
@given(kind=st.sampled_from(["vector", "scalar", "matrix"]), result=ANYTHING)
def test_any_json_is_a_result(name, kind, result):
    nothing_unforeseen(name, prometheus_says(kind, result))


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_malformed_state_is_named(body):
    with pytest.raises(ActuatorError) as refused:
        parse_pool_states(body, "here")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("count", [10**19, 100_001, -1, 1.5, True, "3", None, [3], 1e300, float("nan")])
def test_a_count_that_no_pool_has_is_refused(count):
    with pytest.raises(ActuatorError, match="expected integers from 0 to 100000"):
        pool_states({"prefill": {"ready": 1}, "decode": {"ready": 1, "starting": count}}, "here")


@given(ANYTHING)
def test_any_object_is_a_state_or_refused(document):
    try:
        states = pool_states(document, "here")
    except ActuatorError:
        return
    assert all(0 <= count <= 400_000 for count in states.asked)
