"""What forms engines' batches and steps, and which keys of it go together; each refusal once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.declare import declared
from sagescale.errors import InputError
from sagescale.sim.config import SimulatorConfig

if TYPE_CHECKING:
    from sagescale.planner import AutoscalerConfig, Serving
    from sagescale.sim.config import EngineScheduler

__all__ = ["check_engines", "scheduler_of"]


def scheduler_of(simulator: SimulatorConfig, serving: Serving) -> EngineScheduler:
    """Return the scheduler of every pool: as configured, else the default of its way of serving."""
    if simulator.engine_scheduler is not None:
        return simulator.engine_scheduler
    return "vllm" if serving == "aggregated" else "batch"


def check_engines(
    config: AutoscalerConfig,
    simulator: SimulatorConfig,
    max_num_seqs: int,
    given: frozenset[str] = frozenset(),
) -> None:
    """Refuse keys of engines that contradict one another.

    Args:
        config: says how requests are served.
        simulator: the engines' keys.
        max_num_seqs: slots of an instance.
        given: keys that were given, even if with their defaults; others count as given where they differ.

    Raises:
        InputError: names a key, its value and what is expected.
    """
    scheduler = scheduler_of(simulator, config.serving)
    _check_simulated(config, simulator, scheduler)
    why = f"engine_scheduler is {scheduler}"
    if simulator.engine_scheduler is None:
        why += f" where serving is {config.serving}"
    if scheduler == "batch":
        if config.serving == "aggregated":
            raise InputError(
                "engine_scheduler is batch but serving is aggregated; expected vllm or sglang: batches of "
                "aggregated instances are steps that mix prompts and answers"
            )
        if simulator.prefix_cache:
            raise InputError(
                f"prefix_cache is true but {why}; expected engine_scheduler vllm or sglang, which keep KV in "
                "blocks"
            )
        return
    default = declared(SimulatorConfig)["max_batch_tokens"].default
    if "max_batch_tokens" in given or simulator.max_batch_tokens != default:
        raise InputError(
            f"max_batch_tokens is {simulator.max_batch_tokens} but {why}; expected max_batched_tokens, the "
            "tokens of one of its steps"
        )
    if simulator.max_batched_tokens < max_num_seqs:
        raise InputError(
            f"max_batched_tokens is {simulator.max_batched_tokens} but an instance runs {max_num_seqs} "
            "requests (max_num_seqs); expected at least a token a step for each"
        )
    if simulator.scheduling_policy in ("slo_aware", "adaptive"):
        raise InputError(
            f"scheduling_policy is {simulator.scheduling_policy} but {why}; expected fifo or priority"
        )


def _check_simulated(
    config: AutoscalerConfig, simulator: SimulatorConfig, scheduler: EngineScheduler
) -> None:
    """Refuse what the kernel does not model."""
    if config.serving == "aggregated":
        raise InputError("serving is aggregated; expected disaggregated: they are not simulated yet")
    if scheduler != "batch":
        raise InputError(f"engine_scheduler is {scheduler}; expected batch: no other is simulated yet")
    if simulator.routing_strategy not in _SIMULATED_ROUTING:
        raise InputError(
            f"routing_strategy is {simulator.routing_strategy}; expected {' or '.join(_SIMULATED_ROUTING)}: "
            "no other is simulated yet"
        )
    for name in _NOT_SIMULATED:
        value, default = getattr(simulator, name), declared(SimulatorConfig)[name].default
        if value != default:
            raise InputError(f"{name} is {value}; expected {default}: no other is simulated yet")


_SIMULATED_ROUTING = ("load_balanced", "round_robin")
_NOT_SIMULATED = ("itl_statistic", "router_staleness_s")
