"""The guide's quick start, as it stands, against an emulated cluster; and what it shows of a running manager.

The emulated engines are the default profile's, with prefill instances four times as fast on four GPUs, as the
guide configures them. Traffic is a flat load that its two decode instances cannot carry, and then none. That
takes 20 seconds of waiting: one test looks at all that was seen, since tests of several workers would wait
once each.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import io
import re
import time
from contextlib import redirect_stdout

import numpy as np
import pytest
from guide_document import Guide, read_guide
from sagescale import AutoscalerConfig, ControlPlaneManager, ExecutionInstanceType
from sagescale.control_plane.emulated import emulated
from sagescale.perf import DEFAULT_PROFILE, load_profile, write_profile

SPEED = 40.0
PRELUDE = """
from sagescale import ExecutionInstanceType
prefill_instance, decode_instance_1, decode_instance_2 = platform.instances()
manager.use_metrics(platform.metrics())
manager.set_scaling_callbacks(platform.create_instance, platform.remove_instance)
"""
"""What the block on starting and watching leaves undefined, and the cluster it is to run on."""

TROUBLE = "PREFILLING = ExecutionInstanceType.PREFILLING"
"""What the block on trouble leaves undefined."""


class EnoughError(Exception):
    """Raised out of the guide's endless loop."""


@pytest.fixture
def guide(shared):
    return read_guide(shared)


@pytest.fixture
def four_gpu_prefill(tmp_path):
    profile = load_profile(DEFAULT_PROFILE)
    prefill = dataclasses.replace(
        profile.prefill,
        gpus_per_instance=4,
        ttft_ms=tuple(each / 4 for each in profile.prefill.ttft_ms),
        quadratic_ms=profile.prefill.quadratic_ms / 4,
        floor_ms=None,
    )
    path = tmp_path / "four.yaml"
    write_profile(dataclasses.replace(profile, prefill=prefill), path)
    return path


@pytest.fixture
def busy_then_idle(tmp_path):
    rng = np.random.default_rng(7)
    arrival_s = np.sort(rng.uniform(0, 480, 480 * 150))
    path = tmp_path / "busy.csv"
    rows = "\n".join(f"{at - arrival_s[0]:.4f},800,220" for at in arrival_s)
    path.write_text(f"arrival_s,isl,osl\n{rows}\n")
    return path


@dataclasses.dataclass
class Watched:
    """What was seen while the guide's loop ran."""

    printed: str
    largest: int
    asides: list[dict[str, object]]
    manager: ControlPlaneManager
    guide: Guide


@pytest.fixture
def watched(guide, four_gpu_prefill, busy_then_idle):
    """Run the quick start until the pools have grown and come back, its minutes the emulator's.

    Traffic begins when the guide's loop has shown the registered instances, however slow the machine is.
    """
    options = ["--profile", four_gpu_prefill, "--set", "initial_prefill=1", "--set", "initial_decode=2"]
    options += ["--set", "startup_delay_s=30"]
    sleep = asyncio.sleep
    deadline_s = time.monotonic() + 600.0
    asides = []
    minutes = largest = 0

    async def shorter(seconds, *rest):
        nonlocal minutes, largest
        if seconds != 60:  # not the guide's
            return await sleep(seconds, *rest)
        minutes += 1
        if minutes == 2:
            scope["platform"].begin()
        await sleep(60 / SPEED)
        there = manager.get_instances()
        decode = [i for i in there if i.instance_type is ExecutionInstanceType.DECODING]
        if len(decode) > largest:
            largest = len(decode)
            asides.append(aside())
        if (largest > 2 and len(there) == 3) or time.monotonic() > deadline_s:
            raise EnoughError
        return None

    def aside() -> dict[str, object]:
        """The guide's blocks on a running manager, while it runs."""
        seen = dict(scope)
        exec(TROUBLE, seen)
        with redirect_stdout(io.StringIO()) as out:
            for heading in ("获取 Autoscaler 状态", "问题：Autoscaler 不扩容"):
                exec(compile(guide.blocks[heading].as_ours(), heading, "exec"), seen)
        return {"status": seen["status"], "printed": out.getvalue(), "instances": seen["instances"]}

    scope: dict[str, object] = {}
    exec(guide.blocks["1. 基本配置"].as_ours(), scope)
    manager = scope["manager"]
    with (
        emulated(str(busy_then_idle), *map(str, options), speed=SPEED) as scope["platform"],
        pytest.MonkeyPatch.context() as patched,
        redirect_stdout(io.StringIO()) as out,
    ):
        exec(PRELUDE, scope)
        patched.setattr(asyncio, "sleep", shorter)
        with pytest.raises(EnoughError):
            exec(compile(guide.blocks["2. 启动并监控"].as_ours(), "2. 启动并监控", "exec"), scope)
    return Watched(out.getvalue(), largest, asides, manager, guide)


