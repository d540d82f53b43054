"""Every code block of the guide: run as it stands (but for the package's name), or listed with why not.

What a block leaves undefined is given in ``PRELUDES``; blocks that need a cluster are run against the
emulator in ``test_guide_quick_start``; what is no valid Python has a hand-written equivalent below.
"""

from __future__ import annotations

import logging
import math
import re

import pytest
from guide_document import read_guide
from live_server import prometheus, serving
from planner_world import BUSY, make_planner, seen
from sagescale import AutoscalerConfig, ControlPlaneManager, InputError, MetricsCollector
from sagescale.perf import DEFAULT_PROFILE, ProfileModel, load_profile
from sagescale.planner.policy.classic import ClassicPolicy

PRELUDES = {
    "1. 基本配置": "",
    "SLA 目标": "",
    "扩缩容参数": "",
    "GPU 预算": "",
    "负载预测": "",
    "性能插值": "from typing import Optional",
    "其他选项": "",
    "Prefill 副本数": """
from math import ceil
next_num_req, next_isl, interval, prefill_correction_factor = 3000.0, 1200.0, 60, 0.9
throughput_per_gpu, gpus_per_instance = model.prefill_throughput_per_gpu(next_isl), 1
""",
    "1. 使用 Prometheus 指标": "",
    "2. 自定义性能插值": "",
    "3. Dry-run 模式": "from sagescale import AutoscalerConfig",
    "4. 自定义负载预测器": "from sagescale import AutoscalerConfig",
    "2. 设置合理的 SLA 目标": "",
    "3. GPU 预算规划": "from sagescale import AutoscalerConfig",
    "问题：频繁扩缩容": "from sagescale import AutoscalerConfig",
}
"""What is run here, with what it leaves undefined."""

WITH_A_CLUSTER = ("2. 启动并监控", "获取 Autoscaler 状态", "问题：Autoscaler 不扩容")
"""What is run in ``test_guide_quick_start``, in the manager that "1. 基本配置" makes."""

NOT_RUN = {
    "架构": "a drawing",
    "扩缩容流程": "the cycle in words",
    "Decode 副本数": "no Python: find_best_throughput(itl=..., context_length), positional after keyword",
    "查看日志": "log lines",
}

MODEL = ProfileModel(load_profile(DEFAULT_PROFILE))


@pytest.fixture(scope="module")
def guide(shared):
    return read_guide(shared)


def run(guide, heading: str) -> dict[str, object]:
    scope: dict[str, object] = {"__name__": "guide", "model": MODEL}
    exec(PRELUDES[heading], scope)
    exec(compile(guide.blocks[heading].as_ours(), heading, "exec"), scope)
    return scope


def given(scope: dict[str, object]) -> dict[str, object]:
    """What a block of annotated names has set."""
    return {name: scope[name] for name in scope["__annotations__"]}


def test_every_block_is_run_or_listed(guide):
    assert list(guide.blocks) == sorted([*PRELUDES, *WITH_A_CLUSTER, *NOT_RUN], key=guide.headings.index)


@pytest.mark.parametrize("heading", NOT_RUN)
def test_what_is_not_run_is_indeed_no_python(guide, heading):
    with pytest.raises(SyntaxError):
        compile(guide.blocks[heading].as_ours(), heading, "exec")


def test_basic_configuration(guide):
    scope = run(guide, "1. 基本配置")
    manager, config = scope["manager"], scope["autoscaler_config"]
    assert manager.config == config
    assert (config.max_prefill_instances, config.max_gpu_budget) == (5, 24)
    assert manager.get_autoscaler_status()["enabled"]


@pytest.mark.parametrize(
    "heading", ["SLA 目标", "扩缩容参数", "GPU 预算", "负载预测", "性能插值", "其他选项"]
)
def test_parameters_have_the_defaults_the_guide_gives(guide, heading):
    values = given(run(guide, heading))
    assert values
    config = AutoscalerConfig()
    assert {name: getattr(config, name) for name in values} == values


def test_the_guides_predictors_are_all_there(guide):
    names = guide.predictors()
    assert len(names) == 5
    for name in names:
        assert AutoscalerConfig(load_predictor_type=name).load_predictor_type == name


def test_prefill_replicas(guide):
    scope = run(guide, "Prefill 副本数")
    config = AutoscalerConfig(prefill_gpus_per_instance=1)
    sized = ClassicPolicy(config, MODEL).size_for(
        scope["next_num_req"], scope["next_isl"], 200.0, _corrections(prefill=0.9)
    )
    assert scope["num_prefill"] == sized.pools.prefill.instances == 2


def test_decode_replicas_by_hand():
    """The block's lines, with ``context_length`` named as its keyword."""

    def find_best_throughput(itl, context_length):
        return MODEL.decode_throughput_per_gpu(itl, context_length).tokens_per_s_per_gpu

    target_itl, decode_correction_factor, interval, gpus_per_instance = 50.0, 1.6, 60, 1
    next_num_req, next_isl, next_osl = 9000.0, 1200.0, 200.0
    context_length = next_isl + next_osl / 2

    corrected_itl = target_itl / decode_correction_factor
    capacity_per_gpu = find_best_throughput(itl=corrected_itl, context_length=context_length)
    predicted_throughput = next_num_req * next_osl / interval
    num_decode = math.ceil(predicted_throughput / capacity_per_gpu / gpus_per_instance)

    sized = ClassicPolicy(AutoscalerConfig(), MODEL).size_for(
        next_num_req, next_isl, next_osl, _corrections(decode=1.6)
    )
    assert num_decode == sized.pools.decode.instances == 3


