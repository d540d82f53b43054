"""The report of one run: what it says, and that it says it whatever the document holds."""

from __future__ import annotations

import copy
import io
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from report_documents import agents, comparison
from rich.console import Console
from sagescale.document import ResultDocument, from_keys
from sagescale.report import formats, print_run
from sagescale.report.comparison import print_comparison
from sagescale.report.facts import engines
from sagescale.report.text_plots import BARS, bars, downsample, windows_per_bar

if TYPE_CHECKING:
    from collections.abc import Callable


FINITE = st.floats(allow_nan=False, allow_infinity=False)
ODD_NUMBERS = st.one_of(
    st.none(), st.floats(), st.integers(-(10**400), 10**400), st.sampled_from([0, -0.0, 1e308, 5e-324])
)


def latency(start: float, step: float) -> dict[str, float]:
    return {name: start + step * i for i, name in enumerate(("mean", "p50", "p90", "p95", "p99", "max"))}


OBSERVED = ("isl", "osl", "ttft_mean_ms", "ttft_p99_ms", "itl_mean_ms", "itl_p99_ms", "attainment")
GAUGES = (
    "requests",
    "requests_forecast",
    "queued_prefill",
    "queued_decode",
    "running_decode",
    "kv_usage",
    "gpus",
)
POOL = ("ready", "starting", "draining", "waiting", "target", "correction")
SERIES = (*OBSERVED, *GAUGES, *(f"{pool}_{name}" for pool in ("prefill", "decode") for name in POOL))


def timeline(ticks: int, **series: Any) -> Any:
    """Ticks a minute apart at which everything is 0 that is not given."""
    return {
        "time_s": [60.0 * (i + 1) for i in range(ticks)],
        **{key: [0] * ticks for key in SERIES},
        "reasons": [[] for _ in range(ticks)],
        **series,
    }


def document() -> Any:
    """A small run in which no two figures are the same."""
    run: Any = {
        "name": "run",
        "policy": "classic",
        "predictor": "arima",
        "config": {},
        "initial": {"prefill": 2, "decode": 3},
        "horizon_s": 190.0,
        "requests": {
            "arrived": 8819,
            "completed": 8807,
            "unfinished": 12,
            "restarted": 0,
            "rejected": 7,
            "timed_out": 5,
        },
        "sla": {
            "target_ttft_ms": 200.0,
            "target_itl_ms": 50.0,
            "attainment": 0.9123,
            "ttft_attainment": 0.9345,
            "itl_attainment": 0.9678,
            "goodput_rps": 42.3,
        },
        "ttft_ms": latency(141.0, 20.0),
        "itl_ms": latency(11.1, 10.2),
        "e2e_ms": latency(1501.0, 1000.0),
        "gpu_hours": {"total": 12.4, "prefill": 4.13, "decode": 8.27},
        "lower_bound_gpu_hours": 6.52,
        "ratio_to_lower_bound": 1.9,
        "scaling": {
            "ticks": 4,
            "changes": 3,
            "prefill_launched": 14,
            "decode_launched": 15,
            "max_gpus": 31,
        },
        "forecast": {
            "requests": {"mape": 0.123, "bias": -3.45, "pinball_p90": 1.0},
            "isl": {"mape": 0.0567, "bias": 16.7, "pinball_p90": 1.0},
            "osl": {"mape": None, "bias": None, "pinball_p90": None},
        },
        "reasons": {"steady": 1, "scale_up": 2, "scale_down": 1, "gpu_budget": 3, "a_new_code": 1},
        "timeline": timeline(
            4,
            requests=[60.0, 1200.0, None, 2400.0],
            prefill_ready=[2, 2, 6, 6],
            decode_ready=[8, 8, 8, 8],
            ttft_p99_ms=[88.8, 333.0, None, 199.0],
            itl_p99_ms=[22.2, 22.2, None, 44.4],
            attainment=[1.0, 0.555, None, 0.987],
        ),
        "timing": {"simulate_s": 0.61, "planner_s": 0.0171, "forecast_s": 0.0093, "requests_per_s": 14457.0},
    }
    return {
        "schema_version": 1,
        "sagescale": "0.1.0",
        "trace": {
            "path": "traces/a.csv",
            "sha256": "0" * 64,
            "format": "azure",
            "requests": 8819,
            "duration_s": 181.0,
            "transform": ["slice 0:181"],
        },
        "profile": {
            "name": "h200-small",
            "model": "m",
            "gpu": "h200",
            "engine": "vllm 0.10",
            "source": "s",
            "licence": "Apache-2.0",
            "prefill_gpus_per_instance": 4,
            "decode_gpus_per_instance": 1,
            "max_num_seqs": 256,
            "max_kv_tokens": None,
            "assumed": ["max_num_seqs", "max_kv_tokens"],
        },
        "config": {
            "adjustment_interval_sec": 60,
            "max_gpu_budget": 32,
            "startup_delay_s": "60",
            "first_token": "prefill",
        },
        "warnings": ["arrivals out of order: 12 rows sorted"],
        "lower_bound_gpu_hours": 6.52,
        "runs": [run],
    }


