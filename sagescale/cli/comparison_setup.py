"""What a comparison is made of, from the command line's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sagescale.experiment.grid import Variant
    from sagescale.experiment.workload import Workload
    from sagescale.trace import TransformSpec

__all__ = ["choose", "load_comparison"]


def choose(option: str, text: str, names: Sequence[str]) -> tuple[str, ...]:
    """Read ``a,b`` or ``all``, each name once and in the order given.

    Raises:
        InputError: a name is none of ``names``.
    """
    from sagescale.errors import InputError, did_you_mean

    if text.strip() == "all":
        return tuple(names)
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in chosen:
        if name not in names:
            raise InputError(
                f"{option} {text}: '{name}' is none of {', '.join(names)} or all{did_you_mean(name, names)}"
            )
    return chosen


def load_comparison(
    trace: str,
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
    from sagescale.live.config import LiveConfig
    from sagescale.perf import ProfileModel, sizing_profile
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.loading import autoscaler_config, load_settings
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.world import with_overrides
    from sagescale.trace import read_trace

    engines = None
    data_used: str | None = None
    configurations = []
    for chosen_files, chosen in combinations(files, overrides):
        settings = load_settings((AutoscalerConfig, SimulatorConfig, LiveConfig), chosen_files, chosen)
        simulator = settings.build(SimulatorConfig)
        given = settings.given[AutoscalerConfig].get("profile_data_dir")
        data = None if given is None or given.value is None or profile is not None else str(given.value)
        if engines is None:
            engines, data_used = sizing_profile(profile, data), data
        elif data != data_used:
            raise InputError(
                f"profile_data_dir is {data_used} in one configuration and {data} in another; one "
                "comparison has one profile"
            )
        model = ProfileModel(with_overrides(engines, simulator))
        stem = chosen_files[0].stem if chosen_files else ""
        configurations.append((stem, autoscaler_config(settings, model), simulator))
    assert engines is not None  # there is always one combination at least
    variants = label_variants(configurations)
    workload = Workload(read_trace(trace), transforms, engines)
    workload.trace()  # refuses transforms that cannot be, now rather than in every run
    return workload, variants
