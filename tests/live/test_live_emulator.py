"""The emulator: the simulator's own kernel, seen through engine metrics."""

from __future__ import annotations

import http.client
import itertools
import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sagescale.errors import InputError
from sagescale.live.emulator.cluster import EmulatedCluster
from sagescale.live.emulator.engine_metrics import EngineMetrics, EnginePage
from sagescale.live.emulator.server import Emulator, Pace
from sagescale.live.secret import Secret
from sagescale.live.setup import configured
from sagescale.planner import Sizes
from sagescale.sim import kernel
from sagescale.sim.simulate import simulate
from sagescale.trace import TransformSpec, apply_transforms, read_trace

LABELS = {"model_name": "m"}


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    rng = np.random.default_rng(1)
    count = 3000
    arrival = np.sort(rng.uniform(0, 240, count))
    path = tmp_path_factory.mktemp("trace") / "t.csv"
    rows = "\n".join(
        f"{at - arrival[0]:.6f},{isl},{osl}"
        for at, isl, osl in zip(
            arrival, rng.integers(10, 3000, count), rng.integers(1, 300, count), strict=True
        )
    )
    path.write_text(f"arrival_s,isl,osl\n{rows}\n")
    return apply_transforms(read_trace(path), TransformSpec(None, 1.0, 1.0, 1, 0, 30.0))


def cluster(trace, *settings):
    setup = configured(None, [], ["target_itl_ms=8", *settings])
    return setup, EmulatedCluster(trace, setup.profile, setup.config, setup.simulator)


def totals(engines):
    text = generate_latest(EnginePage(engines, LABELS, with_instance=True)).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "le" not in sample.labels:
                key = (sample.labels["job"], sample.name)
                found[key] = found.get(key, 0.0) + sample.value
    return found


def test_what_a_simulation_refuses_is_not_emulated_either(trace):
    with pytest.raises(InputError, match="session_affinity but the trace has no sessions"):
        cluster(trace, "routing_strategy=session_affinity")


def test_aggregated_engines_count_each_request_once(trace):
    _, emulated = cluster(trace, "serving=aggregated", "max_kv_tokens=8000", "prefix_hit_rate=0.25")
    emulated.linger_s = 1e9
    for step in range(1, 60):
        emulated.advance(6.0 * step)
        emulated.engines()
    assert emulated.finished
    found = totals(emulated.engines())
    assert {job for job, _ in found} == {"aggregated"}
    named = {name.removeprefix("vllm:"): value for (_, name), value in found.items()}
    assert named["request_success_total"] == len(trace)
    assert named["request_prompt_tokens_sum"] == named["prefix_cache_queries_total"] == trace.isl.sum()
    assert named["request_generation_tokens_sum"] == named["generation_tokens_total"] == trace.osl.sum()
    assert named["time_to_first_token_seconds_count"] == len(trace)
    assert named["prefix_cache_hits_total"] == np.floor(0.25 * trace.isl).sum()
    assert named["num_requests_running"] == named["num_requests_waiting"] == 0
    assert named["num_preemptions_total"] > 0
    outcome = emulated.outcome()
    assert outcome.completed == len(trace)
    assert set(outcome.gpu_hours) == {"aggregated"}


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
def test_metrics_add_up_to_the_trace(trace, first_token):
    _, emulated = cluster(trace, f"first_token={first_token}")
    emulated.linger_s = 1e9
    for step in range(1, 60):
        emulated.advance(6.0 * step)
    assert emulated.finished
    found = totals(emulated.engines())
    decoded = trace.osl > 1 if first_token == "prefill" else np.ones(len(trace), bool)
    assert found["prefill", "vllm:request_success_total"] == len(trace)
    assert found["decode", "vllm:request_success_total"] == decoded.sum()
    assert found["prefill", "vllm:request_prompt_tokens_sum"] == trace.isl.sum()
    assert found["decode", "vllm:request_generation_tokens_sum"] == trace.osl[decoded].sum()
    assert found["decode", "vllm:generation_tokens_total"] == trace.osl[decoded].sum()
    assert found["prefill", "vllm:request_generation_tokens_sum"] == len(trace), "OSL 1 in prefill"
    assert found["prefill", "vllm:num_requests_running"] == found["decode", "vllm:num_requests_waiting"] == 0