def changed(change: Callable[[Any], None]) -> Any:
    made = document()
    change(made["runs"][0])
    return made


def render(made: Any, width: int = 100, **options: Any) -> str:
    out = io.StringIO()
    print_run(
        from_keys(ResultDocument, made),
        Console(width=width, file=out, **{"force_terminal": False, **options}),
    )
    return out.getvalue()


def line_of(text: str, label: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(label))


def replaced(value: Any, leaf: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: replaced(item, leaf) for key, item in value.items()}
    return [replaced(item, leaf) for item in value] if isinstance(value, list) else leaf(value)


# What it says


def test_attainment_against_the_targets_is_the_headline() -> None:
    assert line_of(render(document()), "attainment  ▲ 91.23 %  (target TTFT 200 ms, ITL 50 ms)")
    assert "TTFT met 93.45 % · ITL met 96.78 % · goodput 42.3 requests/s" in render(document())


def test_a_run_within_its_targets_carries_no_mark_and_no_excuse() -> None:
    def hold(run: Any) -> None:
        run["sla"].update(attainment=1.0, ttft_attainment=1.0, itl_attainment=1.0)

    text = render(changed(hold))
    assert line_of(text, "attainment").startswith("attainment  100 %")
    assert "fails most" not in text


def test_the_side_that_fails_most_and_the_limit_met_are_named() -> None:
    text = " ".join(render(document()).split())
    assert "TTFT fails most: 6.55 % of requests miss it, 3.22 % miss ITL" in text
    assert "max_gpu_budget 32 cut the sizes in 3 of 4 decisions." in text


def test_itl_is_named_where_it_fails_most() -> None:
    text = render(changed(lambda run: run["sla"].update(itl_attainment=0.5)))
    assert "ITL fails most: 50.00 % of requests miss it" in text


def test_pools_that_met_no_limit_are_said_to() -> None:
    text = " ".join(render(changed(lambda run: run.update(reasons={"steady": 4}))).split())
    assert "no budget or instance limit was in the way." in text


def test_only_figures_above_their_target_are_marked() -> None:
    row = line_of(render(document()), "TTFT, ms").split()
    assert row == ["TTFT,", "ms", "141", "161", "181", "▲", "201", "▲", "221", "▲", "241", "200"]


def test_latencies_of_minutes_are_written_in_seconds() -> None:
    text = render(changed(lambda run: run["ttft_ms"].update(max=150_000.0)))
    assert line_of(text, "TTFT, s").split()[-3:] == ["▲", "150", "0.2"]


def test_unfinished_requests_are_told_apart() -> None:
    line = line_of(render(document(), 120), "requests")
    assert "8,819 arrived · 8,807 completed · ▲ 12 unfinished" in line
    assert "7 rejected as too large · 5 timed out" in line
    assert "restarted" not in line


def test_gpu_hours_are_set_against_the_bound_and_the_budget() -> None:
    text = " ".join(render(document()).split())
    assert "12.4 · prefill 4.13, decode 8.27 · 1.90 × the lower bound 6.52" in text
    assert "peak 31 GPUs of a budget of 32" in text


def test_a_run_of_its_own_configuration_is_judged_by_it() -> None:
    text = render(changed(lambda run: run["config"].update(max_gpu_budget=64)))
    assert "of a budget of 64" in text
    assert "max_gpu_budget=64" in text


def test_causes_are_counted_and_moves_are_not_causes() -> None:
    line = line_of(render(document()), "why")
    assert line.split("  ")[-1].strip() == "3× cut to max_gpu_budget · 1× a new code"


def test_sizes_for_a_share_of_requests_are_said_as_what_is_kept() -> None:
    given: Any = {"ticks": 3, "reasons": [["sized_for_misses"] * 2, ["sized_for_misses"], ["steady"]]}

    def sized(run: Any) -> None:
        run["reasons"] = {"sized_for_misses": 3}
        run["config"]["target_attainment"] = 0.99
        run["scaling"]["ticks"] = given["ticks"]
        run["timeline"]["reasons"] = given["reasons"]

    assert line_of(render(changed(sized)), "why").endswith("sized to keep 99 % at 2 of 3 decisions")
    given["reasons"][2] = ["sized_for_misses"]
    assert line_of(render(changed(sized)), "why").endswith("sized to keep 99 % at all 3 decisions")
    given["reasons"][2] = ["gpu_budget", "sized_for_misses"]
    assert line_of(render(changed(sized)), "why").endswith("sized to keep 99 % at 2 of 3 decisions")


