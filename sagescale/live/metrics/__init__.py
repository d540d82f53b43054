"""Metric sources: what the engines measured, as the planner's observation."""