@pytest.mark.parametrize(
    "router", [(), ("scheduling_policy=slo_aware", "routing_strategy=round_robin")], ids=["default", "other"]
)
def test_unscaled_it_serves_exactly_as_the_simulator_does(trace, router):
    settings = ["initial_prefill=2", "initial_decode=3", "no_operation=true", *router]
    setup, emulated = cluster(trace, *settings)
    for step in range(1, 100):
        emulated.advance(3.7 * step)
    run = simulate(trace, setup.profile, setup.config, setup.simulator)
    for column in ("first_token_s", "done_s"):
        np.testing.assert_array_equal(emulated.cluster.state.requests[column], run.requests[column])


def test_ttft_and_duration_are_the_requests_own(trace):
    _, emulated = cluster(trace)
    emulated.linger_s = 1e9
    emulated.advance(400.0)
    found, records = totals(emulated.engines()), emulated.cluster.state.requests
    ttft_s = records["first_token_s"] - trace.arrival_s
    assert found["prefill", "vllm:time_to_first_token_seconds_sum"] == pytest.approx(ttft_s.sum())
    in_both = (
        found["prefill", "vllm:e2e_request_latency_seconds_sum"]
        + found["decode", "vllm:e2e_request_latency_seconds_sum"]
    )
    assert in_both == pytest.approx((records["done_s"] - trace.arrival_s).sum())


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
def test_no_counter_falls_however_seldom_it_is_looked_at(trace, first_token):
    _, emulated = cluster(trace, f"first_token={first_token}")
    emulated.linger_s = 1e9
    before = {}
    for minute in range(1, 7):
        emulated.advance(60.0 * minute)
        now = totals(emulated.engines())
        counters = [key for key in before if key[1].endswith(("_sum", "_count", "_total"))]
        assert [key for key in counters if now[key] < before[key]] == []
        before = now


def test_pages_come_and_go_with_instances(trace):
    _, emulated = cluster(trace, "startup_delay_s=10")
    emulated.scale(Sizes(3, 4))
    emulated.advance(9.0)
    before = {engine.name for engine in emulated.engines()}
    emulated.advance(11.0)
    assert {engine.name for engine in emulated.engines()} > before
    emulated.scale(Sizes(1, 1))
    for step in range(12, 61):
        emulated.advance(float(step))
    assert emulated.pools()[0].ready == emulated.pools()[1].ready == 1
    assert len(emulated.engines()) == 2


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
def test_an_instance_that_dies_takes_its_page_along_and_its_requests_are_served_again(trace, first_token):
    _, emulated = cluster(trace, f"first_token={first_token}", "initial_prefill=2", "initial_decode=3")
    emulated.linger_s = 1e9
    emulated.advance(60.0)
    gone = {"prefill-0", "decode-0"}
    lost = sum(engine.completed for engine in emulated.engines() if engine.name in gone)
    assert all(emulated.crash(name) for name in sorted(gone))
    assert not gone & {engine.name for engine in emulated.engines()}
    assert not emulated.crash("decode-0"), "once"
    assert not emulated.crash("decode-x")
    emulated.advance(61.0)  # nothing that happens later brings a page back
    assert not gone & {engine.name for engine in emulated.engines()}
    for step in range(11, 60):
        emulated.advance(6.0 * step)
    assert emulated.finished
    sent_again = int(emulated.cluster.state.requests["restarts"].sum())
    assert sent_again > 0
    found = totals(emulated.engines())
    completed = sum(found[job, "vllm:request_success_total"] for job in ("prefill", "decode")) + lost
    in_decode = trace.osl > 1 if first_token == "prefill" else np.ones(len(trace), bool)
    # One that was thrown back before its prefill ended is counted there once, as any other.
    assert len(trace) + in_decode.sum() <= completed <= len(trace) + in_decode.sum() + sent_again
    assert found["prefill", "vllm:time_to_first_token_seconds_sum"] >= 0
    for engine in emulated.engines():
        assert (engine.duration.counts >= 0).all()