def test_series_over_time_carry_their_ranges_and_the_windows_over_target() -> None:
    text = render(document())
    assert line_of(text, "load").split(maxsplit=1)[1] == "▁▅ █  1.00 to 40.0 requests/s"
    assert line_of(text, "prefill").endswith("▃▃██  2 to 6 ready")
    assert line_of(text, "decode").endswith("████  8 ready")
    assert line_of(text, "TTFT p99").endswith("88.8 to 333 ms  ▲ 1/3")
    assert line_of(text, "ITL p99").endswith("22.2 to 44.4 ms")
    assert "0 to 4 min, a bar is 60 s · ▲ windows above target" in text


def test_a_long_run_is_drawn_to_the_width_and_keeps_its_extremes() -> None:
    peak = [1.0] * 5000 + [600.0] + [1.0] * 5079
    text = render(changed(lambda run: run.update(timeline=timeline(10_080, requests=peak))))
    assert "█" in line_of(text, "load")
    assert "a bar is the worst or busiest of" in text
    assert max(map(len, text.splitlines())) <= 100


def test_of_pools_apart_it_is_said_which_makes_the_first_token() -> None:
    made = document()
    assert "first token from prefill" in render(made)
    made["config"]["serving"] = "aggregated"
    assert "first token" not in render(made)


def test_what_was_assumed_is_said() -> None:
    assert "assumed, not measured: max_num_seqs 256, max_kv_tokens unlimited" in render(document())


def test_forecasts_that_were_not_scored_are_left_out() -> None:
    line = line_of(render(document()), "forecast")
    assert "MAPE requests 12.3 % (bias −3.45 per 60 s) · ISL 5.7 % (bias +16.7 tokens)" in line
    assert "OSL" not in line


def test_warnings_come_last() -> None:
    assert render(document()).splitlines()[-1] == "warning     ▲ arrivals out of order: 12 rows sorted"


def test_every_number_shown_is_in_the_document_or_follows_from_it() -> None:
    made = document()
    leaves: list[float] = []
    replaced(made, lambda leaf: leaves.append(leaf) if isinstance(leaf, int | float) else None)
    # Rates, misses, the end of the last window, and the windows seen, over target and to a bar.
    leaves += [8819 / 181.0, 60 / 60.0, 2400 / 60.0, 1 - 0.9345, 1 - 0.9678, 240.0, 1, 3]
    writers = (formats.count, formats.figure, formats.given, formats.duration, formats.signed)
    allowed = {write(value) for value in leaves for write in writers}
    allowed |= {formats.share(value, digits) for value in leaves for digits in (1, 2)}
    words = " ".join(allowed | set(made["trace"]["transform"]) | set(made["warnings"]) | {"60"})
    number = re.compile(r"(?<![\w.,-])\d{1,3}(?:,?\d{3})*(?:\.\d+)?")
    text = render(made)
    for name in ("h200", "0.10", "E2E", "mean     p50", "p90", "p95", "p99"):
        text = text.replace(name, "")
    strange = set(number.findall(text)) - set(number.findall(words))
    assert not strange


# Where it is printed


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_nothing_is_wider_than_the_console(width: int) -> None:
    assert max(map(len, render(document(), width).splitlines())) <= width


def test_one_screen_holds_it() -> None:
    assert render(document()).count("\n") <= 40


def test_a_path_is_never_cut() -> None:
    made = document()
    made["trace"]["path"] = "/data/" + "x" * 150 + ".csv"
    assert made["trace"]["path"] in render(made, 80)


def test_a_pipe_gets_no_escape_codes_and_no_trailing_blanks() -> None:
    text = render(document())
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_terminal_gets_colour_and_the_same_words() -> None:
    coloured = render(document(), force_terminal=True, color_system="truecolor")
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render(document())


def test_emphasis_ends_with_what_it_emphasises() -> None:
    coloured = render(document(), force_terminal=True, color_system="truecolor")
    plain = re.sub(r"\x1b\[([0-9;]+)m.*?\x1b\[0m", "", coloured)
    for unstyled in ("8,819 requests", " policy", "(target TTFT 200 ms", "2 to 6 ready", "decode 8.27"):
        assert unstyled in plain
    for styled in ("traces/a.csv", "classic", "91.23 %", "▲ 1/3", "TTFT, ms"):
        assert styled not in plain


