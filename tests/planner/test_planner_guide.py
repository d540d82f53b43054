"""The user's guide, held word for word: its configurations, its log lines, its status."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from planner_world import BUSY, NOTHING_KNOWN, make_planner, seen
from sagescale.planner import AutoscalerConfig, PoolCounts

GUIDE_DEFAULTS = {
    "target_ttft_ms": 200.0,
    "target_itl_ms": 50.0,
    "adjustment_interval_sec": 60,
    "min_prefill_instances": 1,
    "max_prefill_instances": 10,
    "min_decode_instances": 1,
    "max_decode_instances": 20,
    "max_gpu_budget": 32,
    "prefill_gpus_per_instance": 4,
    "decode_gpus_per_instance": 1,
    "load_predictor_type": "constant",
    "prediction_window_size": 10,
    "profile_data_dir": None,
    "enable_online_learning": True,
    "enable_correction": True,
    "no_operation": False,
}


def test_names_order_and_defaults_are_the_guides():
    fields = dataclasses.fields(AutoscalerConfig)[: len(GUIDE_DEFAULTS)]
    assert {field.name: field.default for field in fields} == GUIDE_DEFAULTS
    assert [field.name for field in fields] == list(GUIDE_DEFAULTS)
    for field in fields:
        assert type(getattr(AutoscalerConfig(), field.name)) is type(GUIDE_DEFAULTS[field.name])


@pytest.mark.parametrize(
    "keys",
    [
        {
            "target_ttft_ms": 200.0,
            "target_itl_ms": 50.0,
            "adjustment_interval_sec": 60,
            "min_prefill_instances": 1,
            "max_prefill_instances": 5,
            "min_decode_instances": 2,
            "max_decode_instances": 10,
            "max_gpu_budget": 24,
            "prefill_gpus_per_instance": 4,
            "decode_gpus_per_instance": 1,
            "load_predictor_type": "moving_average",
        },
        {"profile_data_dir": "/path/to/profile_results", "enable_online_learning": False},
        {"no_operation": True},
        {"load_predictor_type": "arima", "prediction_window_size": 20},
        {"load_predictor_type": "prophet", "prediction_window_size": 30},
        {"load_predictor_type": "exponential_smoothing"},
        {"target_ttft_ms": 150.0, "target_itl_ms": 30.0},
        {"target_ttft_ms": 500.0, "target_itl_ms": 100.0},
        {
            "max_gpu_budget": 24,
            "prefill_gpus_per_instance": 4,
            "max_prefill_instances": 3,
            "decode_gpus_per_instance": 1,
            "max_decode_instances": 12,
        },
        {"adjustment_interval_sec": 120},
        {"load_predictor_type": "moving_average", "prediction_window_size": 15},
    ],
)
def test_the_guides_configurations_are_accepted_as_they_stand(keys):
    config = AutoscalerConfig(**keys)
    assert {name: getattr(config, name) for name in keys} == keys


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{record.levelname} - {record.getMessage()}" for record in caplog.records]


def test_log_lines_are_the_guides(caplog):
    with caplog.at_level(logging.DEBUG, logger="sagescale.planner"):
        planner = make_planner(enable_online_learning=False)
        planner.step(
            seen(
                BUSY,
                requests=600.0,
                isl_mean=1024.5,
                osl_mean=256.3,
                ttft_ms_mean=104.8,
                itl_ms_mean=58.92,
                prefill=PoolCounts(ready=2),
            )
        )
    assert lines(caplog) == [
        "INFO - Autoscaler initialized: TTFT target=200.0ms, ITL target=50.0ms",
        "INFO - Starting autoscaling adjustment cycle",
        "INFO - Observed metrics: requests=600.0, isl=1024.5, osl=256.3, ttft=104.8ms, itl=58.9ms",
        "INFO - Predicted load: requests=600.0, isl=1024.5, osl=256.3",
        "DEBUG - Correction factors: prefill=1.023, decode=0.982",
        "DEBUG - Prefill calculation: throughput=10245.0 / capacity=10000.0 = 2",
        "DEBUG - Decode calculation: throughput=2563.0 / capacity=1604.0 = 2",
        "INFO - Scaling decision: prefill=2, decode=2",
        "INFO - Autoscaling decision: prefill 2 -> 2 (delta=0), decode 2 -> 2 (delta=0)",
    ]


def test_unknown_is_logged_as_unknown(caplog):
    with caplog.at_level(logging.INFO, logger="sagescale.planner"):
        make_planner().step(NOTHING_KNOWN)
    assert (
        "INFO - Observed metrics: requests=unknown, isl=unknown, osl=unknown, ttft=unknown, itl=unknown"
        in lines(caplog)
    )
    assert "INFO - Predicted load: requests=unknown, isl=unknown, osl=unknown" in lines(caplog)


def test_a_scale_down_is_logged_with_its_sign(caplog):
    with caplog.at_level(logging.INFO, logger="sagescale.planner"):
        make_planner().step(seen(NOTHING_KNOWN, requests=0.0))
    assert lines(caplog)[-1] == (
        "INFO - Autoscaling decision: prefill 3 -> 1 (delta=-2), decode 4 -> 1 (delta=-3)"
    )


def test_online_learning_that_cannot_be_is_said(caplog):
    with caplog.at_level(logging.INFO, logger="sagescale.planner"):
        make_planner(enable_online_learning=True)
    assert "enable_online_learning has no effect: the performance model is no profile" in caplog.text


def test_the_status_has_the_guides_shape():
    planner = make_planner()
    assert planner.get_status() == {
        "enabled": True,
        "running": True,
        "config": {"target_ttft_ms": 200.0, "target_itl_ms": 50.0, "adjustment_interval_sec": 60},
        "correction_factors": {"prefill": 1.0, "decode": 1.0},
        "last_adjustment_time": None,
    }
    planner.step(seen(BUSY, time_s=1730198400.0, ttft_ms_mean=105.0, itl_ms_mean=58.8))
    status = planner.get_status(running=False)
    assert status["correction_factors"] == pytest.approx({"prefill": 1.05, "decode": 0.98})
    assert status["last_adjustment_time"] == 1730198400.0
    assert status["running"] is False
