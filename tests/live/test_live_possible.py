"""What the numbers of a window mean: none that cannot be true reaches the planner, or shrinks a pool."""

from __future__ import annotations

import math
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_server import prometheus, serving
from live_world import LiveWorld
from sagescale.errors import InputError
from sagescale.live.actuators.make import DryRun
from sagescale.live.config import IN_FLIGHT_FIELDS, QUERY_FIELDS, LiveConfig
from sagescale.live.doctor import check
from sagescale.live.metrics.matchers import parse_matchers
from sagescale.live.metrics.observe import NEEDS, Observer, Targets
from sagescale.live.metrics.possible import CONTRADICTIONS, RANGES, Evidence, keep_possible
from sagescale.live.metrics.presets import PRESETS
from sagescale.live.metrics.promql import expand, group_matchers, window_query
from sagescale.live.metrics.scrape import parse_page
from sagescale.live.metrics.source import make_source
from sagescale.live.metrics.window import RawWindow, SeriesWindow
from sagescale.live.tick_text import tick_text
from sagescale.perf import ProfileModel, load_profile
from sagescale.planner import AutoscalerConfig, Observation, Planner, PoolCounts, Pools
from sagescale.planner.observation import read_window

VLLM = PRESETS["vllm"]
DYNAMO = PRESETS["dynamo"]
PROMETHEUS = "http://localhost:9090"

ONE_EACH = Pools(PoolCounts(1), PoolCounts(1))


def codes(metrics):
    return {problem.code for problem in metrics.problems}


# --- a window's numbers ------------------------------------------------------------------------------


def engine(role, instances=2, completed=300.0, running=10.0, osl=200.0):
    """A steady window of one pool; ``completed`` by each instance, lengths 800 and ``osl``."""
    found = SeriesWindow()
    names = [f"{role}-{at}" for at in range(instances)]

    def put(kind, metric, value):
        getattr(found, kind)[f"vllm:{metric}"] = dict.fromkeys(names, value)

    put("increases", "request_success_total", completed)
    put("increases", "prompt_tokens_total", 800.0 * completed)
    put("increases", "generation_tokens_total", osl * completed)
    for name, mean in (
        ("request_prompt_tokens", 800.0), ("request_generation_tokens", osl),
        ("time_to_first_token_seconds", 0.08), ("e2e_request_latency_seconds", 2.0),
        ("request_time_per_output_token_seconds", 0.01), ("prefix_cache", 0.25),
    ):  # fmt: skip
        put("increases", f"{name}_sum", mean * completed)
        put("increases", f"{name}_count", completed)
    put("increases", "prefix_cache_hits_total", 200.0 * completed)
    put("increases", "prefix_cache_queries_total", 800.0 * completed)
    for kind in ("before", "last", "now"):
        put(kind, "num_requests_running", running)
        put(kind, "num_requests_waiting", 0.0)
        put(kind, "kv_cache_usage_perc", 0.3)
    return found


def steady(**decode):
    return {"prefill": engine("prefill", osl=1.0, running=1.0), "decode": engine("decode", **decode)}


def seen(groups, own=None, own_before=None, preset=VLLM):
    raw = RawWindow(60.0, groups, own or {}, (), own_before or {})
    observer = Observer(preset, "prefill", Targets(200.0, 50.0))
    return observer.observe(raw)


def test_a_steady_window_is_believed():
    metrics = seen(steady())
    assert metrics.problems == ()
    expected = {"requests": 600.0, "isl_mean": 800.0, "osl_mean": 200.0, "kv_usage": 0.3,
                "prefix_hit_rate": 0.25}  # fmt: skip
    assert {name: metrics.values[name] for name in expected} == pytest.approx(expected)