def the_quick_start_says_what_the_guide_prints(watched):
    lines = watched.printed.splitlines()
    assert lines[0] == "Autoscaler running: True"
    assert re.fullmatch(r"Correction factors: \{'prefill': [\d.]+, 'decode': [\d.]+\}", lines[1])
    assert re.fullmatch(r"Instances: Prefill=\d, Decode=\d+", lines[2])
    assert len(lines) % 3 == 0


def it_grows_under_load_and_comes_back_when_there_is_none(watched):
    decode = [int(count) for count in re.findall(r"Decode=(\d+)", watched.printed)]
    assert decode[0] == 2
    assert watched.largest > 2
    assert len(watched.manager.get_instances()) == 3, "grown, and back at the guide's minima"


def it_stays_within_the_guides_limits(watched):
    pools = re.findall(r"Prefill=(\d+), Decode=(\d+)", watched.printed)
    assert all(1 <= int(prefill) <= 5 and int(decode) >= 2 for prefill, decode in pools)
    # Draining ones are still shown; they hold GPUs as well.
    assert all(4 * int(prefill) + int(decode) <= 24 for prefill, decode in pools)


def it_ends_with_the_event_loop(watched):
    assert not watched.manager.get_autoscaler_status()["running"]


def the_status_is_the_guides_dictionary(watched):
    text = watched.guide.blocks["获取 Autoscaler 状态"].text
    documented = ast.literal_eval("".join(re.findall(r"^# ?(.*\n)", text, flags=re.MULTILINE)))
    status = watched.asides[-1]["status"]
    assert list(status) == list(documented)
    assert status["config"] == documented["config"]
    assert (status["enabled"], status["running"]) == (documented["enabled"], documented["running"])
    assert list(status["correction_factors"]) == list(documented["correction_factors"])
    assert isinstance(status["last_adjustment_time"], type(documented["last_adjustment_time"]))
    # Adjustments are dated in the emulator's time, which runs ahead of the clock.
    assert status["last_adjustment_time"] > 1730198400.0


def trouble_is_looked_into_as_the_guide_does(watched):
    for aside in watched.asides:
        assert f"{aside['status']}\n" in aside["printed"]
        prefill = sum(i.instance_type is ExecutionInstanceType.PREFILLING for i in aside["instances"])
        assert f"Current: Prefill={prefill}" in aside["printed"]


def metrics_come_from_the_registered_instances(watched):
    decision = watched.manager.last_decision
    assert decision.forecast.isl == pytest.approx(800, rel=0.01)
    assert AutoscalerConfig().target_ttft_ms == 200.0


WHAT_HOLDS = (
    the_quick_start_says_what_the_guide_prints,
    it_grows_under_load_and_comes_back_when_there_is_none,
    it_stays_within_the_guides_limits,
    it_ends_with_the_event_loop,
    the_status_is_the_guides_dictionary,
    trouble_is_looked_into_as_the_guide_does,
    metrics_come_from_the_registered_instances,
)


def test_the_quick_start_does_what_the_guide_says(watched):
    failed = []
    for holds in WHAT_HOLDS:
        try:
            holds(watched)
        except AssertionError as error:
            failed.append(f"{holds.__name__}: {error}")
    assert not failed, "\n".join(failed)
