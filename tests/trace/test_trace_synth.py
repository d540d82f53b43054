"""Made-up traces have the rates, burstiness, lengths and correlations that were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sagescale.errors import InputError
from sagescale.trace import Trace, read_trace, write_trace
from sagescale.trace.synth import (
    PAIRS,
    Bursty,
    Constant,
    Diurnal,
    Empirical,
    LogNormal,
    Pattern,
    Ramp,
    Spikes,
    Steady,
    Step,
    parse_correlation,
    parse_lengths,
    synthesise,
)
from trace_strategies import same_columns

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86_400.0
PATTERNS = [
    Steady(5),
    Ramp(0, 5),
    Step(1, 5, 500),
    Diurnal(5),
    Bursty(5, 3),
    Bursty(5, 3, "weibull"),
    Spikes(1, 20, 300, 30),
]


def times(pattern: Pattern, duration_s: float, seed: int = 0) -> np.ndarray:
    return pattern.arrivals(duration_s, np.random.default_rng(seed))


def rate(times_s: np.ndarray, start_s: float, end_s: float) -> float:
    return np.count_nonzero((times_s >= start_s) & (times_s < end_s)) / (end_s - start_s)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: type(p).__name__)
def test_arrivals_are_sorted_inside_the_duration_and_reproducible(pattern: Pattern) -> None:
    times_s = times(pattern, 1000)
    assert times_s.min() >= 0
    assert times_s.max() < 1000
    assert (np.diff(times_s) >= 0).all()
    assert np.array_equal(times_s, times(pattern, 1000))
    assert not np.array_equal(times_s[:10], times(pattern, 1000, seed=1)[:10])


def test_steady_is_poisson() -> None:
    times_s = times(Steady(10), 50_000)
    gaps_s = np.diff(times_s)
    assert rate(times_s, 0, 50_000) == pytest.approx(10, rel=0.01)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(1, rel=0.02)


def test_ramp_rises_in_a_straight_line() -> None:
    times_s = times(Ramp(2, 20), 10_000)
    for quarter in range(4):
        middle = (quarter + 0.5) / 4
        found = rate(times_s, quarter * 2500, (quarter + 1) * 2500)
        assert found == pytest.approx(2 + 18 * middle, rel=0.03)


def test_step_changes_at_its_time() -> None:
    times_s = times(Step(5, 20, 3000), 10_000)
    assert rate(times_s, 0, 3000) == pytest.approx(5, rel=0.03)
    assert rate(times_s, 3000, 10_000) == pytest.approx(20, rel=0.03)


def test_diurnal_peaks_at_its_hour_and_rests_at_weekends() -> None:
    times_s = times(Diurnal(1, amplitude=0.8, peak_hour=15, weekend_factor=0.25), 7 * DAY_S)
    days = [rate(times_s, day * DAY_S, (day + 1) * DAY_S) for day in range(7)]
    assert days == pytest.approx([1, 1, 1, 1, 1, 0.25, 0.25], rel=0.05)
    by_hour = np.histogram(times_s[times_s < 5 * DAY_S] % DAY_S / 3600, bins=24, range=(0, 24))[0] / 5 / 3600
    assert np.argmax(by_hour) in (14, 15)
    assert by_hour[2:4].mean() == pytest.approx(0.2, abs=0.03)
    assert by_hour[14:16].mean() == pytest.approx(1.8, rel=0.05)


def test_spikes_come_when_they_should() -> None:
    times_s = times(Spikes(2, 40, 1000, 100), 10_000)
    spiking = np.concatenate(
        [times_s[(times_s >= s) & (times_s < s + 100)] for s in range(500, 10_000, 1000)]
    )
    assert len(spiking) / 1000 == pytest.approx(40, rel=0.03)
    assert (len(times_s) - len(spiking)) / 9000 == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("family", ["gamma", "weibull"])
@pytest.mark.parametrize("cv", [0.3, 1.0, 4.0])
def test_bursty_gaps_have_the_mean_and_cv_asked_for(family: str, cv: float) -> None:
    times_s = times(Bursty(10, cv, family), 50_000)
    gaps_s = np.diff(times_s)
    assert gaps_s.mean() == pytest.approx(0.1, rel=0.04)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.05)


@pytest.mark.parametrize(
    "text",
    [
        "lognormal:mean=1000,p99=6000",
        "lognormal:mean=1000,median=450",
        "lognormal:median=450,p99=6000",
        "lognormal:median=450,sigma=1.2",
        "lognormal:mean=1000,sigma=1.2",
        "lognormal:p99=6000,sigma=1.2",
    ],
)
def test_lognormals_have_the_two_figures_asked_for(text: str) -> None:
    tokens = parse_lengths("--isl", text).from_normal(np.random.default_rng(0).standard_normal(400_000))
    found = {
        "mean": tokens.mean(),
        "median": np.median(tokens),
        "p99": np.percentile(tokens, 99),
        "sigma": np.log(tokens).std(),
    }
    for item in text.partition(":")[2].split(","):
        name, _, value = item.partition("=")
        assert found[name] == pytest.approx(float(value), rel=0.02)


def test_lengths_stay_within_their_bounds() -> None:
    z = np.random.default_rng(0).standard_normal(10_000)
    tokens = parse_lengths("--osl", "lognormal:median=100,sigma=5,min=10,max=1000").from_normal(z)
    assert (tokens.min(), tokens.max()) == (10, 1000)
    wild = parse_lengths("--osl", "lognormal:median=1,sigma=500").from_normal(z)
    assert (wild.min(), wild.max()) == (1, 2**31 - 1)


def test_the_rank_correlation_is_the_one_asked_for() -> None:
    from scipy.stats import spearmanr

    lengths = LogNormal(7, 1)
    trace = synthesise(Steady(10), 20_000, lengths, LogNormal(5, 0.5), correlation=-0.7, seed=2)
    assert spearmanr(trace.isl, trace.osl).statistic == pytest.approx(6 / np.pi * np.arcsin(-0.35), abs=0.01)


def test_lengths_do_not_disturb_arrivals() -> None:
    one = synthesise(Steady(5), 100, Constant(5), Constant(5), seed=3)
    other = synthesise(Steady(5), 100, LogNormal(5, 1), Constant(5), seed=3)
    assert np.array_equal(one.arrival_s, other.arrival_s)


@pytest.fixture
def observed(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    isl = rng.integers(1, 9, 500) ** 4
    return write_trace(Trace.from_arrays(np.arange(500.0), isl, isl * 2), tmp_path / "observed.csv")


def test_empirical_lengths_are_those_of_the_other_trace(observed: Path) -> None:
    source = read_trace(observed)
    isl, osl = (
        parse_lengths("--isl", f"empirical:{observed}"),
        parse_lengths("--osl", f"empirical:{observed}"),
    )
    made = synthesise(Steady(10), 2000, isl, osl)
    assert set(made.isl.tolist()) == set(source.isl.tolist())
    assert made.isl.mean() == pytest.approx(source.isl.mean(), rel=0.05)
    assert not np.array_equal(made.osl, made.isl * 2)


def test_pairs_draw_whole_rows(observed: Path) -> None:
    isl, osl = (
        parse_lengths("--isl", f"empirical:{observed}"),
        parse_lengths("--osl", f"empirical:{observed}"),
    )
    made = synthesise(Steady(10), 2000, isl, osl, correlation=PAIRS)
    assert np.array_equal(made.osl, made.isl * 2)


def test_made_traces_are_traces_and_the_seed_decides() -> None:
    one, same, other = (
        synthesise(Bursty(5, 2), 500, LogNormal(6, 1), LogNormal(4, 1), seed=s) for s in (1, 1, 2)
    )
    assert one.arrival_s[0] == 0
    assert same_columns(one, same)
    assert one.sha256 == same.sha256 != other.sha256


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("constant:0", "from 1 to"),
        ("constant:x", "found 'x'"),
        ("lognormal:mean=100", "exactly two"),
        ("lognormal:mean=100,sigma=1,p99=5", "exactly two"),
        ("lognormal:mean=100,sgima=1", "did you mean 'sigma'"),
        ("lognormal:mean=100,mean=100", "repeated"),
        ("lognormal:mean=-1,sigma=1", "above 0"),
        ("lognormal:mean=nan,sigma=1", "above 0"),
        ("lognormal:mean=100,p99=99999", "no lognormal has"),
        ("lognormal:mean=100,p99=50", "no lognormal has"),
        ("lognormal:mean=100,median=200", "not below its median"),
        ("lognormal:median=100,p99=50", "below the median"),
        ("lognormal:median=100,sigma=1,min=9,max=8", "above max"),
        ("lognorm:mean=100", "did you mean 'lognormal'"),
        ("512", "expected one of"),
        ("empirical:", "expected one of"),
        ("empirical:/nowhere/x.csv", "no such file"),
    ],
)
def test_bad_length_specifications_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parse_lengths("--isl", text)


@pytest.mark.parametrize("text", ["2", "-1.1", "nan", "x"])
def test_bad_correlations_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--correlation"):
        parse_correlation(text)


def test_correlations_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="correlated with nothing"):
        synthesise(Steady(5), 100, Constant(5), LogNormal(1, 1), correlation=0.5)
    rows = np.ones(3, dtype=np.int32)
    with pytest.raises(InputError, match="from the same file"):
        synthesise(Steady(5), 100, Empirical("a", rows), Empirical("b", rows), correlation=PAIRS)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Steady(0), "--rps 0"),
        (lambda: Steady(float("nan")), "--rps nan"),
        (lambda: Ramp(1, -1), "--end-rps -1"),
        (lambda: Step(1, 2, 0), "--at-s 0"),
        (lambda: Diurnal(1, amplitude=1.5), "--amplitude 1.5"),
        (lambda: Diurnal(1, peak_hour=24), "--peak-hour 24"),
        (lambda: Bursty(1, 0), "--cv 0"),
        (lambda: Spikes(1, 2, 100, 80), "--spike-s 80"),
        (
            lambda: synthesise(Step(1, 5, 200), 100, Constant(1), Constant(1)),
            "--at-s 200: the step would never",
        ),
        (
            lambda: synthesise(Spikes(1, 5, 600, 60), 300, Constant(1), Constant(1)),
            "--every-s 600: the first",
        ),
        (lambda: synthesise(Steady(1), 0, Constant(1), Constant(1)), "--duration-s 0"),
        (lambda: synthesise(Steady(1e-6), 1e9, Constant(1), Constant(1)), "a year"),
        (lambda: synthesise(Steady(1e9), 1e7, Constant(1), Constant(1)), "makes more than"),
        (lambda: synthesise(Steady(1e-9), 1, Constant(1), Constant(1)), "no request was drawn"),
        (lambda: synthesise(Steady(1), 1, Constant(1), Constant(1), seed=-1), "--seed -1"),
    ],
)
def test_bad_values_are_refused_by_option(make, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make()


def test_prompts_begin_with_one_of_a_few_beginnings(tmp_path: Path) -> None:
    lengths = parse_lengths("--isl", "lognormal:mean=200,p99=1000")
    made = synthesise(Steady(5), 1000, lengths, Constant(5), prefixes=(7, 100))
    plain = synthesise(Steady(5), 1000, lengths, Constant(5))
    assert np.array_equal(made.arrival_s, plain.arrival_s)
    assert np.array_equal(made.isl, plain.isl)
    assert made.prefixes.block_tokens == 16
    assert made.prefixes.counts.tolist() == np.minimum(made.isl // 16, 6).tolist()
    assert len(made.prefixes.ids) == 7 * 6
    again = read_trace(write_trace(made, tmp_path / "made.parquet"))
    assert again.warnings == ()
    assert same_columns(again, made)


def test_beginnings_that_no_prompt_has_room_for_are_refused() -> None:
    for prompts, tokens in ((5, 2000), (500, 501)):
        with pytest.raises(InputError, match=f"--prefix-tokens {tokens}: is longer than every prompt"):
            synthesise(Steady(5), 100, Constant(prompts), Constant(5), prefixes=(3, tokens))
    assert len(synthesise(Steady(5), 100, Constant(500), Constant(5), prefixes=(3, 500)).prefixes.ids) == 93


@pytest.mark.parametrize(
    ("groups", "tokens", "words"), [(0, 99, "1 or more"), (5, 15, "a block"), (10**9, 99, "at most")]
)
def test_beginnings_that_cannot_be_are_refused(groups: int, tokens: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        synthesise(Steady(5), 100, Constant(5), Constant(5), prefixes=(groups, tokens))
