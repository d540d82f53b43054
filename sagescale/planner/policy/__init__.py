"""Sizing policies by name: the built-in ones, and those other packages offer as entry points.

A package adds a policy with

    [project.entry-points."sagescale.policies"]
    my_policy = "my_package.module:MyPolicy"

where the class is called with a configuration and a performance model. A built-in name cannot be replaced.
The class may say

* ``keys = ("static_prefill",)``: which of the keys that are one policy's own it reads; comparisons try their
  values with it;
* ``uses_forecast = False``: nothing tries predictors with it;
* ``default_predictor = "auto"``: the predictor where ``load_predictor_type`` is not given;
* ``uses_model = False``: its sizes depend on no forecast, correction or time of the engines: these are worked
  out only when somebody asks;
* ``uses_lengths = False``: it does without a sample of requests' lengths in every observation (online
  learning asks for one all the same, where sizes depend on what it learns);
* ``needs_twin = True``: it is given simulated engines (an ``EngineTwin``) as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError, SagescaleError
from sagescale.planner.plugins import POLICIES
from sagescale.planner.policy.classic import ClassicPolicy
from sagescale.planner.policy.protocol import Policy, PoolSize, QuickPolicy, Situation, Sizing

if TYPE_CHECKING:
    from sagescale.perf import PerfModel
    from sagescale.planner.config import AutoscalerConfig
    from sagescale.planner.policy.twin import EngineTwin

__all__ = [
    "ENTRY_POINT_GROUP",
    "ClassicPolicy",
    "Policy",
    "PoolSize",
    "QuickPolicy",
    "Situation",
    "Sizing",
    "default_predictor",
    "make_policy",
    "needs_twin",
    "policy_keys",
    "policy_names",
    "uses_forecast",
]

ENTRY_POINT_GROUP = POLICIES.group


def policy_names() -> tuple[str, ...]:
    """Return the names that ``policy`` accepts: built-in ones first, then others' in sorted order."""
    return POLICIES.names()


def needs_twin(name: str) -> bool:
    """Say whether a policy tries sizes on simulated engines."""
    return bool(getattr(POLICIES.load(name), "needs_twin", False))


def uses_forecast(name: str) -> bool:
    """Say whether a policy looks at forecasts at all, so that trying predictors with it makes sense."""
    return bool(getattr(POLICIES.load(name), "uses_forecast", True))


def default_predictor(name: str) -> str | None:
    """Return the predictor that a policy comes with; None if it says none.

    Raises:
        InputError: there is no such policy.
    """
    predictor: str | None = getattr(POLICIES.load(name), "default_predictor", None)
    return predictor


def policy_keys(name: str | None = None) -> tuple[str, ...]:
    """Return the configuration keys that a policy says are its own, or all that built-in ones do."""
    names = POLICIES.built_in if name is None else (name,)
    return tuple(key for one in names for key in getattr(POLICIES.load(one), "keys", ()))


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
        InputError: no policy has that name, or another package's does not load.
        SagescaleError: it needs a twin and was given none.
    """
    name = config.policy if name is None else name
    given: tuple[object, ...] = (config, perf_model)
    if needs_twin(name):
        if twin is None:
            raise SagescaleError(
                f"policy {name} tries sizes on simulated engines; make_policy was given no twin"
            )
        given = (*given, twin)
    make = POLICIES.load(name)
    if name == "slo" and config.serving == "aggregated":
        from sagescale.planner.policy.slo.aggregated import AggregatedSloPolicy

        make = AggregatedSloPolicy
    try:
        made = make(*given)
    except Exception as error:
        if name in POLICIES.built_in:
            raise
        raise POLICIES.failed(name, error) from error
    if not callable(getattr(made, "size", None)):
        raise InputError(
            f"{POLICIES.whose(name)} gives a {type(made).__name__}, expected an object with name and size"
        )
    return made  # type: ignore[no-any-return]
