"""The slo policy: sizes tried on simulated engines, for the attainment asked."""

from sagescale.planner.policy.slo.policy import SloPolicy
from sagescale.planner.policy.slo.twin import EngineTwin, Lengths

__all__ = ["EngineTwin", "Lengths", "SloPolicy"]
