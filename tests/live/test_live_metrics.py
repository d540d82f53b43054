"""From raw series to an observation: what is known, what is not, and what looks wrong."""

from __future__ import annotations

import math
import statistics
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_server import prometheus, serving
from live_world import ToyPools, VirtualClock
from prometheus_client.parser import text_string_to_metric_families
from sagescale.live.config import LiveConfig, MetricQueries
from sagescale.live.doctor import check
from sagescale.live.http import HttpError
from sagescale.live.metrics.matchers import matcher
from sagescale.live.metrics.observe import Observer, Targets
from sagescale.live.metrics.presets import PRESETS
from sagescale.live.metrics.prometheus import PrometheusReader
from sagescale.live.metrics.promql import expand, group_matchers, window_query
from sagescale.live.metrics.scrape import ScrapeReader
from sagescale.live.metrics.source import MetricSource, NoSource, make_source
from sagescale.live.metrics.window import RawWindow, SeriesWindow, bucket_quantile, bucket_share

VLLM = PRESETS["vllm"]


def group(role, completed=10.0, running=(1.0, 1.0), waiting=(0.0, 0.0), tokens=None, instances=("a",)):
    names = [f"{role}-{name}" for name in instances]
    found = SeriesWindow()

    def put(kind, metric, value):
        getattr(found, kind)[metric] = dict.fromkeys(names, value)

    put("increases", "vllm:request_success_total", completed)
    put("increases", "vllm:prompt_tokens_total", completed * 100 if tokens is None else tokens)
    put("increases", "vllm:generation_tokens_total", completed if tokens is None else tokens)
    for name, total in (("request_prompt_tokens", 100.0), ("request_generation_tokens", 20.0)):
        put("increases", f"vllm:{name}_sum", completed * total)
        put("increases", f"vllm:{name}_count", completed)
    for name, total in (("time_to_first_token", 0.05), ("e2e_request_latency", 0.5),
                        ("request_time_per_output_token", 0.01)):  # fmt: skip
        put("increases", f"vllm:{name}_seconds_sum", completed * total)
        put("increases", f"vllm:{name}_seconds_count", completed)
    for metric, (before, now) in (("running", running), ("waiting", waiting)):
        put("before", f"vllm:num_requests_{metric}", before)
        put("now", f"vllm:num_requests_{metric}", now)
        put("last", f"vllm:num_requests_{metric}", now)
    return found


def observe(prefill, decode, observer=None, preset=VLLM):
    observer = observer or Observer(preset)
    raw = RawWindow(60.0, {"prefill": prefill, "decode": decode}, {})
    return observer.observe(raw)


def codes(metrics):
    return {problem.code for problem in metrics.problems}


def test_a_request_in_both_pools_counts_once():
    metrics = observe(group("prefill"), group("decode"))
    assert metrics.values["requests"] == 10.0
    assert metrics.values["completed"] == 10.0
    assert metrics.values["isl_mean"] == 100.0
    assert metrics.values["osl_mean"] == 20.0
    assert metrics.values["ttft_ms_mean"] == pytest.approx(50.0)
    assert metrics.values["itl_ms_mean"] == pytest.approx(10.0)
    assert metrics.values["duration_s_mean"] == pytest.approx(1.0), "prefill, then decode"
    assert not metrics.problems


def test_pools_that_cannot_be_told_apart_are_refused():
    metrics = observe(group("same"), group("same"))
    assert "double_counted" in codes(metrics)
    assert not metrics.usable


def test_an_overload_shows_before_anything_completes():
    metrics = observe(
        group("prefill", completed=10.0, waiting=(0.0, 500.0), running=(4.0, 8.0)), group("decode")
    )
    assert metrics.values["requests"] == 10.0 + 500.0 + 4.0


def test_missing_is_unknown_and_not_zero():
    prefill = group("prefill")
    del prefill.increases["vllm:request_success_total"]
    metrics = observe(prefill, group("decode"))
    assert metrics.values["requests"] is None
    prefill = group("prefill")
    del prefill.increases["vllm:time_to_first_token_seconds_sum"]
    metrics = observe(prefill, group("decode"))
    assert metrics.values["ttft_ms_mean"] is None
    assert metrics.values["requests"] == 10.0


def test_no_traffic_is_an_observed_zero_with_unknown_means():
    idle = {"completed": 0.0, "running": (0.0, 0.0)}
    metrics = observe(group("prefill", **idle), group("decode", **idle))
    assert metrics.values["requests"] == 0.0
    assert metrics.values["isl_mean"] is None
    assert not metrics.problems


def test_an_instance_of_which_counters_are_gone_is_not_complete():
    prefill = group("prefill", instances="abcd")
    for name in ("prefill-c", "prefill-d"):
        del prefill.increases["vllm:request_success_total"][name]
    reports = observe(prefill, group("decode")).reporting["prefill"]
    assert reports.names == {"prefill-a", "prefill-b", "prefill-c", "prefill-d"}
    assert reports.complete == {"prefill-a", "prefill-b"}


