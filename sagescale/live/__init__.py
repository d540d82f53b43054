"""The planner against real pools: metric sources, actuators, the loop, its journal, and an emulator."""
