"""The cheapest fixed pair of pools that reaches an attainment, found in hindsight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.planner import Sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagescale.planner import AutoscalerConfig

__all__ = ["StaticPair", "cheapest_pair"]


@dataclass(frozen=True, slots=True)
class StaticPair:
    """The pair found, None where no pair within limits and budget reaches the attainment."""

    sizes: Sizes | None
    simulations: int


def cheapest_pair(
    config: AutoscalerConfig, attainment_of: Callable[[Sizes], float], asked: float
) -> StaticPair:
    """Search the pairs within the instance limits and the budget.

    More instances of either pool never lower the attainment (but for chance), so the pairs that reach it
    lie above a staircase: its two ends are found by bisection, and only its steps are walked, those
    that could be cheaper than the best so far.

    Args:
        config: its limits, budget and GPUs an instance.
        attainment_of: the attainment of a pair; called at most once for each.
        asked: the attainment to reach.
    """
    gpus = (config.prefill_gpus_per_instance, config.decode_gpus_per_instance)
    least = Sizes(max(1, config.min_prefill_instances), max(1, config.min_decode_instances))
    most = Sizes(config.max_prefill_instances, config.max_decode_instances)
    known: dict[Sizes, bool] = {}

    def reaches(prefill: int, decode: int) -> bool:
        pair = Sizes(prefill, decode)
        if pair not in known:
            known[pair] = attainment_of(pair) >= asked
        return known[pair]

    def cost(prefill: int, decode: int) -> int:
        return prefill * gpus[0] + decode * gpus[1]

    def smallest(low: int, high: int, enough: Callable[[int], bool]) -> int | None:
        """The smallest size that is enough, by doubling from the bottom and then bisection."""
        step, below, at = 1, low - 1, low
        while not enough(at):
            if at == high:
                return None
            below, at = at, min(high, at + step)
            step *= 2
        while at - below > 1:
            middle = (below + at) // 2
            if enough(middle):
                at = middle
            else:
                below = middle
        return at

    first_prefill = smallest(least.prefill, most.prefill, lambda size: reaches(size, most.decode))
    if first_prefill is None:
        return StaticPair(None, len(known))
    first_decode = smallest(least.decode, most.decode, lambda size: reaches(most.prefill, size))
    if first_decode is None:
        return StaticPair(None, len(known))
    best: Sizes | None = None
    best_gpus = config.max_gpu_budget + 1
    decode = most.decode
    for prefill in range(first_prefill, most.prefill + 1):
        if cost(prefill, first_decode) >= best_gpus:
            break
        # From above no more than what would be cheaper than the best; from below no less than the end.
        affordable = (best_gpus - 1 - prefill * gpus[0]) // gpus[1]
        high = min(decode, affordable)
        if high < first_decode or not reaches(prefill, high):
            continue
        found = smallest(first_decode, high, lambda size, prefill=prefill: reaches(prefill, size))  # type: ignore[misc]  # the loop's own prefill
        if found is not None:
            decode, best, best_gpus = found, Sizes(prefill, found), cost(prefill, found)
    return StaticPair(best, len(known))
