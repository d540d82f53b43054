"""The planner core: observation in, decision out. No clock, no I/O, no asyncio."""

from sagescale.fleet import PoolCounts, Pools, Sizes
from sagescale.planner.config import AutoscalerConfig, PoolKeys, Serving, pool_keys
from sagescale.planner.decision import (
    Adjustment,
    Constraint,
    Corrections,
    Decision,
    LoadForecast,
    Reason,
    ReasonCode,
)
from sagescale.planner.load import LoadPredictors, make_load_predictors
from sagescale.planner.observation import Observation
from sagescale.planner.planner import Planner
from sagescale.planner.policy import make_policy, policy_names
from sagescale.planner.policy.classic import initial_targets

__all__ = [
    "Adjustment",
    "AutoscalerConfig",
    "Constraint",
    "Corrections",
    "Decision",
    "LoadForecast",
    "LoadPredictors",
    "Observation",
    "Planner",
    "PoolCounts",
    "PoolKeys",
    "Pools",
    "Reason",
    "ReasonCode",
    "Serving",
    "Sizes",
    "initial_targets",
    "make_load_predictors",
    "make_policy",
    "policy_names",
    "pool_keys",
]
