"""A pretend P/D cluster in (scaled) real time: the simulator's kernel behind engines' metrics."""