def test_an_output_without_unicode_gets_ascii() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    made = document()
    made["trace"]["path"] = "traces/größe.csv"
    print_run(from_keys(ResultDocument, made), Console(width=100, file=out))
    out.seek(0)
    text = out.read()
    assert "! 91.23 %" in text
    assert "gr??e.csv" in text
    assert line_of(text, "load").split(maxsplit=1)[1] == "_= #  1.00 to 40.0 requests/s"


def test_a_name_cannot_smuggle_escape_codes_or_line_breaks() -> None:
    made = document()
    made["trace"]["path"] = "a\x1b[31m\nb\udc80.csv"
    assert "a?[31m b?.csv" in render(made)


def test_texts_with_tabs_and_line_breaks_are_printed_in_one_piece() -> None:
    made = comparison()
    made["comparison"]["verdict"] = "cheapest\tof\nall" + " words" * 40
    made["comparison"]["failed"] = [{"name": "classic\t\tx\u2028y", "error": "no\nfit"}]
    out = io.StringIO()
    print_comparison(from_keys(ResultDocument, made), Console(width=80, file=out))
    assert "cheapest of all words" in out.getvalue()
    assert "classic  x y: no fit" in out.getvalue()


def test_hit_rates_around_scale_downs_are_said_where_prompts_came_before_and_after() -> None:
    made = agents()
    drained = made["runs"][0]["engines"]["prefix"]["scale_downs"]
    for before, after, said in ((0.7, 0.4, True), (None, 0.4, False), (0.7, None, False)):
        drained |= {"hit_rate_before": before, "hit_rate_after": after}
        (run,) = from_keys(ResultDocument, made).runs
        assert any("70.00 % in the 5 min before, 40.00 % after" in line for line in engines(run)) == said
        assert not any("–" in line for line in engines(run))


# Odd documents


def test_what_is_not_defined_is_a_dash() -> None:
    text = render(replaced(document(), lambda leaf: leaf if isinstance(leaf, str) else None))
    assert line_of(text, "attainment").startswith("attainment  –  (target TTFT – ms, ITL – ms)")
    assert line_of(text, "requests").endswith("– arrived · – completed · – unfinished")
    assert "None" not in text
    assert "nan" not in text


def test_nothing_at_all_still_prints() -> None:
    made = replaced(document(), lambda _: None)
    assert "attainment" in render(made)
    for key in made["runs"][0]["timeline"]:
        made["runs"][0]["timeline"][key] = None
    made["trace"]["transform"] = made["profile"]["assumed"] = made["warnings"] = None
    made["config"] = made["runs"][0]["config"] = made["runs"][0]["reasons"] = None
    assert "no tick" in render(made)


def test_a_run_that_completed_nothing_prints_its_misses() -> None:
    def nothing(run: Any) -> None:
        run["requests"].update(completed=0, unfinished=8819)
        run["sla"].update(attainment=0.0, ttft_attainment=0.0, itl_attainment=0.0, goodput_rps=0.0)
        for key in ("ttft_ms", "itl_ms", "e2e_ms"):
            run[key] = dict.fromkeys(run[key])

    text = render(changed(nothing))
    assert "▲ 0 %" in text
    assert "TTFT and ITL fail alike: each is missed by 100 % of requests" in text
    assert line_of(text, "TTFT, ms").split()[2:] == ["–"] * 6 + ["200"]


@pytest.mark.parametrize("ticks", [0, 1, 2])
def test_few_ticks_or_none_print(ticks: int) -> None:
    text = render(changed(lambda run: run.update(timeline=timeline(ticks))))
    assert ("no tick: the run ended within its first interval" in text) == (ticks == 0)


def test_a_document_without_runs_prints_what_it_knows() -> None:
    made = document()
    made["runs"] = []
    assert "h200-small" in render(made)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(20, 240))
def test_no_number_makes_it_raise(data: st.DataObject, width: int) -> None:
    def leaf(value: Any) -> Any:
        return value if isinstance(value, str) or data.draw(st.booleans()) else data.draw(ODD_NUMBERS)

    render(replaced(copy.deepcopy(document()), leaf), width)


# Sparklines


@given(st.integers(0, 100_000), st.integers(1, 500))
def test_a_sparkline_is_never_longer_than_its_width(windows: int, width: int) -> None:
    size = windows_per_bar(windows, width)
    assert math.ceil(windows / size) <= width
    assert size == 1 or math.ceil(windows / (size - 1)) > width