LIES = {
    "requests run below zero": ("decode", "now", "vllm:num_requests_running", -15.0),
    "one of them at the window's start": ("prefill", "before", "vllm:num_requests_running", -15.0),
    "fewer than none wait": ("prefill", "now", "vllm:num_requests_waiting", -1.0),
    "a counter grew by less than nothing": ("prefill", "increases", "vllm:request_success_total", -300.0),
    "outputs 700 times too short": ("decode", "increases", "vllm:request_generation_tokens_sum", 85.7),
    "outputs 20 times too short": ("decode", "increases", "vllm:request_generation_tokens_sum", 3000.0),
    "prompts 20 times too long": ("prefill", "increases", "vllm:request_prompt_tokens_sum", 4.8e6),
    "prompts of no tokens": ("prefill", "increases", "vllm:request_prompt_tokens_sum", 0.0),
    "far more completed than arrived": ("decode", "increases", "vllm:request_success_total", 9000.0),
    "far fewer arrived than reached decode": ("prefill", "increases", "vllm:request_success_total", 3.0),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_window_that_contradicts_itself_is_unknown(lie):
    role, kind, metric, value = lie
    groups = steady()
    getattr(groups[role], kind)[metric] = dict.fromkeys(getattr(groups[role], kind)[metric], value)
    metrics = seen(groups)
    assert codes(metrics) & {"invalid_metric", "inconsistent"}
    assert not metrics.usable


OWN_LIES = {
    "no requests": {"requests": 0.0}, "below zero": {"requests": -40.0}, "absurdly many": {"requests": 1e30},
    "prompts of nothing": {"isl_mean": 0.0}, "outputs of nothing": {"osl_mean": 0.0},
    "outputs below a token": {"osl_mean": 0.3}, "outputs that tokens deny": {"osl_mean": 4.0},
    "below zero in the queue": {"queued_prefill": -1.0},
    "a gateway that sheds less than nothing": {"requests_shed": -5.0},
}  # fmt: skip


@pytest.mark.parametrize("own", OWN_LIES.values(), ids=OWN_LIES)
def test_queries_of_ones_own_are_held_to_the_same_rules(own):
    metrics = seen(steady(), own)
    assert not metrics.usable
    assert codes(metrics) & {"invalid_metric", "inconsistent"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("kv_usage", 1.7), ("kv_usage", -0.2), ("prefix_hit_rate", 2.0), ("ttft_attainment", 1.5),
     ("itl_attainment", -0.5), ("ttft_ms_mean", -3.0), ("ttft_ms_p99", 1e12), ("itl_ms_mean", 1e9),
     ("duration_s_mean", -1.0)],
)  # fmt: skip
def test_what_the_load_is_not_made_of_is_unknown_by_itself(name, value):
    metrics = seen(steady(), {name: value})
    assert codes(metrics) == {"invalid_metric"}
    assert metrics.values[name] is None
    assert metrics.usable


def test_honest_traffic_is_not_suspected():
    """Overload, a beginning, an end, outputs of one token, long requests under way: all of it happens."""
    overload = steady()
    for kind in ("now", "last"):
        getattr(overload["prefill"], kind)["vllm:num_requests_waiting"] = {"prefill-0": 4e4, "prefill-1": 4e4}
    overload["prefill"].increases["vllm:request_success_total"] = {"prefill-0": 9.0, "prefill-1": 9.0}
    beginning = {
        "prefill": engine("prefill", osl=1.0, running=1.0),
        "decode": engine("decode", completed=0.0, running=250.0),
    }
    beginning["decode"].before["vllm:num_requests_running"] = {"decode-0": 0.0, "decode-1": 0.0}
    beginning["decode"].increases["vllm:generation_tokens_total"] = {"decode-0": 9e5, "decode-1": 9e5}
    # The first to end are the shortest, while tokens of all count.
    first = steady(completed=15.0, running=285.0, osl=3.0)
    first["decode"].increases["vllm:generation_tokens_total"] = {"decode-0": 5e5, "decode-1": 5e5}
    ending = {
        "prefill": engine("prefill", completed=0.0, running=0.0),
        "decode": engine("decode", completed=250.0, running=0.0),
    }
    ending["decode"].before["vllm:num_requests_running"] = {"decode-0": 250.0, "decode-1": 250.0}
    draining = {
        "prefill": engine("prefill", completed=250.0, osl=1.0, running=0.0),
        "decode": engine("decode", completed=250.0, running=9.0),
    }
    draining["prefill"].before["vllm:num_requests_waiting"] = {"prefill-0": 250.0, "prefill-1": 250.0}
    one_token = {
        "prefill": engine("prefill", osl=1.0, running=1.0),
        "decode": engine("decode", osl=1.0, running=1.0),
    }
    for groups in (overload, beginning, first, ending, draining, one_token):
        metrics = seen(groups)
        assert metrics.problems == ()
        assert metrics.usable


NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, -15.0, 0.3, 1.7, 1e-9, 1e12, -1e300, 1e300, 20.0, 600.0]),
    st.floats(-10.0, 1000.0),
)
METRICS = (*VLLM.counters(), *VLLM.gauges())


@st.composite
def any_group(draw, role):
    found = SeriesWindow() if draw(st.booleans()) else engine(role)
    for kind, names in (("increases", VLLM.counters()), ("now", VLLM.gauges()), ("last", VLLM.gauges()),
                        ("before", VLLM.gauges())):  # fmt: skip
        for name in draw(st.lists(st.sampled_from(names), max_size=4)):
            values = draw(st.dictionaries(st.sampled_from([f"{role}-0", f"{role}-1"]), NUMBERS, min_size=1))
            getattr(found, kind)[name] = values
    for name in draw(st.lists(st.sampled_from(VLLM.histograms()), max_size=2)):
        found.buckets[name] = {0.1: draw(NUMBERS), 0.2: draw(NUMBERS), math.inf: draw(NUMBERS)}
    return found


any_window = st.builds(
    lambda prefill, decode, own, before: RawWindow(
        60.0, {"prefill": prefill, "decode": decode}, own, (), before
    ),
    any_group("prefill"),
    any_group("decode"),
    st.dictionaries(st.sampled_from(QUERY_FIELDS), st.none() | NUMBERS, max_size=4),
    st.dictionaries(st.sampled_from(sorted(IN_FLIGHT_FIELDS)), st.none() | NUMBERS, max_size=2),
)


@settings(deadline=None)
@given(any_window)
def test_no_observation_made_of_any_numbers_breaks_a_rule(raw):
    metrics = Observer(VLLM, "prefill", Targets(200.0, 50.0)).observe(raw)
    for name, may_be in RANGES.items():
        value = metrics.values.get(name)
        # A gateway's share of them comes on top of a count that was possible.
        most = 4 * may_be.high if name in {"requests", "queued_prefill"} else may_be.high
        assert value is None or may_be.low <= value <= most
        assert not (may_be.of_nothing and value == 0.0)
    Observation(0.0, 60.0, ONE_EACH, lengths=metrics.lengths, **metrics.values)


MAYBE = st.none() | st.floats(0.0, 1e6)


@given(
    st.dictionaries(st.sampled_from(sorted(RANGES)), NUMBERS),
    st.builds(
        Evidence, MAYBE, MAYBE, MAYBE, MAYBE,
        st.dictionaries(st.sampled_from(["isl_mean", "osl_mean"]), st.floats(0.0, 1e6)),
    ),
)  # fmt: skip
def test_what_is_kept_contradicts_nothing_and_what_is_not_is_said(values, also):
    kept, problems = dict(values), []
    keep_possible(kept, also, problems)
    assert all(rule.says(kept, also) is None for rule in CONTRADICTIONS)
    lost = {name for name, value in values.items() if kept[name] is None and abs(value) > 0.01}
    assert bool(lost) <= bool(problems)
    if not problems:
        expected = {name: value if abs(value) > 0.01 else kept[name] for name, value in values.items()}
        assert kept == pytest.approx(expected, abs=3.0)


