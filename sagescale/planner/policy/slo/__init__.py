"""The slo policy: sizes tried on simulated engines, for the attainment asked."""

from sagescale.planner.policy.slo.policy import SloPolicy

__all__ = ["SloPolicy"]