@given(st.lists(st.none() | FINITE, max_size=300), st.integers(1, 50))
def test_downsampling_keeps_the_extremes(values: list[float | None], size: int) -> None:
    known = [value for value in values if value is not None]
    for pick in (max, min):
        shown = downsample(values, size, pick)
        assert len(shown) == math.ceil(len(values) / size)
        assert pick((value for value in shown if value is not None), default=None) == pick(
            known, default=None
        )


@given(st.lists(FINITE, min_size=1, max_size=100), FINITE, FINITE)
def test_a_higher_value_is_no_lower_bar(values: list[float], low: float, high: float) -> None:
    heights = [BARS.index(bar) for bar in bars(sorted(values), low, high)]
    assert heights == sorted(heights)


@given(st.lists(FINITE, min_size=2, max_size=100))
def test_the_lowest_and_highest_values_take_the_lowest_and_highest_bars(values: list[float]) -> None:
    drawn = bars(values, min(values), max(values))
    assert len(drawn) == len(values)
    if min(values) < max(values):
        assert drawn[values.index(min(values))] == BARS[0]
        assert drawn[values.index(max(values))] == BARS[-1]


@given(FINITE, st.integers(1, 100), FINITE, FINITE)
def test_a_constant_series_is_flat(value: float, length: int, low: float, high: float) -> None:
    assert len(set(bars([value] * length, low, high))) == 1


def test_unknown_windows_are_gaps_and_not_zeros() -> None:
    assert bars([0.0, None, math.nan, 8.0], 0.0, 8.0) == "▁  █"


# Numbers


@given(st.floats(1e-300, 1e300))
def test_figures_keep_three_digits(value: float) -> None:
    read = float(formats.figure(value).replace(",", ""))
    assert abs(read - value) <= abs(value) * 0.00501


@given(st.floats(0.0, 1.0), st.integers(0, 3))
@example(0.005, 0)
@example(0.995, 0)
def test_a_share_is_all_or_nothing_only_where_it_is(value: float, digits: int) -> None:
    text = formats.share(value, digits)
    assert (text == "100 %") == (value == 1.0)
    assert (text == "0 %") == (value == 0.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0 s"),
        (0.0171, "17.1 ms"),
        (0.9999, "1 s"),
        (60, "60 s"),
        (119.7, "2 min"),
        (3432, "57 min 12 s"),
        (3599.7, "1 h"),
        (9000, "2 h 30 min"),
        (604_800, "7 d"),
        (90_000, "1 d 1 h"),
        (-5, "−5 s"),
    ],
)
def test_durations_read_in_their_units(seconds: float | None, text: str) -> None:
    assert formats.duration(seconds) == text


@given(ODD_NUMBERS)
def test_no_number_is_too_odd_to_write(value: float | None) -> None:
    for write in (
        formats.count,
        formats.figure,
        formats.given,
        formats.signed,
        formats.share,
        formats.duration,
    ):
        assert write(value)


def learned() -> Any:
    times = {"told_ms": 10.0, "learned_ms": 19.0, "true_ms": 20.0}
    made: Any = document()
    made["world"] = {**made["profile"], "name": "h200-true"}
    made["runs"][0]["surfaces"] = {
        "ttft": [{"isl": 1020.0, **times}],
        "itl": [{"requests": 64, "context_tokens": 1218.0, **times}],
    }
    return made


def test_what_was_learned_stands_beside_what_is_true() -> None:
    text = render(learned())
    assert line_of(text, "engines").split()[1] == "h200-true"
    rows = [line.split() for line in text.splitlines() if line.endswith("-5.0%")]
    assert rows == [
        ["1,020", "10.0", "19.0", "20.0", "-5.0%"],
        ["64", "x", "1,218", "10.0", "19.0", "20.0", "-5.0%"],
    ]


@given(ODD_NUMBERS)
def test_odd_times_of_engines_are_printed(odd: Any) -> None:
    render(replaced(learned(), lambda leaf: odd if isinstance(leaf, float) else leaf))


def test_a_trace_that_has_a_date_is_shown_by_the_clock():
    made = document()
    made["trace"]["started_at"] = "2026-11-24T23:59:30+01:00"
    text = render(made)
    assert "from 2026-11-24 23:59 +0100" in text
    assert "2026-11-24 23:59 to 2026-11-25 00:" in text


@pytest.mark.parametrize("odd", ["soon", 5, None, "9999-12-31T23:59:59"])
def test_a_date_that_is_none_is_left_out(odd: object):
    made = document()
    made["trace"]["started_at"] = odd
    assert "over time" in render(made)
