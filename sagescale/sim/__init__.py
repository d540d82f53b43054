"""The discrete-event simulator: a trace through modelled pools under the planner."""