def test_values_that_do_not_move_are_frozen_not_idle():
    stuck = {"completed": 0.0, "running": (3.0, 3.0), "tokens": 0.0}
    metrics = observe(group("prefill", **stuck), group("decode", **stuck))
    assert "frozen" in codes(metrics)
    assert metrics.values["requests"] is None
    assert metrics.values["running_decode"] is None


def test_an_exporter_that_uses_no_cpu_is_frozen_even_if_it_seems_idle():
    prefill = group("prefill", completed=0.0, running=(0.0, 0.0))
    prefill.alive_cpu = {"prefill-a": 0.0}
    assert "frozen" in codes(observe(prefill, group("decode", completed=0.0, running=(0.0, 0.0))))


def test_idle_prefill_beside_busy_decode_is_not_believed():
    idle = group("prefill", completed=0.0, running=(0.0, 0.0))
    metrics = observe(idle, group("decode", completed=50.0))
    assert "inconsistent" in codes(metrics)
    assert metrics.values["requests"] is None


def test_a_source_that_has_just_begun_knows_no_load_yet():
    prefill = group("prefill")
    prefill.before = {}
    metrics = observe(prefill, group("decode"))
    assert "window_incomplete" in codes(metrics)
    assert metrics.values["requests"] is None


def test_a_failed_scrape_makes_the_load_a_lower_bound():
    prefill = group("prefill")
    prefill.stale = {"prefill-a"}
    metrics = observe(prefill, group("decode"))
    assert "scrapes_late" in codes(metrics)
    assert metrics.values["requests"] == 10.0


def test_a_restart_makes_the_load_unknown_for_its_window():
    prefill = group("prefill")
    prefill.resets = {"prefill-a"}
    metrics = observe(prefill, group("decode"))
    assert "counter_reset" in codes(metrics)
    assert metrics.values["requests"] is None


def test_first_token_from_decode_adds_the_wait_for_prefill():
    metrics = observe(group("prefill"), group("decode"), Observer(VLLM, "decode"))
    assert metrics.values["ttft_ms_mean"] == pytest.approx(500.0 + 50.0)
    assert metrics.values["ttft_ms_p99"] is None


def test_a_frontend_counts_arrivals_itself():
    found = SeriesWindow()
    found.increases = {
        "dynamo_frontend_requests_started_total": {"f": 70.0},
        "dynamo_frontend_requests_total": {"f": 50.0},
        "dynamo_frontend_input_sequence_tokens_sum": {"f": 5000.0},
        "dynamo_frontend_input_sequence_tokens_count": {"f": 50.0},
    }
    found.now = {"dynamo_frontend_inflight_requests": {"f": 20.0}}
    metrics = Observer(PRESETS["dynamo"]).observe(RawWindow(60.0, {"frontend": found}, {}))
    assert metrics.values["requests"] == 70.0
    assert metrics.values["isl_mean"] == 100.0


def test_sglang_lengths_are_tokens_over_requests_and_transfers_wait():
    sglang = PRESETS["sglang"]
    prefill, decode = SeriesWindow(), SeriesWindow()
    for found, name in ((prefill, "p"), (decode, "d")):
        found.increases = {
            "sglang:num_requests_total": {name: 10.0},
            "sglang:prompt_tokens_total": {name: 1000.0},
            "sglang:generation_tokens_total": {name: 300.0},
        }
        found.now = {"sglang:num_running_reqs": {name: 1.0}, "sglang:num_queue_reqs": {name: 2.0}}
    decode.now["sglang:num_decode_transfer_queue_reqs"] = {"d": 5.0}
    prefill.last = prefill.now
    metrics = observe(prefill, decode, preset=sglang)
    assert metrics.values["isl_mean"] == 100.0
    assert metrics.values["osl_mean"] == 30.0
    assert metrics.values["queued_decode"] == 7.0


@given(st.lists(st.floats(0, 100), min_size=2, max_size=50), st.floats(0.01, 0.99))
def test_a_quantile_of_buckets_lies_in_the_bucket_of_the_true_one(values, q):
    edges = [1.0, 5.0, 10.0, 50.0, math.inf]
    buckets = {edge: float(sum(value <= edge for value in values)) for edge in edges}
    found = bucket_quantile(q, buckets)
    rank = q * len(values)
    true = sorted(values)[max(0, math.ceil(rank) - 1)]
    upper = next(edge for edge in edges if true <= edge)
    if upper == math.inf:
        assert found == 50.0
    else:
        lower = max([0.0, *(edge for edge in edges if edge < upper)])
        assert lower - 1e-9 <= found <= upper + 1e-9


