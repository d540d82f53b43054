"""What the live commands are made of: the profile, and three configurations from one set of files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.live.config import LiveConfig
from sagescale.perf import ProfileModel, sizing_profile
from sagescale.planner import AutoscalerConfig
from sagescale.planner.loading import autoscaler_config, load_settings
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.world import with_overrides

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sagescale.perf import Profile

__all__ = ["LiveSetup", "load_live_setup"]


@dataclass(frozen=True, slots=True)
class LiveSetup:
    """The engines as the planner takes them to be, and every configuration, resolved."""

    profile: Profile
    model: ProfileModel
    config: AutoscalerConfig
    simulator: SimulatorConfig
    live: LiveConfig


def load_live_setup(profile: str | None, files: Sequence[Path], overrides: Sequence[str]) -> LiveSetup:
    """Read and check everything; one file may hold the keys of all three configurations.

    Raises:
        InputError: something is wrong with it; the message says what and where.
    """
    settings = load_settings((AutoscalerConfig, SimulatorConfig, LiveConfig), files, overrides)
    simulator = settings.build(SimulatorConfig)
    data = settings.given[AutoscalerConfig].get("profile_data_dir")
    engines = with_overrides(sizing_profile(profile, data and data.value), simulator)
    model = ProfileModel(engines)
    return LiveSetup(
        engines, model, autoscaler_config(settings, model), simulator, settings.build(LiveConfig)
    )
