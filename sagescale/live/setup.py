"""What commands are made of: settings, engines and configurations, from files and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.live.config import LiveConfig, configuration_classes
from sagescale.perf import ProfileModel, sizing_profile
from sagescale.planner import AutoscalerConfig, pool_keys
from sagescale.planner.loading import autoscaler_config, load_settings, serving_of
from sagescale.sim.config import SimulatorConfig, with_overrides
from sagescale.sim.scheduler import check_engines, scheduler_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sagescale.perf import Profile
    from sagescale.planner.loading import Settings


@dataclass(frozen=True)
class Configured:
    """Settings with the engines they are for, as the profile has them, and the configurations, resolved."""

    settings: Settings
    engines: Profile
    config: AutoscalerConfig
    simulator: SimulatorConfig

    @cached_property
    def profile(self) -> Profile:
        """The engines with the simulator's overrides."""
        return with_overrides(self.engines, self.simulator, self.config.serving)

    @property
    def of_profile(self) -> tuple[str, ...]:
        """The keys that are the profile's where they are not given."""
        gpus = tuple(pool_keys(pool).gpus for pool in self.config.pools)
        section = self.config.serving == "aggregated" and self.engines.aggregated is not None
        return (*gpus, "max_batched_tokens") if section else gpus

    @property
    def unused(self) -> tuple[str, ...]:
        """The keys that may not be given with these engines."""
        batch = scheduler_of(self.simulator, self.config.serving) == "batch"
        return () if batch else ("max_batch_tokens",)

    @property
    def model(self) -> ProfileModel:
        """The engines as planners take them to be."""
        return ProfileModel(self.profile)

    @cached_property
    def live(self) -> LiveConfig:
        """The live loop's configuration; raises InputError for what cannot be."""
        return self.settings.build(LiveConfig)


def configured(
    profile: str | Profile | None,
    files: Sequence[Path],
    overrides: Sequence[str],
    options: Mapping[str, tuple[str, object]] | None = None,
    otherwise: Callable[[SimulatorConfig], Profile] | None = None,
) -> Configured:
    """Read and check a configuration; one file may hold the keys of every class.

    Args:
        profile: the engines or their name; else those that the configuration names, or measured data; else
            ``otherwise``, else the default.
        files: later ones win.
        overrides: ``key=value``.
        options: key and value by the option that is short for setting it.
        otherwise: gives the engines where neither a profile nor data is named.

    Raises:
        InputError: something is wrong with it; the message says what and where.
    """
    settings = load_settings(configuration_classes(), files, overrides, options or {})
    named = settings.given[AutoscalerConfig].get("profile")
    if named is not None and named.value is not None:
        if profile is not None and profile != named.value:
            given = profile if isinstance(profile, str) else profile.name
            raise InputError(
                f"{named.where}: profile is {named.value} but the engines given are {given}; expected one of "
                "them left out"
            )
        profile = str(named.value)
    data = settings.given[AutoscalerConfig].get("profile_data_dir")
    if otherwise is not None and profile is None and data is None:
        engines = otherwise(settings.build(SimulatorConfig))
    else:
        engines = sizing_profile(profile, data and data.value)
    return resolved(settings, engines)


def resolved(settings: Settings, engines: Profile) -> Configured:
    """Resolve what was given for engines: what they determine and was not given is theirs.

    Raises:
        InputError: keys contradict one another or the engines.
    """
    serving, simulator = serving_of(settings), settings.build(SimulatorConfig)
    if serving == "aggregated" and engines.aggregated is not None:
        simulator = settings.build(SimulatorConfig, max_batched_tokens=engines.aggregated.max_batched_tokens)
    model = ProfileModel(with_overrides(engines, simulator, serving))
    config = autoscaler_config(settings, model)
    settings.checked(check_engines, config, simulator, model.max_num_seqs, settings.explicit)
    return Configured(settings, engines, config, simulator)