def test_an_empty_histogram_has_no_quantile():
    assert bucket_quantile(0.99, {1.0: 0.0, math.inf: 0.0}) is None
    assert bucket_quantile(0.99, {}) is None


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0, 100))
def test_a_share_of_buckets_lies_between_those_at_its_buckets_ends(values, target):
    edges = [1.0, 5.0, 10.0, 50.0, math.inf]
    buckets = {edge: float(sum(value <= edge for value in values)) for edge in edges}
    found = bucket_share(target, buckets)
    upper = next(edge for edge in edges if target <= edge)
    low = max([0.0, *(buckets[edge] for edge in edges if edge < upper)])
    high = buckets[upper] if upper < math.inf else low
    assert low - 1e-9 <= found * len(values) <= high + 1e-9


def test_an_empty_histogram_has_no_share():
    assert bucket_share(1.0, {1.0: 0.0, math.inf: 0.0}) is None
    assert bucket_share(1.0, {}) is None


# --- attainment and the spread of lengths -----------------------------------------------------------


def with_buckets(found, name, *counts):
    edges = (0.1, 0.2, 0.4, math.inf) if name.endswith("seconds") else (100.0, 200.0, 1000.0, math.inf)
    found.buckets[f"vllm:{name}_bucket"] = dict(zip(edges, counts, strict=True))
    return found


def measured(prefill, decode, preset=VLLM, first_token="prefill"):
    return observe(prefill, decode, Observer(preset, first_token, Targets(300.0, 150.0)), preset=preset)


def test_attainment_is_the_share_of_requests_within_the_target_interpolated_in_its_bucket():
    prefill = with_buckets(group("prefill"), "time_to_first_token_seconds", 2.0, 4.0, 8.0, 10.0)
    decode = with_buckets(group("decode"), "request_time_per_output_token_seconds", 5.0, 10.0, 10.0, 10.0)
    metrics = measured(prefill, decode)
    assert metrics.values["ttft_attainment"] == pytest.approx(0.6)
    assert metrics.values["itl_attainment"] == pytest.approx(0.75)
    assert observe(prefill, decode).values["ttft_attainment"] is None, "no targets are known"


def test_a_histogram_of_tokens_says_nothing_of_requests():
    decode = with_buckets(group("decode"), "inter_token_latency_seconds", 5.0, 10.0, 10.0, 10.0)
    assert measured(group("prefill"), decode).values["itl_attainment"] is None
    for preset in PRESETS.values():
        requests = [mean.total for mean in preset.itl_ms if not mean.per_token]
        assert all("inter_token" not in name for name in requests)


def gaps(decode, means_ms, counts, buckets):
    """Make decode instances count gaps between tokens alone, as vLLM did before 0.11."""
    for end in ("sum", "count"):
        del decode.increases[f"vllm:request_time_per_output_token_seconds_{end}"]
    names = sorted(decode.instances)
    total = "vllm:time_per_output_token_seconds"
    decode.increases[f"{total}_count"] = dict(zip(names, counts, strict=True))
    decode.increases[f"{total}_sum"] = {
        name: mean / 1000.0 * count for name, mean, count in zip(names, means_ms, counts, strict=True)
    }
    return with_buckets(decode, "time_per_output_token_seconds", *buckets)


def test_from_gaps_alone_requests_are_taken_to_have_their_instances_mean():
    # The target is 150 ms: 75 of 100 gaps lie within it by the buckets.
    decode = gaps(group("decode", instances="abcd"), [80, 90, 90, 200], [30, 30, 30, 10], [50, 100, 100, 100])
    metrics = measured(group("prefill"), decode)
    assert metrics.values["itl_attainment"] is None
    assert metrics.values["itl_attainment_estimate"] == pytest.approx(0.9), "those of one instance miss"


def test_no_more_requests_are_taken_to_miss_than_there_are_gaps_above_the_target():
    decode = gaps(group("decode", instances="ab"), [151, 152], [50, 50], [50, 100, 100, 100])
    assert measured(group("prefill"), decode).values["itl_attainment_estimate"] == pytest.approx(0.75)
    within = gaps(group("decode", instances="ab"), [120, 149], [50, 50], [50, 100, 100, 100])
    assert measured(group("prefill"), within).values["itl_attainment_estimate"] == 1.0


def test_nothing_is_estimated_where_requests_are_counted_or_targets_unknown_or_nothing_came():
    decode = with_buckets(group("decode"), "request_time_per_output_token_seconds", 5.0, 10.0, 10.0, 10.0)
    assert measured(group("prefill"), decode).values["itl_attainment_estimate"] is None
    decode = gaps(group("decode"), [120], [50], [50, 50, 50, 50])
    assert observe(group("prefill"), decode).values["itl_attainment_estimate"] is None
    decode = gaps(group("decode"), [120], [0], [0, 0, 0, 0])
    assert measured(group("prefill"), decode).values["itl_attainment_estimate"] is None


