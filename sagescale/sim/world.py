"""The modelled engines: a profile, with whatever the configuration overrides, in the kernel's terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.fleet import Role
from sagescale.sim.engine import EnginePool, Stepping, World
from sagescale.sim.scheduler import scheduler_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.perf import ProfileModel
    from sagescale.planner import AutoscalerConfig, Serving
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.engine import Pool
    from sagescale.trace import Trace


def computed_tokens(trace: Trace, config: SimulatorConfig) -> NDArray[np.int32]:
    """Prompt tokens that prefill computes, int32[n]: ISL less what the prefix cache holds, at least 1.

    Where caches are simulated they alone say what they hold (ENGINES 4).
    """
    if config.prefix_cache and trace.prefixes is not None:
        return trace.isl
    if trace.cached_tokens is not None:
        return trace.isl - trace.cached_tokens
    if config.prefix_hit_rate == 0.0:
        return trace.isl
    cached = np.floor(trace.isl * config.prefix_hit_rate).astype(np.int32)
    computed: NDArray[np.int32] = trace.isl - np.minimum(cached, trace.isl - 1)
    return computed


LARGEST = 1 << 40
"""More GPUs or KV tokens than this are as good as unlimited, and would not fit the kernel's integers."""

_LONGEST_TABLE = 10_000_000
"""The prefill table has an entry a token, up to the profile's last knot."""


def build_world(
    model: ProfileModel, config: SimulatorConfig, autoscaler: AutoscalerConfig | None = None
) -> World:
    """Compile a performance model (ms) into the kernel's tables (s).

    Args:
        model: the engines.
        config: the modelled cluster.
        autoscaler: its GPU budget and targets; without it there are none.

    Raises:
        InputError: the profile's prefill curve is longer than a table can be, or the scheduling policy needs
            targets and there are none.
    """
    if autoscaler is None and config.scheduling_policy in ("slo_aware", "adaptive"):
        raise InputError(
            f"scheduling_policy is '{config.scheduling_policy}'; expected fifo or priority where no "
            "target_ttft_ms and target_itl_ms are given"
        )
    # Past its last knot a prefill curve is a straight line: two more entries give its slope.
    last_knot = int(np.ceil(model.profile.prefill.isl_tokens[-1]))
    if last_knot > _LONGEST_TABLE:
        raise InputError(
            f"profile {model.profile.name}: prefill isl_tokens go up to {last_knot}; expected at most "
            f"{_LONGEST_TABLE}"
        )
    prefill_s = model.prefill_table_ms(max(config.max_batch_tokens, last_knot + 2)) / 1000.0
    table = model.decode_table()
    transfer = model.kv_transfer
    return World(
        prefill_s=prefill_s,
        prefill_slope_s=float(prefill_s[-1] - prefill_s[-2]),
        quadratic_s=model.quadratic_ms / 1000.0,
        prefill_floor_s=model.prefill_floor_ms / 1000.0,
        breaks=table.breaks,
        base_s=table.base_ms / 1000.0,
        slope_s=table.slope_ms / 1000.0,
        max_batch_tokens=config.max_batch_tokens,
        max_num_seqs=model.max_num_seqs,
        max_kv_tokens=None if model.max_kv_tokens is None else min(model.max_kv_tokens, LARGEST),
        kv_latency_s=transfer.latency_ms / 1000.0,
        kv_s_per_token=transfer.ms_per_1k_tokens / 1e6,
        kv_decode_steps=transfer.decode_steps,
        kv_blocks_prefill=transfer.blocks_prefill,
        join_s_per_token=model.join_ms_per_1k_tokens / 1e6,
        first_token=config.first_token,
        request_timeout_s=config.request_timeout_s,
        prefill_gpus=model.prefill_gpus,
        decode_gpus=model.decode_gpus,
        max_gpus=LARGEST if autoscaler is None else min(autoscaler.max_gpu_budget, LARGEST),
        scheduling_policy=config.scheduling_policy,
        routing_strategy=config.routing_strategy,
        target_ttft_s=np.inf if autoscaler is None else autoscaler.target_ttft_ms / 1000.0,
        target_itl_s=np.inf if autoscaler is None else autoscaler.target_itl_ms / 1000.0,
        itl_statistic=config.itl_statistic,
        measure_gaps=config.measure_gaps,
        overlap_credit=config.overlap_credit,
        prefill_load_scale=config.prefill_load_scale,
        router_temperature=config.router_temperature,
        scale_down_choice=config.scale_down_choice,
        router_staleness_s=config.router_staleness_s,
        affinity_max_load=config.affinity_max_load,
        spread_s=table.spread_ms / 1000.0 if table.spread_ms.any() else None,
        stepping=_stepping(model, config, "disaggregated" if autoscaler is None else autoscaler.serving),
    )


_ROLES: dict[Role, Pool] = {
    Role.PREFILL: "prefill", Role.DECODE: "decode", Role.AGGREGATED: "aggregated"
}  # fmt: skip


def engine_pools(config: AutoscalerConfig, engines: World, gpu_type: str) -> tuple[EnginePool, ...]:
    """Return the pools that the flat keys describe, all of one kind of engine."""
    return tuple(
        EnginePool(pool.name, _ROLES[pool.role], engines, pool.gpus, gpu_type) for pool in config.pools
    )


def _stepping(model: ProfileModel, config: SimulatorConfig, serving: Serving) -> Stepping | None:
    """What engines that take one step after the other need to know; None of those that form batches."""
    scheduler = scheduler_of(config, serving)
    if scheduler == "batch":
        return None
    steps = model.step_model()
    memory = model.max_kv_tokens
    return Stepping(
        scheduler=scheduler,
        block_tokens=config.kv_block_tokens,
        blocks=None if memory is None else min(memory, LARGEST) // config.kv_block_tokens,
        max_batched_tokens=config.max_batched_tokens,
        tokens_s=steps.tokens_table_ms(config.max_batched_tokens) / 1000.0,
        running_s=steps.running_ms / 1000.0,
        kv_s=steps.kv_ms / 1000.0,
        cross_s=steps.cross_ms / 1000.0,
        square_s=steps.square_ms / 1000.0,
        longest_s=steps.longest_ms / 1000.0,
        long_prefill_token_threshold=config.long_prefill_token_threshold,
        chunked_prefill=config.chunked_prefill,
        mixed_chunk=config.mixed_chunk,
        reserve_full_isl=config.reserve_full_isl,
        prefix_cache=config.prefix_cache,
    )
