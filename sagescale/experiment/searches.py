"""Searches: a knob on a grid, the cheapest fixed pair, and a schedule made with the future known.

Knobs are set by generators, so that whoever evaluates can do many searches side by side: each ``yield`` asks
for grid positions and is sent the answers; the return value is the position chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from sagescale.experiment.workload import true_load
from sagescale.fleet import Sizes, fit, within_limits
from sagescale.planner.policy.classic import ClassicPolicy, whole_instances

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from sagescale.experiment.workload import TrueLoad
    from sagescale.perf import PerfModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.policy import Sizing
    from sagescale.sim.config import SimulatorConfig
    from sagescale.trace import Trace

__all__ = [
    "Answer",
    "KnobSearch",
    "Schedule",
    "StaticPair",
    "cheapest_pair",
    "cheapest_reaching",
    "classic_sizings",
    "find_schedule",
    "highest_attainment",
    "schedule_sizes",
    "search_all",
]

K = TypeVar("K")


class Answer(NamedTuple):
    """The result at a value of the knob."""

    attainment: float
    gpu_hours: float


if TYPE_CHECKING:
    KnobSearch = Generator[Sequence[int], Mapping[int, Answer], int]


def cheapest_reaching(count: int, start: int, asked: float, around: int, least: int = 0) -> KnobSearch:
    """Find the cheapest grid position that reaches an attainment; where none does, the one nearest to it.

    Attainment and cost grow with the position, but for chance. So the first position that reaches it is
    found by doubling steps and bisection, and then its neighbours are tried as well.

    Args:
        count: positions of the grid.
        start: where to begin.
        asked: the attainment to reach.
        around: how many neighbours on each side are tried in the end.
        least: positions below this one are not tried.
    """
    known: dict[int, Answer] = {}
    at, step = max(least, start), 2
    below, above = least - 1, count  # the bracket: does not reach it, reaches it
    while above - below > 1:
        known.update((yield (at,)))
        if known[at].attainment >= asked:
            above = at
        else:
            below = at
        if below < least:
            at = max(least, above - step)
        elif above == count:
            at = min(count - 1, below + step)
        else:
            at = (below + above) // 2
        step *= 2
    if above < count:
        near = range(max(least, above - around), min(count, above + around + 1))
        known.update((yield [position for position in near if position not in known]))
    reaching = [position for position, answer in known.items() if answer.attainment >= asked]
    if reaching:
        return min(reaching, key=lambda position: (known[position].gpu_hours, position))
    return _nearest(known)


def highest_attainment(count: int, stride: int) -> KnobSearch:
    """Find the position of highest attainment: every ``stride``-th, then all around the best of them."""
    known: dict[int, Answer] = {}
    known.update((yield range(0, count, stride)))
    best = _nearest(known)
    near = range(max(0, best - stride + 1), min(count, best + stride))
    known.update((yield [position for position in near if position not in known]))
    return _nearest(known)


def search_all(
    searches: Mapping[K, KnobSearch],
    answer: Callable[[Sequence[tuple[K, int]]], Mapping[tuple[K, int], Answer]],
) -> dict[K, int]:
    """Do searches side by side.

    Args:
        searches: not begun yet.
        answer: answers a batch of (search, position); what it leaves out ends that search without a result.

    Returns:
        The positions found.
    """
    asked = {key: list(next(search)) for key, search in searches.items()}
    found: dict[K, int] = {}
    while asked:
        answers = answer([(key, position) for key, positions in asked.items() for position in positions])
        going: dict[K, list[int]] = {}
        for key, positions in asked.items():
            known = {position: answers[key, position] for position in positions if (key, position) in answers}
            if len(known) < len(positions):
                continue
            try:
                going[key] = list(searches[key].send(known))
            except StopIteration as stop:
                found[key] = stop.value
        asked = going
    return found


def _nearest(known: Mapping[int, Answer]) -> int:
    """The highest attainment; of equal ones the cheapest."""
    return max(known, key=lambda position: (known[position].attainment, -known[position].gpu_hours))


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


_LEAST, _MOST = 0.5, 4.0
_HALVINGS = 4


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule by its two headrooms: what the true demand of each pool is multiplied by."""

    prefill_headroom: float
    decode_headroom: float


def classic_sizings(load: TrueLoad, classic: ClassicPolicy) -> Iterator[tuple[int, Sizing]]:
    """Size both pools for the true load of each window with arrivals, by the classic formulas.

    Yields:
        The window's number, from 0, and its sizing.
    """
    for window, (requests, isl, osl) in enumerate(zip(*load.series().values(), strict=True)):
        if requests > 0:
            yield window, classic.size_for(float(requests), float(isl), float(osl))


def schedule_sizes(
    trace: Trace, model: PerfModel, config: AutoscalerConfig, simulator: SimulatorConfig, schedule: Schedule
) -> list[Sizes]:
    """Lay down the sizes for every tick, entry 0 for the start.

    A tick at t decides what is ready from ``t + startup`` on, and at once what is given up. It asks for the
    most that any window from t to ``t + startup + T`` needs: the classic formulas on the window's true
    load, corrections 1, times the headroom of the pool; within limits and budget.
    """
    interval_s = float(config.adjustment_interval_sec)
    load = true_load(trace, interval_s)
    demands = np.zeros((2, len(load)))
    for window, sizing in classic_sizings(load, ClassicPolicy(replace(config, load_headroom=1.0), model)):
        demands[:, window] = [0.0 if size is None else size.demand for size in sizing.pools]
    demands[0] *= schedule.prefill_headroom
    demands[1] *= schedule.decode_headroom
    ahead = 1 + math.ceil(simulator.startup_delay_s.parameters[-1] / interval_s)
    padded = np.concatenate([demands, np.zeros((2, ahead))], axis=1)
    needed = np.lib.stride_tricks.sliding_window_view(padded, ahead, axis=1).max(axis=2)
    fleet = config.fleet
    return [
        fit(within_limits(Sizes(*map(whole_instances, demand)), fleet), fleet) for demand in needed.T.tolist()
    ]


def find_schedule(reaches: Callable[[Schedule], bool]) -> Schedule | None:
    """Find small headrooms that reach the attainment asked; None where even a fourfold one does not.

    First one for both pools by bisection, then each pool's own below that. Attainment is taken to grow with
    headroom; what is returned has been simulated and reaches it.

    Args:
        reaches: whether a schedule reaches the attainment.
    """

    def smallest(low: float, high: float, schedule: Callable[[float], Schedule]) -> float:
        """Bisect the ratio; ``high`` is known to reach it."""
        if reaches(schedule(low)):
            return low
        for _ in range(_HALVINGS):
            middle = math.sqrt(low * high)
            if reaches(schedule(middle)):
                high = middle
            else:
                low = middle
        return high

    if reaches(Schedule(1.0, 1.0)):
        both = smallest(_LEAST, 1.0, lambda ratio: Schedule(ratio, ratio))
    elif reaches(Schedule(_MOST, _MOST)):
        both = smallest(1.0, _MOST, lambda ratio: Schedule(ratio, ratio))
    else:
        return None
    prefill = smallest(both * _LEAST, both, lambda ratio: Schedule(ratio, both))
    decode = smallest(both * _LEAST, both, lambda ratio: Schedule(prefill, ratio))
    return Schedule(prefill, decode)
