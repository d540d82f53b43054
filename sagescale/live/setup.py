"""What commands are made of: settings, engines and configurations, from files and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sagescale.live.config import LiveConfig, configuration_classes
from sagescale.perf import ProfileModel, sizing_profile
from sagescale.planner import AutoscalerConfig
from sagescale.planner.loading import autoscaler_config, load_settings
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.world import with_overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sagescale.perf import Profile
    from sagescale.planner.loading import Settings

__all__ = ["Configured", "configured"]


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
        return with_overrides(self.engines, self.simulator)

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
        profile: the engines or their name; else measured data that the configuration names; else
            ``otherwise``, else the default.
        files: later ones win.
        overrides: ``key=value``.
        options: key and value by the option that is short for setting it.
        otherwise: gives the engines where neither a profile nor data is named.

    Raises:
        InputError: something is wrong with it; the message says what and where.
    """
    settings = load_settings(configuration_classes(), files, overrides, options or {})
    simulator = settings.build(SimulatorConfig)
    data = settings.given[AutoscalerConfig].get("profile_data_dir")
    if otherwise is not None and profile is None and data is None:
        engines = otherwise(simulator)
    else:
        engines = sizing_profile(profile, data and data.value)
    config = autoscaler_config(settings, ProfileModel(with_overrides(engines, simulator)))
    return Configured(settings, engines, config, simulator)
