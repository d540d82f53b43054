"""Which windows teach the planner, and what it does with what it learned."""

from __future__ import annotations

import math

import pytest
from planner_world import ONE_GPU
from sagescale.perf import ProfileModel, estimate_profile, find_gpu, find_model, load_profile
from sagescale.planner import AutoscalerConfig, Observation, Planner, PoolCounts, Pools, ReasonCode

MEASURED = ProfileModel(load_profile("h200-llama-3.1-8b-fp8"))
ESTIMATED = ProfileModel(estimate_profile(find_model("Llama-3.1-8B"), find_gpu("h200"), precision="fp8"))
ISL, OSL, DECODE = 1000.0, 200.0, 4


def window(number: int, *, slower: float = 1.0, **changed: object) -> Observation:
    """A quiet window on engines that are ``slower`` than the measured profile, all metrics consistent."""
    requests = 600.0
    context = ISL + OSL / 2
    # The batch that the steps meet: Little's law, solved by iteration (the step time depends on the batch).
    n = 1.0
    for _ in range(50):
        n = 1.0 + requests / 60 * (OSL - 0.5) * slower * MEASURED.itl_ms(n, context) / 1000 / DECODE
    itl_ms = slower * MEASURED.itl_ms(n, context)
    ttft_ms = slower * MEASURED.ttft_ms(ISL)
    values: dict[str, object] = {
        "time_s": 60.0 * number,
        "window_s": 60.0,
        "pools": Pools(PoolCounts(ready=8), PoolCounts(ready=DECODE)),
        "requests": requests,
        "completed": requests,
        "isl_mean": ISL,
        "osl_mean": OSL,
        "ttft_ms_mean": ttft_ms,
        "itl_ms_mean": itl_ms,
        "duration_s_mean": (ttft_ms + (OSL - 0.5) * itl_ms) / 1000,
        "queued_prefill": 0.0,
        "queued_decode": 0.0,
        "running_decode": None,
    }
    return Observation(**(values | changed))  # type: ignore[arg-type]


def planner(base: ProfileModel, **keys: object) -> Planner:
    return Planner(AutoscalerConfig(**(ONE_GPU | keys)), base)


def windows_learned(planner: Planner) -> tuple[int, int]:
    assert planner.learned is not None
    return planner.learned.prefill.windows, planner.learned.decode.windows


class TestWhatTeaches:
    def test_steady_windows_from_the_second_on(self):
        one = planner(ESTIMATED)
        for number in range(1, 6):
            one.step(window(number))
        assert windows_learned(one) == (4, 4)

    @pytest.mark.parametrize(
        "changed",
        [
            {"requests": None},
            {"requests": 3.0, "completed": 3.0},
            {"ttft_ms_mean": None},
            {"isl_mean": None},
            {"isl_mean": math.nan},
            {"ttft_ms_mean": -1.0},
        ],
        ids=str,
    )
    def test_a_window_without_the_metrics_teaches_nothing(self, changed):
        one = planner(ESTIMATED)
        one.step(window(1))
        one.step(window(2, **changed))
        assert windows_learned(one) == (0, 0)

    @pytest.mark.parametrize(
        "changed",
        [
            {"duration_s_mean": None},
            {"osl_mean": None},
            {"osl_mean": 1.0},
            {"completed": None},
            {"duration_s_mean": 0.001},
            {"queued_decode": 50.0, "running_decode": 100.0},
        ],
        ids=str,
    )
    def test_decode_needs_completions_that_did_not_queue(self, changed):
        one = planner(ESTIMATED)
        one.step(window(1))
        one.step(window(2, **changed))
        assert windows_learned(one) == (1, 0)

    @pytest.mark.parametrize("changed", [{"running_decode": None}, {"running_decode": 300.0}], ids=str)
    def test_full_slots_teach_nothing_where_what_runs_is_unknown_or_changes(self, changed):
        one = planner(ESTIMATED)
        full = {"queued_decode": 900.0, "running_decode": 4.0 * 200}
        one.step(window(1, **full))
        one.step(window(2, **(full | changed)))
        assert windows_learned(one)[1] == 0

    def test_a_backlog_is_not_this_windows_load(self):
        one = planner(ESTIMATED)
        one.step(window(1, queued_prefill=10_000.0))
        one.step(window(2))
        assert windows_learned(one) == (0, 1)

    def test_instances_just_started_teach_nothing(self):
        """Neither the window in which one became ready, nor the next, its first whole one."""
        one = planner(ESTIMATED)
        started = {"pools": Pools(PoolCounts(ready=9), PoolCounts(ready=DECODE + 1))}
        one.step(window(1))
        one.step(window(2))
        one.step(window(3, slower=3.0, **started))
        one.step(window(4, slower=3.0, **started))
        assert windows_learned(one) == (1, 1)
        one.step(window(5, **started))
        assert windows_learned(one) == (2, 2)

    def test_a_draining_instance_serves_too_and_spoils_the_count(self):
        one = planner(ESTIMATED)
        one.step(window(1))
        one.step(window(2, pools=Pools(PoolCounts(ready=8), PoolCounts(ready=DECODE, draining=1))))
        assert windows_learned(one) == (1, 0)