def test_a_sum_of_two_times_has_no_attainment():
    prefill = with_buckets(group("prefill"), "time_to_first_token_seconds", 2.0, 4.0, 8.0, 10.0)
    decode = with_buckets(group("decode"), "time_to_first_token_seconds", 2.0, 4.0, 8.0, 10.0)
    assert measured(prefill, decode, first_token="decode").values["ttft_attainment"] is None


def test_lengths_have_the_observed_means_and_the_histograms_spread():
    prefill = with_buckets(group("prefill"), "request_prompt_tokens", 8.0, 9.0, 10.0, 10.0)
    decode = with_buckets(group("decode"), "request_generation_tokens", 10.0, 10.0, 10.0, 10.0)
    lengths = measured(prefill, decode).lengths
    assert len(lengths) == 64
    isl, osl = zip(*lengths, strict=True)
    assert sum(isl) / 64 == pytest.approx(100.0, abs=0.5)
    assert sum(osl) / 64 == pytest.approx(20.0, abs=0.5)
    assert max(isl) > 10 * min(isl)
    assert min(isl) >= 1
    # Which goes with which is independent: prompts in order meet outputs from all over.
    assert abs(statistics.correlation(isl, osl)) < 0.2


def test_lengths_are_unknown_where_an_exporter_has_no_histograms_of_them():
    prefill = with_buckets(group("prefill"), "request_prompt_tokens", 8.0, 9.0, 10.0, 10.0)
    assert measured(prefill, group("decode")).lengths is None
    empty = with_buckets(group("decode", completed=0.0), "request_generation_tokens", 0.0, 0.0, 0.0, 0.0)
    assert measured(prefill, empty).lengths is None
    wanted = {name: PRESETS[name].histograms() for name in PRESETS}
    for name, prompts in (
        ("vllm", "vllm:request_prompt_tokens_bucket"),
        ("sagellm", "vllm:request_prompt_tokens_bucket"),
        ("dynamo", "dynamo_frontend_input_sequence_tokens_bucket"),
    ):
        assert prompts in wanted[name]


# --- PromQL and the Prometheus API ------------------------------------------------------------------


@given(st.text(max_size=30))
def test_label_values_cannot_leave_their_quotes(text):
    written = matcher("model_name", "=", text)
    inside = written.removeprefix('model_name="').removesuffix('"')
    unescaped = inside.replace("\\\\", "")
    assert '"' not in unescaped.replace('\\"', "")
    assert "\n" not in inside


def test_the_guides_namespace_and_model_are_label_matchers():
    live = LiveConfig(prometheus_url="http://localhost:9090", namespace="sagellm", model_name="llama-2-7b")
    found = group_matchers(live, PRESETS["sagellm"])
    assert found["prefill"] == 'job=~".*prefill.*",namespace="sagellm",model="llama-2-7b"'
    query = window_query(PRESETS["sagellm"], found["prefill"], "instance", 60.0)
    assert "last_over_time(vllm:request_success_total{" in query
    assert "[60000ms]" in query


def test_own_queries_have_their_placeholders_filled():
    live = LiveConfig(prometheus_url="http://localhost:9090", model_name='a"b')
    text = expand('sum(increase(my_total{model="$model",$matchers}[$window]))', live, VLLM, 30.0)
    assert text == 'sum(increase(my_total{model="a\\"b",model_name="a\\"b"}[30000ms]))'
    assert MetricQueries.parse('{"requests": "x"}') == MetricQueries((("requests", "x"),))


def vector(*samples):
    result = [{"metric": labels, "value": [1.0, value]} for labels, value in samples]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def test_one_query_a_pool_becomes_series_and_nan_is_unknown():
    with serving() as server:
        found = (
            200,
            vector(
                ({"instance": "a", "sagescale_series": "increase vllm:request_success_total"}, "12"),
                ({"instance": "b", "sagescale_series": "increase vllm:request_success_total"}, "NaN"),
                ({"instance": "a", "sagescale_series": "now vllm:num_requests_running"}, "3"),
                ({"le": "+Inf", "sagescale_series": "bucket vllm:time_to_first_token_seconds_bucket"}, "9"),
                ({"instance": "a", "sagescale_series": "resets vllm:request_success_total"}, "1"),
            ),
            {},
        )
        server.answers["/api/v1/query"] = prometheus(found, now_s=500.0)
        reader = PrometheusReader(LiveConfig(prometheus_url=server.url))
        raw = reader.read(VLLM, 60.0, late_s=2.0)
        reader.close()
        found = raw.groups["prefill"]
        assert found.increases["vllm:request_success_total"] == {"a": 12.0}
        assert found.invalid == {"vllm:request_success_total"}
        assert found.resets == {"a"}
        assert found.buckets["vllm:time_to_first_token_seconds_bucket"] == {math.inf: 9.0}
        assert [server.form(index)["query"] == "time()" for index in range(3)] == [True, False, False]
        first, second = (float(server.form(index)["time"]) for index in (1, 2))
        assert first == second == pytest.approx(500.0 - 2.0, abs=1.0), "by the server's own clock"


