"""Sizing policies by name: add a file, add a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError, did_you_mean
from sagescale.planner.policy.classic import ClassicPolicy
from sagescale.planner.policy.protocol import Policy, PoolSize, Situation, Sizing
from sagescale.planner.policy.reactive import ReactivePolicy
from sagescale.planner.policy.static import StaticPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagescale.perf import PerfModel
    from sagescale.planner.config import AutoscalerConfig

__all__ = [
    "ClassicPolicy",
    "Policy",
    "PoolSize",
    "ReactivePolicy",
    "Situation",
    "Sizing",
    "StaticPolicy",
    "make_policy",
    "policy_names",
    "uses_forecast",
]

_POLICIES: dict[str, Callable[[AutoscalerConfig, PerfModel], Policy]] = {
    "classic": ClassicPolicy,
    "reactive": ReactivePolicy,
    "static": StaticPolicy,
}


def policy_names() -> tuple[str, ...]:
    """Return the names that ``policy`` accepts."""
    return tuple(_POLICIES)


def uses_forecast(name: str) -> bool:
    """Say whether a policy looks at forecasts at all, so that trying predictors with it makes sense."""
    return bool(getattr(_POLICIES[name], "uses_forecast", True))


def make_policy(config: AutoscalerConfig, perf_model: PerfModel, name: str | None = None) -> Policy:
    """Build the policy that ``name``, or else the configuration, asks for.

    Raises:
        InputError: no policy has that name.
    """
    name = config.policy if name is None else name
    if name not in _POLICIES:
        raise InputError(
            f"policy is '{name}'; expected one of {', '.join(policy_names())}{did_you_mean(name, _POLICIES)}"
        )
    return _POLICIES[name](config, perf_model)