@settings(deadline=None, max_examples=30)
@given(any_window)
def test_no_impossible_window_makes_a_pool_smaller(raw):
    world = LiveWorld()
    world.load.requests = 6000.0
    world.loop.start()
    world.ticks(3)
    sizes = world.pools.sizes
    metrics = Observer(VLLM, "prefill", Targets(200.0, 50.0)).observe(raw)
    world.load.collect = lambda window_s, ready, late_s=0.0: (metrics, window_s)
    world.ticks(3, start=4)
    if codes(metrics) & {"invalid_metric", "inconsistent", "no_series", "not_a_number"}:
        assert all(after >= before for after, before in zip(world.pools.sizes, sizes, strict=True))


@settings(deadline=None)
@given(st.floats(0.0, 1.0), st.floats(1.0, 1e5))
def test_of_any_prompt_and_hit_rate_a_token_at_least_is_computed(rate, isl):
    seen = Observation(60.0, 60.0, ONE_EACH, requests=60.0, isl_mean=isl, osl_mean=20.0,
                       prefix_hit_rate=rate)  # fmt: skip
    computed = read_window(seen, 60.0, []).computed_isl
    assert 1.0 <= computed <= isl


@pytest.mark.parametrize("rate", [1.0, 2.0, -0.5, math.nan, 0.999999])
def test_a_whole_hit_rate_does_not_end_the_planner(rate):
    model = ProfileModel(load_profile("h200-llama-3.1-8b-fp8"))
    planner = Planner(AutoscalerConfig(enable_online_learning=True), model)
    for tick in range(1, 5):
        planner.step(
            Observation(60.0 * tick, 60.0, ONE_EACH, requests=600.0, completed=600.0,
                        isl_mean=800.0, osl_mean=200.0, ttft_ms_mean=80.0, itl_ms_mean=10.0,
                        duration_s_mean=2.0, queued_prefill=0.0, prefix_hit_rate=rate)
        )  # fmt: skip


# --- ranks -------------------------------------------------------------------------------------------


