"""The answer: which to take, fixed sizes or autoscaled ones, and what each costs."""

from __future__ import annotations

import dataclasses

import pytest
from experiment_world import PROFILE, compared, config, wave
from sagescale.document import Choice
from sagescale.errors import InputError
from sagescale.experiment.answer import answer, cheapest_fixed, gpu_hour_price
from sagescale.planner import AutoscalerConfig
from sagescale.sim.config import GpuHourPrice, SimulatorConfig

TARGETS = AutoscalerConfig(target_ttft_ms=300.0, target_itl_ms=30.0)


def fixed(hours=24.0, attainment=0.998):
    return Choice(
        name="static", sizes={"prefill": [5, 5], "decode": [3, 3]}, attainment=attainment, gpu_hours=hours
    )


def scaled(hours=19.1, attainment=0.994):
    return Choice(
        name="slo", sizes={"prefill": [3, 5], "decode": [1, 3]}, attainment=attainment, gpu_hours=hours
    )


def test_a_manager_reads_what_to_do():
    found = answer(TARGETS, 0.99, fixed(), scaled())
    assert found.text == (
        "for TTFT 300 / ITL 30 ms at 99 %: fixed 5 prefill + 3 decode all day (24.0 GPU-hours, 99.80 %), "
        "or autoscaled with slo 3-5 + 1-3 (19.1 GPU-hours, 99.40 %): saves 20 %"
    )
    assert found.take == "autoscaled"
    assert found.saves == pytest.approx(1 - 19.1 / 24.0)


@pytest.mark.parametrize(
    ("pair", "run", "take", "words"),
    [
        (fixed(), scaled(hours=30.0), "fixed", "autoscaling costs 25 % more, take the fixed pair"),
        (fixed(), scaled(hours=24.0), "fixed", "autoscaling saves nothing, take the fixed pair"),
        (fixed(), scaled(attainment=0.9), "fixed", "90.00 %, falls short): take the fixed pair"),
        (fixed(attainment=0.9), scaled(), "autoscaled", "take the autoscaled one"),
        (None, scaled(), "autoscaled", "no fixed pair within the limits and the budget holds"),
        (None, scaled(attainment=0.9), "neither", "neither holds"),
        (fixed(), None, "fixed", "take the fixed pair"),
    ],
)
def test_fixed_sizes_are_named_also_when_they_are_better(pair, run, take, words):
    found = answer(TARGETS, 0.99, pair, run)
    assert found.take == take
    assert words in found.text
    assert pair is None or "fixed 5 prefill + 3 decode all day (24.0 GPU-hours" in found.text


def test_money_stands_beside_gpu_hours():
    found = answer(TARGETS, 0.99, fixed(), scaled(), price=2.5)
    assert "24.0 GPU-hours, costing 60.00," in found.text
    assert found.autoscaled is not None
    assert found.autoscaled.cost == pytest.approx(47.75)


@pytest.mark.parametrize("given", ["h200:3,H100:2", {"H200": 3, "h100": 2.0}, 3, "3"])
def test_a_price_is_by_gpu_type_or_one_for_all(given):
    price = GpuHourPrice.parse(given)
    assert price is not None
    assert price.of("H200") == 3.0
    assert GpuHourPrice.parse(str(price)) == price


@pytest.mark.parametrize("given", ["", "much", "h100:", -1, True, [], {}, {"h100": None}, "h100:nan"])
def test_what_is_no_price_is_refused(given):
    with pytest.raises(ValueError, match="expected the price of a GPU-hour"):
        GpuHourPrice.parse(given)


def test_a_price_that_lacks_the_profiles_gpu_is_refused():
    simulator = SimulatorConfig(gpu_hour_price=GpuHourPrice.parse("b300:9"))
    with pytest.raises(InputError, match=f"the profile's GPU is {PROFILE.gpu}"):
        gpu_hour_price(simulator, PROFILE)


def test_the_fixed_pair_of_a_simulation_is_that_of_the_comparison():
    trace = wave(16_000)
    found = compared(trace)["answer"]["fixed"]
    alone = cheapest_fixed(trace, PROFILE, config(), SimulatorConfig())
    assert alone is not None
    assert found["sizes"] == alone.sizes
    assert found["gpu_hours"] == pytest.approx(alone.gpu_hours)
    assert alone.attainment >= 0.99


def test_fixed_sizes_that_cannot_hold_are_none():
    tight = dataclasses.replace(config(), target_ttft_ms=1.0)
    assert cheapest_fixed(wave(), PROFILE, tight, SimulatorConfig()) is None


def test_a_comparison_and_its_price_end_with_the_answer():
    document = compared(wave(16_000), {"gpu_hour_price": GpuHourPrice.parse(2)})
    assert document["gpu_hour_price"] == 2.0
    found = document["answer"]
    assert found["fixed"]["cost"] == pytest.approx(2.0 * found["fixed"]["gpu_hours"])
    assert "all day" in found["text"]


def test_nothing_is_claimed_of_sizes_that_were_not_searched_for():
    found = answer(TARGETS, 0.99, None, scaled(), not_searched="--fixed-sizes does")
    assert "fixed sizes were not searched for (--fixed-sizes does)" in found.text
    assert found.text.endswith("99.40 %)")