def test_a_look_needs_two_scrapes_in_its_window_and_instances_that_were_there_before():
    def collected(scrapes, how, new=False):
        with serving() as server:
            series = [
                ({"instance": "a", "sagescale_series": f"{kind} vllm:{name}"}, value)
                for kind, name, value in (
                    ("increase", "request_success_total", "12"), ("now", "num_requests_running", "3"),
                    ("last", "num_requests_running", "3"), ("before", "num_requests_running", "3"),
                    ("scrapes", "num_requests_running", scrapes),
                )
            ]  # fmt: skip
            if new:
                series += [({**labels, "instance": "b"}, value) for labels, value in series if
                           "before" not in labels["sagescale_series"]]  # fmt: skip
            server.answers["/api/v1/query"] = prometheus((200, vector(*series), {}))
            source = make_source(LiveConfig(prometheus_url=server.url, metrics_preset="vllm"), "prefill")
            # The same instance in both pools would count twice: decode is asked for by another name.
            source.reader.query = only_prefill(source.reader.query)
            metrics, _ = getattr(source, how)(15.0)
            source.close()
            return metrics

    def only_prefill(query):
        return lambda text, *rest: [] if "decode" in text else query(text, *rest)

    assert collected("2", "collect_burst").values["requests"] == 12.0
    assert collected("1", "collect_burst").values == {}
    assert not collected("1", "collect_burst").problems
    assert collected("1", "collect").values != {}
    assert collected("2", "collect_burst", new=True).values == {}
    assert collected("2", "collect", new=True).values["requests"] is not None


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"broken", {}),
        (200, b"<html>", {}),
        (200, {"status": "error", "error": "bad query"}, {}),
        (200, {"status": "success", "data": {"resultType": "matrix", "result": []}}, {}),
        (200, [1], {}),
        (200, {"status": "success", "data": {"resultType": "vector", "result": [{"value": 3}]}}, {}),
    ],
)
def test_whatever_prometheus_answers_a_failure_is_a_problem_not_a_crash(answer):
    with serving() as server:
        server.answers["/api/v1/query"] = prometheus(answer)
        source = make_source(LiveConfig(prometheus_url=server.url), "prefill")
        metrics, _ = source.collect(60.0)
        source.close()
        assert not metrics.usable
        assert codes(metrics) == {"source_failed"}


@pytest.mark.parametrize("value", ["12", "0"])
def test_a_series_given_twice_is_a_problem_and_not_the_smaller_of_two_loads(value):
    labels = {"instance": "a", "sagescale_series": "increase vllm:request_success_total"}
    with serving() as server:
        server.answers["/api/v1/query"] = prometheus((200, vector((labels, "12"), (labels, value)), {}))
        source = make_source(LiveConfig(prometheus_url=server.url), "prefill")
        metrics, _ = source.collect(60.0)
        source.close()
    assert not metrics.usable
    assert codes(metrics) == {"source_failed"}
    assert "twice" in metrics.problems[0].text


class Clocked:
    """A server whose clock a test sets, and which has records up to a time."""

    def __init__(self, server):
        self.now_s, self.recorded_s = 10_000.0, 10_000.0
        server.answers["/api/v1/query"] = self.respond

    def respond(self, request):
        form = parse_qs(request["body"].decode())
        if form["query"] == ["time()"]:
            result = {"resultType": "scalar", "result": [self.now_s, str(self.now_s)]}
            return 200, {"status": "success", "data": result}, {}
        if form["query"][0].startswith("count(count_over_time(up["):
            beyond = self.recorded_s > self.now_s
            return 200, vector(*([({}, "4")] if beyond else [])), {}
        return 200, vector(), {}


def test_a_server_whose_clock_goes_back_tells_of_the_past_until_it_is_where_it_was():
    with serving() as server:
        clock = Clocked(server)
        source = make_source(LiveConfig(prometheus_url=server.url), "prefill")

        def failure():
            return [problem.text for problem in source.collect(60.0)[0].problems if "clock" in problem.text]

        assert not failure()
        clock.now_s = clock.recorded_s = 10_060.0
        assert not failure()
        clock.now_s = 6460.0
        assert "its clock went back by 3600 s" in failure()[0]
        clock.now_s = 10_000.0
        assert failure()
        clock.now_s = 10_050.0
        assert not failure(), "so little that the window is nearly the one to come"
        clock.now_s, clock.recorded_s = 2000.0, 2000.0
        assert not failure(), "another server, whose clock is its own: it has no records of later"
        clock.now_s, clock.recorded_s = 1e12, 2060.0
        failure()
        clock.now_s = 2060.0
        assert not failure(), "once it told a time that never was"
        source.close()