def test_of_ranks_shares_are_averaged_and_counts_added_by_scraping():
    lines = [
        f'{name}{{dp_rank="{rank}"}} {value}'
        for rank, (usage, hits) in enumerate([(0.1, 0.2), (0.3, 0.4), (0.5, 0.6), (0.3, 0.8)])
        for name, value in (
            ("sglang:token_usage", usage), ("sglang:cache_hit_rate", hits), ("sglang:num_running_reqs", 5)
        )
    ]  # fmt: skip
    preset = PRESETS["sglang"]
    page = parse_page(
        "\n".join(lines) + "\n", "a", "instance", frozenset(preset.gauges()), {},
        ratios=frozenset(preset.ratios()),
    )  # fmt: skip
    expected = {"sglang:token_usage": 0.3, "sglang:cache_hit_rate": 0.5, "sglang:num_running_reqs": 20.0}
    assert {name: page.values[name, "a"] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("preset", [preset for preset in PRESETS.values() if preset.ratios()])
def test_of_ranks_shares_are_averaged_and_counts_added_by_prometheus(preset):
    for part in window_query(preset, "", "instance", 60.0).split(" or label_replace("):
        shares = any(f"{name}{{" in part for name in preset.ratios())
        assert ("avg by (" in part) == shares, part


# --- queries of one's own, for what a preset lacks -------------------------------------------------------

OTHER_NAMES = {"requests": 640.0, "isl_mean": 800.0, "osl_mean": 200.0}


def test_queries_for_what_is_needed_make_the_presets_series_dispensable():
    none = {"prefill": SeriesWindow(), "decode": SeriesWindow()}
    metrics = seen(none, OTHER_NAMES)
    assert metrics.problems == ()
    assert metrics.values["requests"] == 640.0
    for name in OTHER_NAMES:
        assert "no_series" in codes(seen(none, {key: OTHER_NAMES[key] for key in OTHER_NAMES if key != name}))
    assert sorted(NEEDS["frontend"]) == sorted(OTHER_NAMES)


def test_five_names_of_an_engine_and_queries_for_the_rest_are_enough():
    def five(name):
        found = SeriesWindow()
        found.increases = {
            "trtllm_request_success_total": {name: 640.0},
            "trtllm_time_to_first_token_seconds_sum": {name: 64.0},
            "trtllm_time_to_first_token_seconds_count": {name: 640.0},
        }
        return found

    metrics = seen({"prefill": five("p"), "decode": five("d")}, OTHER_NAMES, preset=PRESETS["trtllm"])
    assert metrics.problems == ()
    assert metrics.values["requests"] == 640.0
    assert metrics.values["ttft_ms_mean"] == pytest.approx(100.0)


def test_a_query_for_the_load_that_gives_nothing_is_a_problem():
    metrics = seen({"prefill": SeriesWindow(), "decode": SeriesWindow()}, OTHER_NAMES | {"requests": None})
    assert not metrics.usable
    assert "no_series" in codes(metrics)


def test_queries_may_say_how_many_instances_there_are():
    counts = {"instances_prefill": 5.0, "instances_decode": 7.0}
    metrics = seen({"prefill": SeriesWindow(), "decode": SeriesWindow()}, OTHER_NAMES | counts)
    assert {pool: found.counted for pool, found in metrics.reporting.items()} == {"prefill": 5, "decode": 7}
    assert not metrics.values.keys() & counts.keys()


# --- what a gateway keeps out -----------------------------------------------------------------------


def test_what_a_gateway_sheds_or_queues_is_load_and_did_not_reach_the_pools():
    metrics = seen(
        steady(),
        {"requests_shed": 300.0, "requests_queued_gateway": 150.0},
        {"requests_queued_gateway": 50.0},
    )
    assert metrics.problems == ()
    assert metrics.values["requests"] == pytest.approx(1000.0)
    assert metrics.values["requests_unserved"] == pytest.approx(400.0)
    assert metrics.values["queued_prefill"] == pytest.approx(150.0)
    window = read_window(Observation(60.0, 30.0, ONE_EACH, **metrics.values), 60.0, [])
    assert (window.requests, window.reached) == pytest.approx((2000.0, 1200.0))


@pytest.mark.parametrize(
    ("own", "before"),
    [({"requests_shed": None}, {}), ({"requests_queued_gateway": None}, {"requests_queued_gateway": 5.0}),
     ({"requests_queued_gateway": 5.0}, {"requests_queued_gateway": None})],
)  # fmt: skip
def test_a_gateway_that_says_nothing_makes_the_load_unknown(own, before):
    metrics = seen(steady(), own, before)
    assert not metrics.usable
    assert metrics.problems


@pytest.mark.parametrize("policy", ["classic", "slo"])
def test_load_that_never_reaches_the_pools_makes_them_grow(policy):
    def sizes(own):
        world = LiveWorld(policy=policy, fast_interval_sec=0)
        metrics = seen(steady(), own)
        world.load.collect = lambda window_s, ready, late_s=0.0: (metrics, window_s)
        world.loop.start()
        world.ticks(6)
        kept_out = "2400 of them reached no pool: a gateway" in tick_text(world.log.records[-1])
        assert kept_out == bool(own)
        return world.pools.sizes

    plain, shed = sizes({}), sizes({"requests_shed": 2400.0})
    assert all(more > less for more, less in zip(shed, plain, strict=True))


def test_what_a_gateway_queues_is_asked_for_at_both_ends_of_the_window():
    with serving() as server:

        def answer(request):
            found = {"status": "success", "data": {"resultType": "vector", "result": []}}
            if b"gateway_queue" in request["body"]:
                at_s = next(float(part[5:]) for part in request["body"].split(b"&") if part[:5] == b"time=")
                found["data"]["result"] = [{"metric": {}, "value": [at_s, "90" if at_s > 470.0 else "40"]}]
            return (200, found, {})

        server.answers["/api/v1/query"] = prometheus(answer, now_s=500.0)
        live = LiveConfig(
            prometheus_url=server.url, metric_queries={"requests_queued_gateway": "sum(gateway_queue)"}
        )
        source = make_source(live, "prefill")
        raw = source.reader.read(VLLM, 60.0)
        source.close()
    assert raw.own == {"requests_queued_gateway": 90.0}
    assert raw.own_before == {"requests_queued_gateway": 40.0}


# --- dialects ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "queue"),
    [("prefill", "num_prefill_prealloc_queue_reqs"), ("prefill", "num_prefill_bootstrap_queue_reqs"),
     ("prefill", "num_prefill_inflight_queue_reqs"), ("decode", "num_decode_prealloc_queue_reqs"),
     ("decode", "num_decode_transfer_queue_reqs")],
)  # fmt: skip
def test_sglangs_queues_between_the_pools_count_as_waiting(role, queue):
    groups = {}
    for pool in ("prefill", "decode"):
        found = SeriesWindow()
        found.increases = {
            "sglang:num_requests_total": {pool: 600.0},
            "sglang:prompt_tokens_total": {pool: 480_000.0},
            "sglang:generation_tokens_total": {pool: 120_000.0},
        }
        for kind in (found.before, found.last, found.now):
            kind["sglang:num_running_reqs"] = {pool: 5.0}
            kind["sglang:num_queue_reqs"] = {pool: 0.0}
        groups[pool] = found
    groups[role].before[f"sglang:{queue}"] = {role: 0.0}
    for kind in (groups[role].last, groups[role].now):
        kind[f"sglang:{queue}"] = {role: 360.0}
    metrics = seen(groups, preset=PRESETS["sglang"])
    assert metrics.problems == ()
    assert metrics.values[f"queued_{role}"] == 360.0
    assert metrics.values["requests"] == (960.0 if role == "prefill" else 600.0)


