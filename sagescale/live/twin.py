"""The simulator's kernel as the planner's twin of the engines, for policies that try sizes on one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.planner.policy import needs_twin

if TYPE_CHECKING:
    from sagescale.perf import ProfileModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.policy.twin import EngineTwin
    from sagescale.sim.config import SimulatorConfig


def make_twin(config: AutoscalerConfig, model: ProfileModel, simulator: SimulatorConfig) -> EngineTwin | None:
    """Return a twin, compiled, where the policy needs one; else None, and no kernel is loaded.

    Args:
        config: names the policy, and holds the targets.
        model: the engines as the profile gives them.
        simulator: what else is said of the cluster: batches, hand-offs, startup time.
    """
    if not needs_twin(config.policy):
        return None
    import numpy as np

    from sagescale.planner.policy.twin import Lengths
    from sagescale.sim.twin import engine_twin

    twin = engine_twin(config, model, simulator)
    some = np.full(1, 16, np.int32)
    lengths = Lengths(some, some, some)
    twin.prefill_limit_rps(lengths)  # compiled before anybody waits for a decision
    if config.serving == "aggregated":
        twin.decode_misses_alone(lengths)
    return twin