@given(ranks=st.integers(1, 8))
def test_ranks_share_what_is_counted_and_have_the_same_kv_usage(ranks):
    engine = EngineMetrics("decode-0", "decode", completed=12, running=5, kv_usage=0.3, cpu_s=2.0)
    engine.prompt.observe(np.array([10.0, 3000.0]))
    pages = [
        generate_latest(EnginePage([engine], LABELS, with_instance=True, ranks=n)).decode()
        for n in (1, ranks)
    ]
    whole, split = ({}, {})
    for page, found in zip(pages, (whole, split), strict=True):
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                labels = {key: value for key, value in sample.labels.items() if key != "engine"}
                found.setdefault((sample.name, *sorted(labels.items())), []).append(sample.value)
    assert whole.keys() == split.keys()
    for key, (value,) in whole.items():
        assert len(split[key]) == (1 if key[0] == "process_cpu_seconds_total" else ranks)
        shared = np.mean if key[0] == "vllm:kv_cache_usage_perc" else np.sum
        assert shared(split[key]) == pytest.approx(value)


class Http:
    def __init__(self, emulator) -> None:
        self.emulator = emulator

    def __call__(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.emulator.port, timeout=60)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data


@pytest.fixture
def served(trace):
    running = []

    def serve(**keys):
        _, emulated = cluster(trace, "startup_delay_s=0")
        emulated.compile()
        emulator = Emulator(emulated, ("127.0.0.1", 0), pace=Pace(50.0), labels=LABELS, **keys)
        thread = threading.Thread(target=emulator.run, daemon=True)
        thread.start()
        running.append((emulator, thread))
        return Http(emulator)

    yield serve
    for emulator, thread in running:
        emulator.stop()
        thread.join(10)


def test_it_takes_scale_commands_and_refuses_nonsense(served):
    ask = served(wait=True)
    assert ask("POST", "/scale", json.dumps({"targets": {"prefill": 3, "decode": 5}}))[0] == 200
    state = json.loads(ask("GET", "/state")[1])
    assert state["prefill"]["ready"] + state["prefill"]["starting"] == 3
    for body in (
        "x", "[]", "null", '{"targets": 3}', '{"targets": {"prefill": -1, "decode": 1}}',
        '{"targets": {"prefill": 1e9, "decode": 1}}', '{"targets": {"prefill": true, "decode": 1}}',
        "[" * 100000,
    ):  # fmt: skip
        assert ask("POST", "/scale", body)[0] == 400
    assert ask("POST", "/scale", "x" * 2_000_000)[0] == 413
    assert ask("POST", "/rm", "{}")[0] == 404
    assert ask("GET", "/instances/../../etc/passwd/metrics")[0] == 404


def test_an_order_repeated_is_carried_out_once(served):
    ask = served(wait=True)
    one, two = (json.dumps({"targets": {"prefill": size, "decode": 2}}) for size in (3, 1))
    ask("POST", "/scale", one, {"Idempotency-Key": "a"})
    ask("POST", "/scale", two, {"Idempotency-Key": "b"})
    ask("POST", "/scale", one, {"Idempotency-Key": "a"})
    state = json.loads(ask("GET", "/state")[1])
    assert state["prefill"]["ready"] + state["prefill"]["starting"] == 1


def test_unsigned_commands_are_refused_where_there_is_a_secret(served):
    ask = served(wait=True, secret=Secret("k"))
    assert ask("POST", "/scale", '{"targets": {"prefill": 3, "decode": 5}}')[0] == 401


def test_pages_discovery_and_faults(served):
    ask = served()
    listed = json.loads(ask("GET", "/sd")[1])
    assert {entry["labels"]["job"] for entry in listed} == {"prefill", "decode"}
    own = listed[0]["labels"]["__metrics_path__"]
    assert b"instance=" not in ask("GET", own)[1]
    assert b'instance="prefill-0"' in ask("GET", "/metrics")[1]
    assert ask("POST", "/fault", '{"kind": "error"}')[0] == 200
    assert ask("GET", "/metrics")[0] == 500
    ask("POST", "/fault", '{"kind": "nan"}')
    assert b" NaN" in ask("GET", "/metrics")[1]
    ask("POST", "/fault", '{"kind": "frozen"}')
    first = ask("GET", "/metrics")[1]
    assert ask("GET", "/metrics")[1] == first
    assert ask("POST", "/fault", '{"kind": "frozn"}')[0] == 400


