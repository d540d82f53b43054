"""The scenarios: what is served, by which engines, under which promise, on which side of the split."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import traffic
from sagescale.experiment.workload import BLOCK_S
from sagescale.perf import load_profile
from sagescale.planner import AutoscalerConfig
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.startup import StartupDelay
from sagescale.trace import TransformSpec
from traffic import CODE as _CODE
from traffic import CONV as _CONV
from traffic import HOUR_S, M_LARGE, M_MID, MOONCAKE, R1

FIRST_SHARE = 0.4
WARM_UP_S = 600.0
STARTUP_SPREAD = 0.2
"""Startup times are drawn uniformly within this share of the scenario's: whole multiples of the interval
would have every instance READY exactly at a tick."""


@dataclass(frozen=True)
class Scenario:
    """One row of the table.

    Attributes:
        seeds: replicates judged: other copies of the requests, other startup draws.
        knob_seeds: replicates, the first ones, on which knobs are set.
        trace: a name that traffic.recorded knows.
        foreseen: clairvoyant is solved on so many of the judged seeds, the first ones; None is all.
        first_seed: the first judged one; knobs are set on 0, 1, ...
        look: after so many seeds, combinations that are clearly losing are stopped.
        first_s: knobs are set on what arrives before; None is 40 % of the trace.
        hours_resampled: intervals come from resampling the hours of the judged part, not from the seeds.
        around: neighbours of a knob's value that are tried as well.
        budget_share: the GPU budget as a share of the peak that the clairvoyant schedule needs without one.
    """

    name: str
    trace: str
    rate_scale: float
    profile: str
    target_ttft_ms: float
    target_itl_ms: float
    startup_s: float
    interval_s: int
    seeds: int = 10
    knob_seeds: int = 3
    look: int = 3
    first_s: float | None = None
    hours_resampled: bool = False
    around: int = 3
    budget_share: float | None = None
    first_seed: int = 0
    foreseen: int | None = None

    def recorded(self):
        return traffic.recorded(self.trace)

    @property
    def judges(self):
        """Whether it stands on the judging side of the split."""
        return traffic.judges(self.trace)

    @property
    def is_day(self):
        """Hours are reported apart from days."""
        return self.recorded().duration_s >= 12 * HOUR_S - 60.0

    @property
    def block_s(self):
        """Replicates of a trace that is not multiplied have its arrivals rotated within blocks."""
        return BLOCK_S if self.first_seed and self.rate_scale <= 1.0 else None

    @property
    def transforms(self):
        return TransformSpec(rate_scale=self.rate_scale, jitter_s=30.0)

    def engines(self):
        return load_profile(self.profile)

    @property
    def cut_s(self):
        """Where the part on which knobs are set ends and the judged part begins."""
        return FIRST_SHARE * self.recorded().duration_s if self.first_s is None else self.first_s

    def config(self, budget):
        """The constraints that all policies share."""
        engines = self.engines()
        return AutoscalerConfig(
            target_ttft_ms=self.target_ttft_ms,
            target_itl_ms=self.target_itl_ms,
            adjustment_interval_sec=self.interval_s,
            min_prefill_instances=1,
            max_prefill_instances=128,
            min_decode_instances=1,
            max_decode_instances=128,
            max_gpu_budget=budget,
            prefill_gpus_per_instance=engines.prefill.gpus_per_instance,
            decode_gpus_per_instance=engines.decode.gpus_per_instance,
        )

    def simulator(self, seed):
        low, high = (1.0 - STARTUP_SPREAD) * self.startup_s, (1.0 + STARTUP_SPREAD) * self.startup_s
        return SimulatorConfig(startup_delay_s=StartupDelay("uniform", (low, high)), simulation_seed=seed)


_SMALL, _LARGE = "h200-llama-3.1-8b-fp8", "h100-llama-3.3-70b-fp8-tp4"
_TWO = "h100-llama-3.3-70b-fp8-tp2"

CHAT = Scenario("chat", _CONV, 20, _SMALL, 300, 30, 60, 60)
CODE = Scenario("code", _CODE, 20, _SMALL, 500, 30, 60, 30)

SCENARIOS = (
    CHAT,
    Scenario("fleet", _CONV, 100, _SMALL, 300, 30, 60, 60, seeds=5, knob_seeds=2, look=2),
    CODE,
    Scenario("large", _CONV, 10, _LARGE, 1000, 50, 300, 60),
    Scenario(
        "days",
        M_LARGE,
        10,
        _LARGE,
        1000,
        50,
        180,
        60,
        seeds=2,
        knob_seeds=1,
        look=1,
        first_s=86400.0,
        hours_resampled=True,
        around=1,
    ),
    dataclasses.replace(CHAT, name="budget", budget_share=0.8),
)

ELSEWHERE = tuple(
    dataclasses.replace(scenario, seeds=3, knob_seeds=2)
    for scenario in (
        dataclasses.replace(CHAT, name="chat_relaxed", rate_scale=8, target_ttft_ms=2000, target_itl_ms=50),
        dataclasses.replace(CHAT, name="chat_strict", rate_scale=40, target_ttft_ms=200, target_itl_ms=25),
        dataclasses.replace(CHAT, name="chat_slow_start", startup_s=120),
        dataclasses.replace(CHAT, name="chat_quick", rate_scale=60, startup_s=30, interval_s=30),
        dataclasses.replace(CODE, name="code_little", rate_scale=5),
        dataclasses.replace(CODE, name="code_much", rate_scale=60, target_ttft_ms=1000, target_itl_ms=40),
        Scenario("code_large", _CODE, 20, _LARGE, 1500, 50, 120, 60),
        Scenario("chat_large", _CONV, 30, _LARGE, 800, 45, 180, 60),
    )
)
"""Other rates, targets, engines and startup times: nothing of any policy was chosen on these."""

MAX_GPU_BUDGET = 512


RULES = {"seeds": 5, "knob_seeds": 2, "look": 2, "around": 1, "first_seed": 1000}
"""Those of SPLIT.md: five judged seeds, knobs on two, and a short search."""


def _of_today(*arguments, **more):
    return Scenario(*arguments, **(RULES | more))


MADE_UP = (
    _of_today("bursts", "bursts", 1, _SMALL, 300, 30, 60, 60),
    _of_today("change", "change", 1, _SMALL, 500, 30, 90, 60),
    _of_today("waves", "waves", 1, _LARGE, 1000, 50, 180, 60),
    _of_today("waves_slow", "waves", 1, _LARGE, 1000, 50, 600, 60),
)
"""Made up, of the kinds that broke the promise: bursts within seconds, a change of regime, long starts."""

JUDGED = (
    _of_today("mid_day", M_MID, 1, _TWO, 1000, 50, 120, 60),
    _of_today("mid_small", f"{M_MID}@0-13", 0.5, _LARGE, 600, 40, 120, 60),
    _of_today("r1_day", R1, 1, _LARGE, 2000, 50, 180, 60),
    _of_today("r1_small", f"{R1}@8-22", 0.25, _LARGE, 2000, 50, 120, 60),
    _of_today("r1_slow", f"{R1}@6-20", 1, _LARGE, 2000, 50, 600, 60),
    _of_today("regime", f"{M_MID}@5-14 x 2 then {R1}@18-22 x 0.8", 1, _LARGE, 1500, 50, 90, 60),
    _of_today("r1_budget", f"{R1}@10-23", 1, _LARGE, 2000, 50, 180, 60, budget_share=0.8),
    _of_today("mid_evening", f"{M_MID}@19-22", 4, _SMALL, 300, 30, 60, 30),
    _of_today("mooncake", MOONCAKE, 10, _SMALL, 8000, 40, 60, 30),
)
"""What judges: nothing in sagescale was chosen on these traces (SPLIT.md)."""

GROUPS = {"six": SCENARIOS, "elsewhere": ELSEWHERE, "made-up": MADE_UP, "judged": JUDGED}
SETTING = ("six", "elsewhere", "made-up")


def quick(scenario):
    """The same in minutes: two seeds, a shorter search, and a third of a day (a tenth of the two days)."""
    fewer = {"seeds": min(2, scenario.seeds), "knob_seeds": 1, "look": 1, "around": 0}
    if scenario.hours_resampled:
        fewer |= {"rate_scale": 1, "seeds": 1}
    elif scenario.is_day and "@" not in scenario.trace and scenario.trace not in traffic.MADE:
        fewer["trace"] = f"{scenario.trace}@8-16"
    return dataclasses.replace(scenario, **fewer)
