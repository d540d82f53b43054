"""Instance limits and the GPU budget: the last word on any sizes asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.planner.decision import Sizes

if TYPE_CHECKING:
    from sagescale.planner.config import AutoscalerConfig

__all__ = ["constrain", "fit_gpu_budget", "grow_affordably", "launches", "within_limits"]


def constrain(asked: Sizes, config: AutoscalerConfig) -> Sizes:
    """Apply instance limits, then the GPU budget."""
    return fit_gpu_budget(within_limits(asked, config), config)


def within_limits(asked: Sizes, config: AutoscalerConfig) -> Sizes:
    """Bring both sizes between their minimum and maximum."""
    return Sizes(
        min(max(asked.prefill, config.min_prefill_instances), config.max_prefill_instances),
        min(max(asked.decode, config.min_decode_instances), config.max_decode_instances),
    )


def fit_gpu_budget(asked: Sizes, config: AutoscalerConfig) -> Sizes:
    """Fit sizes that are not below the minima into ``max_gpu_budget`` GPUs.

    Above the minima both pools shrink in proportion to what they asked for. Instances are whole, so
    they are handed out one by one to the pool that is furthest behind its share (the k-th of the e
    asked for above the minimum is due at (k - 1/2)/e: Webster's method, which for two pools is
    largest remainder; ties go to decode). One that no longer fits is passed over and smaller ones
    still fill the rest. So no pool gets more than it asked for, no GPU lies idle that an asked-for
    instance would fit in, and a larger budget never uses fewer GPUs.
    """
    prefill_gpus, decode_gpus = config.prefill_gpus_per_instance, config.decode_gpus_per_instance
    if prefill_gpus * asked.prefill + decode_gpus * asked.decode <= config.max_gpu_budget:
        return asked
    prefill, decode = config.min_prefill_instances, config.min_decode_instances
    free = config.max_gpu_budget - config.minimum_gpus
    extra_prefill, extra_decode = asked.prefill - prefill, asked.decode - decode
    got_prefill = got_decode = 0
    while True:
        more_prefill = got_prefill < extra_prefill and prefill_gpus <= free
        more_decode = got_decode < extra_decode and decode_gpus <= free
        if not more_prefill and not more_decode:
            return Sizes(prefill + got_prefill, decode + got_decode)
        # Both sides of (k_p - 1/2)/e_p < (k_d - 1/2)/e_d times 2*e_p*e_d: exact in integers.
        prefill_due = (2 * got_prefill + 1) * extra_decode
        decode_due = (2 * got_decode + 1) * extra_prefill
        if more_prefill and (not more_decode or prefill_due < decode_due):
            got_prefill += 1
            free -= prefill_gpus
        else:
            got_decode += 1
            free -= decode_gpus


def grow_affordably(wanted: Sizes, current: Sizes, config: AutoscalerConfig) -> Sizes:
    """Fit sizes into limits and budget without taking an instance that is wanted away for it.

    What is there and wanted stays, limits and budget or not; growth takes what is left (:func:`launches`).
    """
    base = Sizes(*map(min, current, wanted))
    goal = Sizes(*map(max, base, within_limits(wanted, config)))
    gpus = Sizes(config.prefill_gpus_per_instance, config.decode_gpus_per_instance)
    free = config.max_gpu_budget - base.prefill * gpus.prefill - base.decode * gpus.decode
    missing = Sizes(goal.prefill - base.prefill, goal.decode - base.decode)
    more = launches(missing, goal, gpus, free)
    return Sizes(base.prefill + more.prefill, base.decode + more.decode)


def launches(missing: Sizes, goal: Sizes, gpus: Sizes, free: int) -> Sizes:
    """Return how many instances of each pool may be launched with the GPUs that are free now.

    One by one, each for the pool that misses the largest share of its goal, decode on a tie; one that does
    not fit is passed over. This is who gets GPUs first, live and simulated: the simulator's compiled kernel
    has it again (``_launch_waiting``), and a test holds the two together.

    Args:
        missing: instances asked for that have not been launched.
        goal: the sizes the pools are to have, those included.
        gpus: GPUs of an instance.
        free: GPUs nobody holds; below zero nothing is launched.
    """
    prefill = decode = 0
    while True:
        prefill_left, decode_left = missing.prefill - prefill, missing.decode - decode
        more_prefill = prefill_left > 0 and gpus.prefill <= free
        more_decode = decode_left > 0 and gpus.decode <= free
        if not more_prefill and not more_decode:
            return Sizes(prefill, decode)
        # prefill_left / goal.prefill > decode_left / goal.decode, exact in integers.
        if more_prefill and (not more_decode or prefill_left * goal.decode > decode_left * goal.prefill):
            prefill += 1
            free -= gpus.prefill
        else:
            decode += 1
            free -= gpus.decode
