"""Sizing policies by name: add a file, add a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError, SagescaleError, did_you_mean
from sagescale.planner.policy.classic import ClassicPolicy
from sagescale.planner.policy.protocol import Policy, PoolSize, QuickPolicy, Situation, Sizing
from sagescale.planner.policy.reactive import ReactivePolicy
from sagescale.planner.policy.static import StaticPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagescale.perf import PerfModel
    from sagescale.planner.config import AutoscalerConfig
    from sagescale.planner.policy.slo import EngineTwin

__all__ = [
    "ClassicPolicy",
    "Policy",
    "PoolSize",
    "QuickPolicy",
    "ReactivePolicy",
    "Situation",
    "Sizing",
    "StaticPolicy",
    "make_policy",
    "needs_twin",
    "policy_names",
    "uses_forecast",
]

_POLICIES: dict[str, Callable[[AutoscalerConfig, PerfModel], Policy]] = {
    "classic": ClassicPolicy,
    "reactive": ReactivePolicy,
    "static": StaticPolicy,
}
_SLO = "slo"
"""Imported when it is made: it needs numpy, and an engine twin besides."""


def policy_names() -> tuple[str, ...]:
    """Return the names that ``policy`` accepts."""
    return (*_POLICIES, _SLO)


def needs_twin(name: str) -> bool:
    """Say whether a policy tries sizes on simulated engines."""
    return name == _SLO


def uses_forecast(name: str) -> bool:
    """Say whether a policy looks at forecasts at all, so that trying predictors with it makes sense."""
    return name == _SLO or bool(getattr(_POLICIES[name], "uses_forecast", True))


def make_policy(
    config: AutoscalerConfig,
    perf_model: PerfModel,
    name: str | None = None,
    *,
    twin: EngineTwin | None = None,
) -> Policy:
    """Build the policy that ``name``, or else the configuration, asks for.

    Args:
        config: Its keys.
        perf_model: How fast instances are believed to be.
        name: In place of the configured one.
        twin: Simulated engines, for a policy that tries sizes on them.

    Raises:
        InputError: no policy has that name.
        SagescaleError: it needs a twin and was given none.
    """
    name = config.policy if name is None else name
    if name == _SLO:
        if twin is None:
            raise SagescaleError("policy slo tries sizes on simulated engines; make_policy was given no twin")
        from sagescale.planner.policy.slo import SloPolicy

        return SloPolicy(config, perf_model, twin)
    if name not in _POLICIES:
        known = policy_names()
        raise InputError(f"policy is '{name}'; expected one of {', '.join(known)}{did_you_mean(name, known)}")
    return _POLICIES[name](config, perf_model)
