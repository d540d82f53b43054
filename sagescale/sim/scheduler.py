"""What forms engines' batches and steps, and which keys of it go together; each refusal once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.declare import declared
from sagescale.errors import InputError
from sagescale.sim.config import SimulatorConfig

if TYPE_CHECKING:
    from sagescale.planner import AutoscalerConfig, Serving
    from sagescale.sim.config import EngineScheduler
    from sagescale.trace import Trace


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
    if simulator.scale_down_choice != "least_outstanding" and not simulator.prefix_cache:
        raise InputError(
            f"scale_down_choice is {simulator.scale_down_choice} but prefix_cache is false; expected "
            "prefix_cache true, or scale_down_choice least_outstanding: nothing is cached"
        )
    if simulator.prefix_cache and simulator.prefix_hit_rate:
        raise InputError(
            f"prefix_hit_rate is {simulator.prefix_hit_rate:g} but prefix_cache is true; expected one of "
            "them: what caches hold is simulated by the trace's block hashes, or given"
        )
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


def check_trace(trace: Trace, simulator: SimulatorConfig) -> None:
    """Refuse a trace that lacks what routers or caches go by.

    Raises:
        InputError: there are no sessions to be kept together or alive, or blocks of prompts that are none of
            memory's.
    """
    if simulator.routing_strategy == "session_affinity" and trace.session_id is None:
        raise InputError(
            "routing_strategy is session_affinity but the trace has no sessions; expected a trace with "
            "session_id, or another strategy"
        )
    if simulator.concurrent_sessions is not None and (trace.turns is None or simulator.open_loop):
        why = "open_loop is true" if simulator.open_loop else "the trace has no turns that wait for answers"
        raise InputError(
            f"concurrent_sessions is {simulator.concurrent_sessions} but {why}; expected null, or "
            + ("open_loop false" if simulator.open_loop else "a trace with session_id, after and think_s")
        )
    prefixes = trace.prefixes
    if simulator.prefix_cache and prefixes is not None and prefixes.block_tokens % simulator.kv_block_tokens:
        raise InputError(
            f"kv_block_tokens is {simulator.kv_block_tokens} but the trace's hashes are of blocks of "
            f"{prefixes.block_tokens} tokens; expected a divisor of that"
        )
