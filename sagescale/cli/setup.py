"""What a simulation is made of, from the command line's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sagescale.perf import Profile
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.run import Run
    from sagescale.trace import Trace, TransformSpec

__all__ = ["Setup", "load_setup"]


@dataclass(frozen=True, slots=True)
class Setup:
    """A trace, transformed; the engines, overridden; and both configurations, resolved.

    ``profile`` is what the planner is told; ``world`` what the engines really are, None where that is it.
    """

    trace: Trace
    profile: Profile
    config: AutoscalerConfig
    simulator: SimulatorConfig
    world: Profile | None = None

    def warnings(self, run: Run) -> list[str]:
        """What the reader of a run's result should know, one line each (the trace's own come first)."""
        found = []
        if run.rejected:
            found.append(
                f"{run.rejected} requests are larger than the KV memory of {run.world.max_kv_tokens} tokens "
                "(isl + osl): rejected at arrival and counted unfinished"
            )
        if self.simulator.first_token == "decode":
            found.append(
                "first tokens come from decode (first_token: decode): TTFT includes hand-off and a step"
            )
        if self.config.no_operation:
            found.append("no_operation: decisions were made but not acted on; the pools stayed as they began")
        unfinished = len(run.requests) - len(run.completed) - run.rejected - run.timed_out
        if unfinished:
            found.append(
                f"{unfinished} requests could never be served: work was left when nothing could proceed"
            )
        return found


def load_setup(
    trace: str,
    profile: str | None,
    files: Sequence[Path],
    overrides: Sequence[str],
    transforms: TransformSpec,
    options: Mapping[str, tuple[str, object]],
    world: str | None = None,
) -> Setup:
    """Read and check everything a simulation needs.

    ``options`` are key and value by the option that is short for setting it. With a ``world`` and neither a
    profile nor measured data, the planner is told an estimate of the world's model and GPU.

    Raises:
        InputError: something is wrong with it; the message says what and where.
    """
    from sagescale.live.config import LiveConfig
    from sagescale.perf import ProfileModel, estimate_of, load_profile, sizing_profile
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.loading import autoscaler_config, load_settings
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.world import with_overrides
    from sagescale.trace import apply_transforms, read_trace

    settings = load_settings((AutoscalerConfig, SimulatorConfig, LiveConfig), files, overrides, options)
    simulator = settings.build(SimulatorConfig)
    data = settings.given[AutoscalerConfig].get("profile_data_dir")
    true = None if world is None else with_overrides(load_profile(world), simulator)
    if true is not None and profile is None and data is None:
        engines = with_overrides(estimate_of(true), simulator)
    else:
        engines = with_overrides(sizing_profile(profile, data and data.value), simulator)
    config = autoscaler_config(settings, ProfileModel(engines))
    requests = apply_transforms(read_trace(trace), transforms)
    return Setup(requests, engines, config, simulator, true)