def test_an_own_query_replaces_the_presets_and_must_give_one_number():
    with serving() as server:

        def answer(request):
            return (200, vector(({}, "5"), ({"a": "b"}, "6")) if b"mine" in request["body"] else vector(), {})

        server.answers["/api/v1/query"] = prometheus(answer)
        live = LiveConfig(prometheus_url=server.url, metric_queries={"requests": "mine"})
        source = make_source(live, "prefill")
        metrics, _ = source.collect(60.0)
        source.close()
        assert "query_ambiguous" in codes(metrics)
        assert metrics.values["requests"] is None


def test_history_is_read_by_range_and_begins_where_it_is_known():
    def answer(request):
        values = [[100.0 + 60 * k, str(600 + k)] for k in range(5)]
        return (
            200,
            {
                "status": "success",
                "data": {"resultType": "matrix", "result": [{"metric": {}, "values": values}]},
            },
            {},
        )

    with serving() as server:
        server.answers["/api/v1/query"] = (
            200,
            {"status": "success", "data": {"resultType": "scalar", "result": [1, "340"]}},
            {},
        )
        server.answers["/api/v1/query_range"] = answer
        source = make_source(LiveConfig(prometheus_url=server.url), "prefill")
        past = source.history(60.0, 7)
        source.close()
        assert [window.end_s for window in past] == [100.0, 160.0, 220.0, 280.0, 340.0]
        assert past[0].requests == 600.0


def test_no_source_knows_nothing():
    source = make_source(LiveConfig(), "prefill")
    assert isinstance(source, NoSource)
    assert codes(source.collect(60.0)[0]) == {"no_source"}


# --- direct scraping --------------------------------------------------------------------------------

PAGE = """# TYPE vllm:request_success_total counter
vllm:request_success_total{{model_name="m",finished_reason="stop"}} {done}
vllm:request_success_total{{model_name="m",finished_reason="length"}} 1
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model_name="m"}} {running}
vllm:num_requests_waiting{{model_name="m"}} 0
# TYPE vllm:request_prompt_tokens histogram
vllm:request_prompt_tokens_bucket{{model_name="m",le="+Inf"}} {done}
vllm:request_prompt_tokens_sum{{model_name="m"}} {tokens}
vllm:request_prompt_tokens_count{{model_name="m"}} {done}
vllm:prompt_tokens_total{{model_name="m"}} {tokens}
"""


def page(done, running=2, tokens=None):
    return PAGE.format(done=done, running=running, tokens=done * 100 if tokens is None else tokens).encode()


def scraping(server, **keys):
    live = LiveConfig(
        scrape_prefill=[f"{server.url}/p/metrics"],
        scrape_decode=[f"{server.url}/d/metrics"],
        metrics_preset="vllm",
        **keys,
    )
    return MetricSource(ScrapeReader(live), Observer(VLLM))


def test_two_looks_at_the_instances_make_a_window():
    with serving() as server:
        server.answers |= {"/p/metrics": (200, page(10), {}), "/d/metrics": (200, page(10), {})}
        source = scraping(server)
        metrics, _ = source.collect(60.0)
        assert metrics.values["requests"] is None, "one look is no window"
        server.answers |= {"/p/metrics": (200, page(25, running=4), {}), "/d/metrics": (200, page(20), {})}
        metrics, window_s = source.collect(60.0)
        assert metrics.values["requests"] == 15 + 2
        assert metrics.values["isl_mean"] == 100.0
        assert 0 < window_s < 5
        source.close()


def test_looks_leave_the_windows_of_ticks_whole():
    with serving() as server:
        server.answers |= {"/p/metrics": (200, page(10), {}), "/d/metrics": (200, page(10), {})}
        source = scraping(server)
        source.prime()
        for done, since in ((15, 5), (25, 10)):
            server.answers |= {"/p/metrics": (200, page(done), {}), "/d/metrics": (200, page(done), {})}
            assert source.collect_burst(15.0)[0].values["requests"] == since
        assert source.collect(60.0)[0].values["requests"] == 15
        source.close()


def test_a_restarted_instance_is_not_negative_load():
    with serving() as server:
        server.answers |= {"/p/metrics": (200, page(100), {}), "/d/metrics": (200, page(10), {})}
        source = scraping(server)
        source.prime()
        server.answers |= {"/p/metrics": (200, page(3), {}), "/d/metrics": (200, page(12), {})}
        metrics, _ = source.collect(60.0)
        assert "counter_reset" in codes(metrics)
        assert metrics.values["requests"] is None
        source.close()


@pytest.mark.parametrize(
    "body", [b"\x00\xff not metrics {{{", b"vllm:request_success_total{x=} 1\n", b"<html></html>"]
)
def test_a_page_that_is_none_is_a_problem_not_a_crash(body):
    with serving() as server:
        server.answers |= {"/p/metrics": (200, body, {}), "/d/metrics": (200, page(10), {})}
        source = scraping(server)
        metrics, _ = source.collect(60.0)
        assert not metrics.usable
        source.close()


def test_all_instances_down_is_a_failure():
    with serving() as server:
        source = scraping(server)
        with pytest.raises(HttpError):
            source.reader.read(VLLM, 60.0)
        source.close()