def _corrections(prefill=1.0, decode=1.0):
    from sagescale.planner import Corrections

    return Corrections(prefill, decode)


def test_prometheus_is_read_as_the_guide_says(guide):
    collector = run(guide, "1. 使用 Prometheus 指标")["metrics_collector"]
    manager = ControlPlaneManager(enable_auto_scaling=True, metrics_collector=collector)
    source = manager._collector.source(list, "prefill")
    assert source.describe() == "Prometheus at http://localhost:9090 (sagellm names)"
    source.close()
    empty = {"status": "success", "data": {"resultType": "vector", "result": []}}
    with serving() as server:  # in place of a Prometheus at the guide's address
        server.answers["/api/v1/query"] = prometheus((200, empty, {}))
        found = MetricsCollector(**{**collector.settings, "prometheus_url": server.url}).collect(60.0)
        query = server.form()["query"]
    assert 'namespace="sagellm"' in query
    assert 'model="llama-2-7b"' in query
    assert found.problems[0].code == "no_series"


def test_profile_data_is_sized_with_and_nothing_else(guide, shared):
    config = run(guide, "2. 自定义性能插值")["config"]
    assert not config.enable_online_learning
    with pytest.raises(InputError, match="/path/to/profile_results"):
        ControlPlaneManager(autoscaler_config=config)
    folder = shared / "profiles" / "dynamo_h200_llama-3.1-8b-fp8"
    manager = ControlPlaneManager(autoscaler_config=AutoscalerConfig(profile_data_dir=str(folder)))
    assert manager._profile_name != DEFAULT_PROFILE


def test_dry_run_is_no_operation(guide):
    assert run(guide, "3. Dry-run 模式")["config"].no_operation


def test_predictors_with_a_larger_window(guide):
    config = run(guide, "4. 自定义负载预测器")["config"]
    assert (config.load_predictor_type, config.prediction_window_size) == ("prophet", 30)
    assert ControlPlaneManager(autoscaler_config=config).config.history_points == 30


def test_sla_targets_for_both_kinds_of_use(guide):
    scope = run(guide, "2. 设置合理的 SLA 目标")
    # Copied out of a call, each line makes a tuple; the last two are those for batch work.
    ((ttft_ms,), (itl_ms,)) = scope["target_ttft_ms"], scope["target_itl_ms"]
    assert (ttft_ms, itl_ms) == (500.0, 100.0)
    assert AutoscalerConfig(target_ttft_ms=ttft_ms, target_itl_ms=itl_ms).target_itl_ms == 100.0


def test_a_budget_of_24_gpus(guide):
    config = run(guide, "3. GPU 预算规划")["config"]
    prefill = config.max_prefill_instances * config.prefill_gpus_per_instance
    decode = config.max_decode_instances * config.decode_gpus_per_instance
    assert prefill + decode == config.max_gpu_budget == 24


def test_calmer_scaling(guide):
    config = run(guide, "问题：频繁扩缩容")["config"]
    assert (config.load_predictor_type, config.prediction_window_size) == ("moving_average", 15)
    assert "adjustment_interval_sec=120," in guide.blocks["问题：频繁扩缩容"].text


def shape(line: str) -> str:
    return re.sub(r"-?\d+(\.\d+)?", "0", line)


def test_the_log_has_the_guides_lines_in_the_guides_order(guide, caplog):
    with caplog.at_level(logging.DEBUG, logger="sagescale.planner"):
        make_planner(enable_online_learning=False).step(seen(BUSY))
    ours = [shape(f"{record.levelname} - {record.getMessage()}") for record in caplog.records]
    assert ours == [shape(line) for line in guide.blocks["查看日志"].text.splitlines()]


def test_the_cycle_has_the_guides_seven_steps_in_order(guide, caplog):
    """Each step leaves its line in the log, or its field in the decision."""
    steps = re.findall(r"^(\d)\. (.*)$", guide.blocks["扩缩容流程"].text, flags=re.MULTILINE)
    assert [number for number, _ in steps] == list("1234567")
    with caplog.at_level(logging.DEBUG, logger="sagescale.planner"):
        decision = make_planner(enable_online_learning=False, max_decode_instances=1).step(seen(BUSY))
    text = caplog.text
    marks = [
        "Observed metrics",  # 1 collect; 2 the predictors are fed what was observed
        "Predicted load",  # 4 forecast
        "Correction factors",  # 3 correct; logged after the forecast, as in the guide's own log
        "Prefill calculation",  # 5 size
        "Decode calculation",
        "Scaling decision",  # 6 constrain
        "Autoscaling decision",  # 7 what is to be carried out
    ]
    assert [text.index(mark) for mark in marks] == sorted(text.index(mark) for mark in marks)
    assert (decision.forecast.requests, decision.raw.decode, decision.targets.decode) == (600.0, 2, 1)
