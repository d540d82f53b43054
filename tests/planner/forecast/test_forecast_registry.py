"""Predictors are names; misspelt ones are refused, other packages can add to them, imports stay lazy."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest
from sagescale.errors import InputError
from sagescale.planner.forecast import (
    ENTRY_POINT_GROUP,
    Forecast,
    Predictor,
    PredictorOptions,
    make_predictor,
    predictor_names,
)


class Half:
    """A predictor as another package would write it."""

    name = "half"
    refits = 0
    cadence = "nothing is fitted"

    def __init__(self, options: PredictorOptions) -> None:
        self.options = options
        self.last: float | None = None

    def observe(self, value):
        self.last = value if value is not None else self.last

    def forecast(self, horizon):
        return None if self.last is None else Forecast((self.last / 2,) * horizon, (0.0,) * horizon)


class NoPredictor:
    def __init__(self, options: PredictorOptions) -> None:
        pass


@pytest.fixture
def installed(monkeypatch):
    """Pretend that another package is installed with these entry points."""
    points = EntryPoints(
        EntryPoint(name, f"{__name__}:{target}", ENTRY_POINT_GROUP)
        for name, target in {
            "half": "Half",
            "broken": "Missing",
            "empty": "NoPredictor",
            "constant": "Half",
        }.items()
    )
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: points.select(group=group))


def test_the_built_in_names():
    assert predictor_names()[:8] == (
        "constant",
        "moving_average",
        "exponential_smoothing",
        "arima",
        "prophet",
        "kalman",
        "seasonal_naive",
        "auto",
    )


@pytest.mark.parametrize("name", predictor_names())
def test_every_name_makes_a_predictor(name):
    assert isinstance(make_predictor(name, interval_s=60.0), Predictor)


def test_a_misspelt_name_is_refused_with_a_suggestion():
    with pytest.raises(
        InputError, match=r"'moving_avrage' is unknown.*did you mean 'moving_average'\?"
    ) as caught:
        make_predictor("moving_avrage", interval_s=60.0)
    assert "seasonal_naive" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"interval_s": 0.0}, "interval_s"),
        ({"interval_s": float("nan")}, "interval_s"),
        ({"interval_s": 60.0, "window_size": 0}, "window_size"),
        ({"interval_s": 60.0, "season_s": 90.0}, "season_s"),
        ({"interval_s": 60.0, "season_s": float("inf")}, "season_s"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options, key):
    with pytest.raises(InputError, match=key):
        make_predictor("constant", **options)


def test_another_package_can_add_a_predictor(installed):
    half = make_predictor("half", interval_s=30.0, window_size=7, season_s=600.0, seed=3)
    half.observe(10.0)
    assert half.forecast(2) == Forecast((5.0, 5.0), (0.0, 0.0))
    assert half.options == PredictorOptions(30.0, 7, 600.0, 3)
    assert set(predictor_names()) >= {"half", "arima"}
    assert predictor_names().count("constant") == 1


def test_a_built_in_name_cannot_be_replaced(installed):
    assert not isinstance(make_predictor("constant", interval_s=60.0), Half)


def test_another_package_that_does_not_load_is_named(installed):
    with pytest.raises(
        InputError, match=r"'broken' \(entry point .*:Missing\) cannot be made: AttributeError"
    ):
        make_predictor("broken", interval_s=60.0)


def test_another_package_that_gives_no_predictor_is_told_what_one_is(installed):
    with pytest.raises(InputError, match=r"gives a NoPredictor, expected an object with name, refits"):
        make_predictor("empty", interval_s=60.0)


def test_simple_predictors_import_nothing_heavy():
    code = (
        "import sys\n"
        "from sagescale.planner.forecast import make_predictor\n"
        "for name in ('constant', 'moving_average', 'exponential_smoothing', 'seasonal_naive'):\n"
        "    made = make_predictor(name, interval_s=60.0); made.observe(1.0); made.forecast(2)\n"
        "heavy = {'numpy', 'pandas', 'scipy', 'statsmodels', 'prophet', 'importlib.metadata'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