def test_faults_of_one_instance_and_of_labels(served):
    ask = served(wait=True)

    def fault(**document):
        return ask("POST", "/fault", json.dumps(document))[0]

    page = "/instances/decode-0/metrics"
    assert fault(kind="miss", instance="decode-0") == 200
    assert [ask("GET", page)[0] for _ in range(2)] == [500, 200], "one read is missed"
    fault(kind="miss", instance="decode-0")
    assert [b'instance="decode-0"' in ask("GET", "/metrics")[1] for _ in range(2)] == [False, True]
    fault(kind="ranks", value=2)
    assert b'engine="1"' in ask("GET", page)[1]
    names = [entry["labels"]["instance"] for entry in json.loads(ask("GET", "/sd")[1])]
    fault(kind="double")
    twice = json.loads(ask("GET", "/sd")[1])
    assert len(twice) == 2 * len(names)
    jobs = [entry["labels"]["job"] for entry in twice if entry["labels"]["instance"] == "decode-0"]
    assert jobs == ["decode", "decode-again"]
    fault(kind="none")
    assert fault(kind="reset") == 200
    assert fault(kind="crash", instance="decode-0", value=60) == 200
    assert ask("GET", page)[0] == 404
    assert "decode-0" in {entry["labels"]["instance"] for entry in json.loads(ask("GET", "/sd")[1])}
    pool = json.loads(ask("GET", "/state")[1])["decode"]
    assert pool["ready"] + pool["starting"] == sum("decode" in name for name in names), "another replaces it"
    for nonsense in (
        {"kind": "crash", "instance": "decode-0"}, {"kind": "miss", "instance": "x"}, {"kind": "miss"},
        {"kind": "miss", "instance": 3}, {"kind": "nan", "instance": "decode-1"},
        {"kind": "ranks"}, {"kind": "ranks", "value": 2.5},
    ):  # fmt: skip
        assert fault(**nonsense) == 400, nonsense


@given(
    clock=st.lists(st.floats(0, 1e5), min_size=2, max_size=20),
    speed=st.floats(0.01, 1000),
    pause=st.floats(0, 0.9),
)
def test_the_traces_time_never_runs_backwards_and_keeps_the_speed(clock, speed, pause):
    pace = Pace(speed, 60.0, pause)
    times = [pace.trace_s(at) for at in sorted(clock)]
    assert all(later >= earlier for earlier, later in itertools.pairwise(times))
    for at in clock:
        assert pace.trace_s(at) == pytest.approx(at * speed, abs=60.0 * pause / 2 + 1e-6, rel=1e-9)


def test_the_trace_stands_still_around_a_tick():
    pace = Pace(12.0, 60.0, 0.4)
    assert [pace.trace_s(5.0 + off) for off in (-0.99, 0.0, 0.99)] == [60.0] * 3
    assert pace.trace_s(7.5) == pytest.approx(90.0)


def test_nothing_is_left_to_compile_when_it_begins(trace):
    _, emulated = cluster(trace)
    emulated.compile()
    compiled = {name: len(f.signatures) for name, f in vars(kernel).items() if hasattr(f, "signatures")}
    emulated.advance(60.0)
    emulated.scale(Sizes(4, 4))
    emulated.advance(300.0)
    assert emulated.engines()
    assert emulated.finished
    assert compiled == {
        name: len(f.signatures) for name, f in vars(kernel).items() if hasattr(f, "signatures")
    }


def test_a_single_token_has_no_time_between_tokens_and_counts_as_zero_as_in_vllm(trace):
    """``request_time_per_output_token_seconds`` has every request that ends in an engine."""
    _, emulated = cluster(trace, "first_token=decode")
    emulated.linger_s = 1e9
    emulated.advance(400.0)
    found = totals(emulated.engines())
    for pool in ("prefill", "decode"):
        ended = found[pool, "vllm:request_success_total"]
        assert found[pool, "vllm:request_time_per_output_token_seconds_count"] == ended > 0
    assert found["prefill", "vllm:request_time_per_output_token_seconds_sum"] == 0.0
    several = float((trace.osl - 1).sum())
    assert found["decode", "vllm:inter_token_latency_seconds_count"] == pytest.approx(several)