def test_instances_may_be_discovered():
    with serving() as server:
        host = server.url.removeprefix("http://")
        server.answers["/sd"] = (
            200,
            [
                {"targets": [host], "labels": {"job": role, "__metrics_path__": f"/{role}/metrics"}}
                for role in ("my-prefill", "my-decode", "other")
            ],
            {},
        )
        for role in ("my-prefill", "my-decode"):
            server.answers[f"/{role}/metrics"] = (200, page(10), {})
        source = make_source(
            LiveConfig(scrape_discovery_url=f"{server.url}/sd", metrics_preset="vllm"), "prefill"
        )
        source.prime()
        metrics, _ = source.collect(60.0)
        assert {group: len(found.names) for group, found in metrics.reporting.items()} == {
            "prefill": 1, "decode": 1,
        }  # fmt: skip
        assert all(found.listed == found.names for found in metrics.reporting.values())
        assert not any(asked["path"] == "/other/metrics" for asked in server.asked)
        source.close()


ENGINES = {
    # What each calls completions, running, waiting, time between tokens, KV usage; and how it is labelled.
    "vllm": (
        "vllm:", "request_success_total", "num_requests_running", "num_requests_waiting",
        "inter_token_latency_seconds", "kv_cache_usage_perc", 'model_name="{}",engine="0"',
    ),
    "sagellm": (
        "vllm:", "request_success_total", "num_requests_running", "num_requests_waiting",
        "inter_token_latency_seconds", "kv_cache_usage_perc", 'model="{}",namespace="sagellm"',
    ),
    "sglang": (
        "sglang:", "num_requests_total", "num_running_reqs", "num_queue_reqs",
        "inter_token_latency_seconds", "token_usage", 'model_name="{}",tp_rank="0"',
    ),
    "trtllm": (
        "trtllm_", "request_success_total", "num_requests_running", "num_requests_waiting",
        "time_per_output_token_seconds", "kv_cache_utilization", 'model_name="{}"',
    ),
}  # fmt: skip


def latency(name, labels, seconds, count):
    return [
        f'{name}_bucket{{{labels},le="0.1"}} {count}',
        f'{name}_bucket{{{labels},le="+Inf"}} {count}',
        f"{name}_sum{{{labels}}} {seconds * count}",
        f"{name}_count{{{labels}}} {count}",
    ]


def engine_page(preset, done, osl, running):
    """An engine's page by the conventions of its kind; another model's series are on it too."""
    prefix, completed, now, waiting, between, usage, labelled = ENGINES[preset]
    lines = []
    for model, count in (("m", done), ("other", 7 * done)):
        labels = labelled.format(model)
        scalars = {completed: count, now: running, waiting: 3, usage: 0.25,
                   "prompt_tokens_total": 100 * count, "generation_tokens_total": osl * count}  # fmt: skip
        lines += [f"{prefix}{name}{{{labels}}} {value}" for name, value in scalars.items()]
        lines += latency(f"{prefix}time_to_first_token_seconds", labels, 0.05, count)
        lines += latency(f"{prefix}{between}", labels, 0.01, (osl - 1) * count)
        lines += latency(f"{prefix}e2e_request_latency_seconds", labels, 0.01 * osl, count)
    return ("\n".join(lines) + "\n").encode()


@pytest.mark.parametrize("preset", ENGINES)
def test_every_engines_names_make_the_same_observation(preset):
    with serving() as server:
        live = LiveConfig(
            scrape_prefill=[f"{server.url}/p"],
            scrape_decode=[f"{server.url}/d"],
            metrics_preset=preset,
            model_name="m",
        )
        source = make_source(live, "prefill")
        server.answers |= {"/p": (200, engine_page(preset, 100, 1, running=2), {})}
        server.answers |= {"/d": (200, engine_page(preset, 90, 30, running=8), {})}
        source.prime()
        server.answers |= {"/p": (200, engine_page(preset, 130, 1, running=6), {})}
        server.answers |= {"/d": (200, engine_page(preset, 110, 30, running=9), {})}
        metrics, _ = source.collect(60.0)
        source.close()
    assert metrics.problems == ()
    expected = {
        "requests": 34.0, "completed": 20.0, "isl_mean": 100.0, "osl_mean": 30.0, "ttft_ms_mean": 50.0,
        "itl_ms_mean": 10.0, "duration_s_mean": 0.31, "running_prefill": 6.0, "running_decode": 9.0,
        "queued_prefill": 3.0, "queued_decode": 3.0, "kv_usage": 0.25,
    }  # fmt: skip
    assert {name: metrics.values[name] for name in expected} == pytest.approx(expected)