def frontend(started):
    found = SeriesWindow()
    found.increases = {"dynamo_frontend_requests_total": {"f": 600.0}}
    if started:
        found.increases["dynamo_frontend_requests_started_total"] = {"f": 690.0}
    for kind, under_way in ((found.before, 10.0), (found.last, 100.0), (found.now, 100.0)):
        kind["dynamo_frontend_inflight_requests"] = {"f": under_way}
        kind["dynamo_frontend_queued_requests"] = {"f": under_way - 5.0}
    return {"frontend": found}


@pytest.mark.parametrize("started", [True, False])
def test_dynamos_arrivals_are_known_without_a_counter_of_them(started):
    """What waits is part of what is in flight there: it must not count twice."""
    metrics = seen(frontend(started), preset=DYNAMO)
    assert metrics.problems == ()
    assert metrics.values["requests"] == 690.0


PAGE = """dynamo_frontend_requests_total{{model="{model}"}} {done}
dynamo_frontend_inflight_requests{{model="{model}"}} 4
dynamo_frontend_queued_requests{{model="{model}"}} 1
"""


def test_the_check_names_dynamos_missing_counter_and_a_lower_cased_model_is_found():
    with serving() as server:
        live = LiveConfig(
            scrape_prefill=[f"{server.url}/f"], metrics_preset="dynamo", model_name="Acme/Acme-8B"
        )
        source = make_source(live, "prefill")
        server.answers["/f"] = (200, PAGE.format(model="acme/acme-8b", done=100).encode(), {})
        source.prime()
        server.answers["/f"] = (200, PAGE.format(model="acme/acme-8b", done=160).encode(), {})
        found = check(source, DryRun(), 60.0)
        source.close()
    said = "\n".join(finding.what for finding in found)
    assert "none of dynamo_frontend_requests_started_total" in said
    assert "requests = 60.00" in said


