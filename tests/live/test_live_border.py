"""Whatever a source answers, it is read or named: no answer ends the planner or makes a pool smaller."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_world import LiveWorld
from sagescale.errors import InputError, SagescaleError
from sagescale.live.actuators.protocol import ActuatorError, parse_pool_states, pool_states
from sagescale.live.config import LiveConfig
from sagescale.live.exporter import Exporter
from sagescale.live.http import Reply
from sagescale.live.journal import read_journal
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
        "a huge list": [1] * 20_000,
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
    source.reader._http = Says(body, keeps_time=keeps_time)
    return source


def nothing_unforeseen(name, body):
    source = source_that_says(name, body)
    try:
        source.prime()
        for _ in range(2):
            metrics, _ = source.collect(60.0)
            source.collect_burst(5.0)
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


# --- the loop ---------------------------------------------------------------------------------------

FAILURES = {
    "ZeroDivisionError": ZeroDivisionError("division by zero"),
    "RecursionError": RecursionError("maximum recursion depth exceeded"),
    "MemoryError": MemoryError(),
    "KeyError": KeyError("evil \x1b[2J\n" + "x" * 100_000),
    "OverflowError": OverflowError("int too large to convert to float"),
    "UnicodeEncodeError": UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    "InputError": InputError("token.txt: there is no such file"),
}
PARTS = {
    "metrics": ("load", "collect"),
    "a look": ("load", "collect_burst"),
    "getting ready": ("load", "prime"),
    "history": ("load", "history"),
    "reading the pools": ("pools", "states"),
    "setting the pools": ("pools", "carry_out"),
    "closing": ("pools", "close"),
    "deciding": ("loop.planner", "step"),
    "looking": ("loop.planner", "check"),
    "taking a goal": ("loop.mover", "begin"),
    "writing": ("journal", "add_tick"),
    "a watcher of ticks": ("log", "ticked"),
    "a watcher of events": ("log", "happened"),
}


def breaking(monkeypatch, world, part, error, *, until_tick=6):
    """Let a part of the loop fail from the third tick on, and be well again later."""
    place, name = PARTS[part]
    owner = operator.attrgetter(place)(world)
    well = getattr(owner, name)

    def fails(*given, **named):
        if world.at_start or 3 <= world.loop.ticks < until_tick:
            raise error
        return well(*given, **named)

    monkeypatch.setattr(owner, name, fails)


def rising(world):
    """Have the load double while parts fail."""
    sizes = []

    def on_wait(_):
        if 3 <= world.loop.ticks < 6:
            sizes.append(world.pools.sizes)
        world.load.requests = 1200.0 if world.loop.ticks < 4 else 2400.0

    world.clock.on_wait = on_wait
    return sizes


@functools.cache
def untroubled(policy):
    world = LiveWorld(policy=policy)
    rising(world)
    world.loop.run(ticks=12)
    return world.pools.sizes


@pytest.mark.parametrize("policy", ["classic", "slo"])
@pytest.mark.parametrize("error", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("part", PARTS)
def test_whatever_fails_the_loop_goes_on_and_no_pool_shrinks(monkeypatch, tmp_path, part, error, policy):
    world = LiveWorld(path=tmp_path / "j", policy=policy)
    world.at_start = part in {"getting ready", "history", "a watcher of events"}
    exporter = Exporter(world.config, world.journal, dry_run=False)
    world.loop._watchers = (world.log, exporter)
    sizes = rising(world)
    breaking(monkeypatch, world, part, error)
    world.loop.run(ticks=12)
    assert world.loop.ticks == 12
    if policy != "slo":
        assert world.pools.sizes == untroubled(policy)
    elif part != "metrics":  # whose memory of errors lacks the step that it did not see
        # What was asked for to catch up, or a step later, is kept for some minutes.
        assert tuple(world.pools.sizes) == pytest.approx(tuple(untroubled(policy)), abs=1)
    for before, after in itertools.pairwise(sizes):
        assert after.prefill >= before.prefill
        assert after.decode >= before.decode
    counted = exporter.registry.get_sample_value("sagescale_loop_failures_total")
    _, events = read_journal(tmp_path / "j")
    told = [event for event in events if event.kind == "loop_failed"]
    foreseen = isinstance(error, InputError) and part in {"reading the pools", "setting the pools", "history"}
    if foreseen or part == "closing" or (part in {"a look", "looking"} and policy == "classic"):
        return
    if part.startswith("a watcher") and isinstance(error, ValueError):
        return  # its output is gone
    assert counted
    assert len(told) >= counted
    for event in told:
        assert type(error).__name__ in event.text
        assert event.text.isprintable()
        assert len(event.text) < 500
        assert event.detail["at"]


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_whoever_stops_the_loop_stops_it_in_order(monkeypatch, tmp_path, end):
    world = LiveWorld(path=tmp_path / "j")
    world.at_start = False
    breaking(monkeypatch, world, "deciding", end())
    with pytest.raises(end):
        world.loop.run(ticks=12)
    assert world.loop.ticks == 3
    assert world.log.kinds()[-1] == "stopped"


def test_once_says_in_one_line_that_nothing_could_be_decided(monkeypatch):
    world = LiveWorld()
    monkeypatch.setattr(world.loop, "_conclude", lambda *_, **__: 1 / 0)
    with pytest.raises(SagescaleError, match="nothing could be decided: tick 0 failed: ZeroDivisionError"):
        world.loop.run_once()


def test_a_planner_that_fails_for_ever_goes_up_to_the_floor(monkeypatch):
    world = LiveWorld(live={"no_data_timeout_s": 300.0, "safe_floor_prefill": 5, "safe_floor_decode": 4})
    world.at_start = False
    breaking(monkeypatch, world, "deciding", ZeroDivisionError(), until_tick=1000)
    world.loop.run(ticks=10)
    assert world.pools.sizes == (5, 4)
    assert world.log.kinds().count("loop_failed") == 8


def test_a_record_that_the_planner_fails_on_costs_only_itself(monkeypatch, tmp_path):
    world = LiveWorld(path=tmp_path / "j")
    world.loop.run(ticks=6)
    loop = world.new_loop()
    well, shown = loop.planner.step, []

    def step(observation):
        shown.append(observation)
        if len(shown) == 3:
            raise ValueError("isl must be a number above 0, not -800.0")
        return well(observation)

    monkeypatch.setattr(loop.planner, "step", step)
    world.loop = loop
    loop.start()
    assert len(shown) >= 6
    assert "resumed" in world.log.kinds()
    assert "replaying 1 of 6 records, the first of them 3, failed" in world.log.events[-2].text