def test_dynamos_frontend_sees_every_request_once():
    def frontend(started, done):
        labels = 'model="m",dynamo_namespace="ns"'
        prefix = "dynamo_frontend_"
        scalars = {"requests_started_total": started, "requests_total": done,
                   "inflight_requests": started - done, "queued_requests": 4}  # fmt: skip
        lines = [f"{prefix}{name}{{{labels}}} {value}" for name, value in scalars.items()]
        for name, mean, count in (
            ("input_sequence_tokens", 100.0, done), ("output_sequence_tokens", 30.0, done),
            ("time_to_first_token_seconds", 0.05, done), ("inter_token_latency_seconds", 0.01, 29 * done),
            ("request_duration_seconds", 0.31, done),
        ):  # fmt: skip
            lines += latency(f"{prefix}{name}", labels, mean, count)
        return (200, ("\n".join(lines) + "\n").encode(), {})

    with serving() as server:
        live = LiveConfig(
            scrape_prefill=[f"{server.url}/f"],
            scrape_decode=[f"{server.url}/f"],
            metrics_preset="dynamo",
            model_name="m",
        )
        source = make_source(live, "prefill")
        server.answers["/f"] = frontend(100, 90)
        source.prime()
        server.answers["/f"] = frontend(150, 120)
        metrics, _ = source.collect(60.0)
        source.close()
    assert metrics.problems == ()
    expected = {
        "requests": 50.0, "completed": 30.0, "isl_mean": 100.0, "osl_mean": 30.0, "ttft_ms_mean": 50.0,
        "itl_ms_mean": 10.0, "duration_s_mean": 0.31, "running_decode": 26.0, "queued_prefill": 4.0,
    }  # fmt: skip
    assert {name: metrics.values[name] for name in expected} == pytest.approx(expected)


def test_the_made_up_page_is_prometheus_text():
    assert list(text_string_to_metric_families(page(3).decode()))


class ShrinkingReader:
    """A reader that finds instances late: in each reading those that it is told, none after the last."""

    def __init__(self, *late):
        self.late = late
        self.readings = 0

    def describe(self):
        return "made-up windows"

    def read(self, preset, window_s, late_s=0.0, cadence="ticks"):
        prefill = group("prefill")
        if self.readings < len(self.late):
            prefill.stale = set(self.late[self.readings])
        self.readings += 1
        return RawWindow(window_s, {"prefill": prefill, "decode": group("decode")}, {})


@pytest.mark.parametrize(("late_readings", "readings", "bad"), [(0, 1, 0), (1, 2, 0), (2, 3, 0), (9, 3, 1)])
def test_the_check_reads_again_what_an_instance_on_its_way_out_explains(late_readings, readings, bad):
    clock = VirtualClock()
    began_s = clock.now
    source = MetricSource(ShrinkingReader(*[{"prefill-a"}] * late_readings), Observer(VLLM))
    found = check(source, ToyPools(clock), 60.0, clock, 15.0)
    late = [finding for finding in found if finding.code == "scrapes_late"]
    assert [finding.level for finding in late] == ["bad"] * bad
    assert source.reader.readings == readings
    assert clock.now - began_s == 15.0 * (readings - 1)


def test_the_check_names_only_instances_that_are_late_in_every_reading():
    clock = VirtualClock()
    for late, expected in (
        ([{"one"}, {"two"}], ""),  # another one on its way out in each
        ([{"one", "dead"}, {"two", "dead"}, {"three", "dead"}], "1 prefill instances"),
    ):
        source = MetricSource(ShrinkingReader(*late), Observer(VLLM))
        found = check(source, ToyPools(clock), 60.0, clock, 15.0)
        said = " ".join(finding.what for finding in found if finding.code == "scrapes_late")
        assert expected in said
        assert ("dead" in said, "three" in said) == (bool(expected), False)
        assert bool(said) == bool(expected)


def test_an_instance_that_discovery_lists_a_moment_longer_than_it_answers_is_not_bad():
    with serving() as server:
        clock = VirtualClock()
        listed = [f"{server.url.removeprefix('http://')}"]
        server.answers["/d"] = (200, page(10), {})
        server.answers["/p"] = (200, page(10), {})

        def discovery(_):
            gone = [] if clock.now >= 1060.0 else ["/gone"]
            pages = [("/p", "prefill"), ("/d", "decode"), *((path, "prefill") for path in gone)]
            return 200, [
                {"targets": listed, "labels": {"__metrics_path__": path, "job": job}} for path, job in pages
            ], {}  # fmt: skip

        server.answers["/sd"] = discovery
        live = LiveConfig(
            metrics_preset="vllm", scrape_discovery_url=f"{server.url}/sd", pool_label="job",
            prefill_pool="prefill", decode_pool="decode",
        )  # fmt: skip
        for pause_s, unreachable in ((60.0, 0), (1.0, 1)):
            clock.now = 1000.0
            source = MetricSource(ScrapeReader(live), Observer(VLLM))
            source.prime()
            found = check(source, ToyPools(clock), 60.0, clock, pause_s)
            source.close()
            assert sum(finding.code == "instance_unreachable" for finding in found) == unreachable