def test_a_model_is_matched_in_any_case_where_the_exporter_may_lower_it():
    live = LiveConfig(prometheus_url=PROMETHEUS, model_name="Acme/Acme.8B", namespace="ns")
    assert 'model=~"(?i)Acme/Acme\\\\.8B"' in group_matchers(live, DYNAMO)["frontend"]
    assert 'model_name="Acme/Acme.8B"' in group_matchers(live, VLLM)["prefill"]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_preset_says_against_what_it_was_checked(preset):
    assert preset.checked
    assert all((preset.completed, preset.running, preset.waiting))


# --- matchers ---------------------------------------------------------------------------------------

LABEL_VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(LABEL_VALUES, LABEL_VALUES)
def test_whatever_a_model_is_called_its_matchers_are_read_back(model, cluster):
    quoted = cluster.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    live = LiveConfig(prometheus_url=PROMETHEUS, model_name=model, extra_matchers=f'cluster="{quoted}"')
    written = group_matchers(live, VLLM)["prefill"]
    assert [one.label for one in parse_matchers(written)] == ["job", "model_name", "cluster"]
    query = window_query(VLLM, written, "instance", 60.0)
    cpu = query[query.index("process_cpu_seconds_total{") :]
    assert cpu.startswith(f'process_cpu_seconds_total{{job=~".*prefill.*",cluster="{quoted}"}}')
    assert 'model_name="' in expand("$matchers", live, VLLM, 60.0)


@pytest.mark.parametrize("text", ["", " ", '{a="b"}', 'a="b",', "a=~'x,y' , b!=`z`", 'a="\\",b="', 'a!~"}"'])
def test_extra_matchers_are_label_matchers(text):
    LiveConfig(extra_matchers=text)


@pytest.mark.parametrize(
    "text",
    ["prod", "a=b", 'a="b" b="c"', 'a="b"} or up{', 'a="b', '1a="b"', ',a="b"', 'a=="b"', 'a="b",,c="d"'],
)
def test_extra_matchers_that_are_none_are_refused_by_name(text):
    with pytest.raises(InputError, match=r"extra_matchers is .* expected label matchers"):
        LiveConfig(extra_matchers=text)


# --- history ----------------------------------------------------------------------------------------


def test_history_is_read_with_ones_own_queries_and_held_to_the_same_rules():
    series = {
        "mine": [600.0, 600.0, -50.0, 600.0, 600.0], "lengths": [800.0, 800.0, 800.0, 0.0, 1e30],
        "shed": [0.0, 40.0, 0.0, 0.0, 0.0], "queue": [0.0, 100.0, 100.0, 100.0, 100.0],
    }  # fmt: skip

    def answer(request):
        form = dict(parse_qsl(request["body"].decode()))
        values = series.get(form["query"], [200.0] * 5)
        start_s = float(form["start"])
        points = [[start_s + 60.0 * at, str(value)] for at, value in enumerate(values)]
        data = {"resultType": "matrix", "result": [{"metric": {}, "values": points}]}
        return (200, {"status": "success", "data": data}, {})

    no_samples = {"status": "success", "data": {"resultType": "matrix", "result": []}}
    with serving() as server:
        server.answers["/api/v1/query"] = prometheus((200, no_samples, {}), now_s=500.0)
        server.answers["/api/v1/query_range"] = answer
        own = {
            "requests": "mine", "isl_mean": "lengths", "requests_shed": "shed",
            "requests_queued_gateway": "queue",
        }  # fmt: skip
        source = make_source(LiveConfig(prometheus_url=server.url, metric_queries=own), "prefill")
        past = source.history(60.0, 4)
        source.close()
    assert [window.requests for window in past] == [740.0, None, None, None]
    assert [window.isl for window in past] == [800.0, 800.0, None, None]
