"""What simulations and comparisons are made of: a trace, engines and configurations, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sagescale.experiment.grid import Variant
    from sagescale.experiment.workload import Workload
    from sagescale.perf import Profile
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.run import Run
    from sagescale.trace import GivenTrace, Trace, TransformSpec

__all__ = ["Setup", "load_comparison", "load_setup"]


@dataclass(frozen=True, slots=True)
class Setup:
    """A trace, transformed; the engines, overridden; and both configurations, resolved.

    ``profile`` is what the planner assumes; ``world`` what the engines really are, None where that is it.
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
    trace: Trace | GivenTrace,
    profile: str | Profile | None,
    files: Sequence[Path],
    overrides: Sequence[str],
    transforms: TransformSpec,
    options: Mapping[str, tuple[str, object]],
    world: str | Profile | None = None,
) -> Setup:
    """Read and check everything a simulation needs.

    ``options`` are key and value by the option that is short for setting it. With a ``world`` and neither a
    profile nor measured data, the planner assumes an estimate of the world's model and GPU.

    Raises:
        InputError: something is wrong with it; the message says what and where.
    """
    from sagescale.live.setup import configured
    from sagescale.perf import estimate_of, load_profile
    from sagescale.sim.world import with_overrides
    from sagescale.trace import Trace, apply_transforms

    real = load_profile(world) if isinstance(world, str) else world

    def estimated(simulator: SimulatorConfig) -> Profile:
        assert real is not None  # else not asked for
        return estimate_of(with_overrides(real, simulator))

    found = configured(profile, files, overrides, options, None if real is None else estimated)
    requests = apply_transforms(trace if isinstance(trace, Trace) else trace.read(), transforms)
    true = None if real is None else with_overrides(real, found.simulator)
    return Setup(requests, found.profile, found.config, found.simulator, true)


def load_comparison(
    trace: GivenTrace,
    profile: str | None,
    files: Sequence[Path],
    overrides: Sequence[str],
    transforms: TransformSpec,
) -> tuple[Workload, list[Variant]]:
    """Read and check everything a comparison needs.

    Raises:
        InputError: something is wrong with it; the message says what and where.
    """
    from sagescale.errors import InputError
    from sagescale.experiment.grid import combinations, label_variants
    from sagescale.experiment.workload import Workload
    from sagescale.live.setup import configured
    from sagescale.planner import AutoscalerConfig

    configurations = []
    engines: dict[str | None, Profile] = {}
    for chosen_files, chosen in combinations(files, overrides):
        found = configured(profile, chosen_files, chosen)
        given = found.settings.given[AutoscalerConfig].get("profile_data_dir")
        data = None if given is None or given.value is None or profile is not None else str(given.value)
        for other in engines.keys() - {data}:
            raise InputError(
                f"profile_data_dir is {other} in one configuration and {data} in another; one "
                "comparison has one profile"
            )
        engines[data] = found.engines
        stem = chosen_files[0].stem if chosen_files else ""
        configurations.append((stem, found.config, found.simulator))
    variants = label_variants(configurations)
    workload = Workload(trace.read(), transforms, next(iter(engines.values())))
    workload.trace()  # refuses transforms that cannot be, now rather than in every run
    return workload, variants