class TestWhatIsLearned:
    def test_full_slots_tell_the_step_by_tokens_as_latency_contains_the_wait(self):
        """The pool serves what it can, a queue grows, and ITL is a hundred times the step."""
        one = planner(ESTIMATED)
        n, context = 200.0, ISL + OSL / 2
        step_ms = 1.6 * MEASURED.itl_ms(n, context)
        completed = DECODE * n * 60_000.0 / step_ms / (OSL - 1.0)
        for number in range(1, 30):
            one.step(
                window(
                    number,
                    completed=completed,
                    duration_s_mean=OSL * step_ms / 10.0,
                    itl_ms_mean=100.0 * step_ms,
                    queued_decode=500.0 * number,
                    running_decode=DECODE * n,
                )
            )
        assert one.learned is not None
        assert one.learned.itl_ms(n, context) == pytest.approx(step_ms, rel=0.02)

    def test_an_estimate_comes_to_the_truth_where_there_is_traffic(self):
        one = planner(ESTIMATED)
        for number in range(1, 40):
            one.step(window(number))
        assert one.learned is not None
        assert one.learned.ttft_ms(ISL) == pytest.approx(MEASURED.ttft_ms(ISL), rel=0.01)
        n, context = 4.0, ISL + OSL / 2  # what the windows' traffic runs at
        assert one.learned.itl_ms(n, context) == pytest.approx(MEASURED.itl_ms(n, context), rel=0.02)
        # Further off nothing was seen: what is not known stays on the slow side, where an estimate begins.
        assert 1.0 < one.learned.itl_ms(12.0, context) / MEASURED.itl_ms(12.0, context) < 1.1

    def test_what_was_learned_is_not_corrected_again(self):
        one = planner(MEASURED)
        corrections = [one.step(window(number, slower=1.4)).corrections for number in range(1, 30)]
        assert corrections[0].decode == pytest.approx(1.4, rel=0.05)
        assert corrections[-1].decode == pytest.approx(1.0, abs=0.05)
        assert corrections[-1].prefill == pytest.approx(1.0, abs=0.02)

    def test_leaving_the_profile_is_said_once_for_each_pool(self):
        one = planner(MEASURED)
        said = [one.step(window(number, slower=1.4)) for number in range(1, 30)]
        texts = [
            reason.text for one in said for reason in one.reasons if reason.code is ReasonCode.LEARNED_TIMES
        ]
        assert len(texts) == 2
        assert texts[0].startswith(("prefill times differ", "decode times differ"))

    def test_slower_prefill_gets_more_instances_which_a_correction_never_gives(self):
        """The guide's prefill factor is min(1, observed / expected): it only ever saves instances."""
        load = {"requests": 12_000.0, "completed": 12_000.0}
        sizes = {}
        for learning in (False, True):
            one = planner(MEASURED, enable_online_learning=learning, max_prefill_instances=100)
            for number in range(1, 30):
                one.step(window(number, slower=1.5))
            sizes[learning] = one.step(window(30, slower=1.5, **load)).raw.prefill
        assert sizes[True] == pytest.approx(1.5 * sizes[False], abs=1.0)

    def test_a_right_profile_decides_as_without_learning(self):
        on, off = planner(MEASURED), planner(MEASURED, enable_online_learning=False)
        for number in range(1, 60):
            seen = window(
                number, slower=1.0 + 0.1 * math.sin(number), requests=600.0 + 400.0 * math.sin(number / 5)
            )
            assert on.step(seen) == off.step(seen)

    def test_tokens_are_met_in_long_answers(self):
        """One answer in ten is thirty times as long: most tokens have far longer contexts."""
        lengths = ((1000, 500),) * 9 + ((1000, 15_500),)
        osl = 2000.0
        met = sum(answer * (prompt + answer / 2) for prompt, answer in lengths) / (10 * osl)
        n = 60.0
        step_ms = MEASURED.itl_ms(n + 1.0, met)
        assert step_ms > 1.15 * MEASURED.itl_ms(n + 1.0, 1000.0 + osl / 2)
        requests = DECODE * n * 60_000.0 / step_ms / (osl - 0.5)
        on, off = planner(MEASURED), planner(MEASURED, enable_online_learning=False)
        for number in range(1, 30):
            seen = window(
                number,
                requests=requests,
                completed=requests,
                osl_mean=osl,
                itl_ms_mean=step_ms,
                duration_s_mean=(MEASURED.ttft_ms(ISL) + (osl - 0.5) * step_ms) / 1000,
                lengths=lengths,
            )
            assert on.step(seen) == off.step(seen)

    @pytest.mark.parametrize("base", [MEASURED, ESTIMATED], ids=["measured", "estimated"])
    @pytest.mark.parametrize("metric", ["ttft_ms_mean", "duration_s_mean", "osl_mean", "isl_mean"])
    @pytest.mark.parametrize("times", [1e-3, 1e3])
    def test_one_mad_window_never_multiplies_the_replicas(self, base, metric, times):
        keys = {"enable_correction": False, "max_prefill_instances": 100, "max_decode_instances": 100}
        load = {"requests": 30_000.0}
        one = planner(base, max_gpu_budget=1000, **keys)
        for number in range(1, 20):
            one.step(window(number))
        usual = one.step(window(20, **load)).raw
        mad = window(21)
        one.step(window(21, **{metric: getattr(mad, metric) * times}))
        after = one.step(window(22, **load)).raw
        for old, new in zip(usual, after, strict=True):
            assert old / 1.6 - 1 <= new <= old * 1.6 + 1

    def test_off_learns_nothing(self):
        assert planner(MEASURED, enable_online_learning=False).learned is None
