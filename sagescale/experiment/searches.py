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
    return highest(known)


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


def highest(known: Mapping[int, Answer]) -> int:
    """Return the position of the highest attainment; of equal ones the cheapest."""
    return max(known, key=lambda position: (known[position].attainment, -known[position].gpu_hours))


@dataclass(frozen=True, slots=True)
class StaticSizes:
    """The fixed sizes found, None where none within limits and budget reach the attainment."""

    sizes: Sizes | None
    simulations: int


def cheapest_sizes(
    config: AutoscalerConfig, attainment_of: Callable[[Sizes], float], asked: float
) -> StaticSizes:
    """Search the fixed sizes within the instance limits and the budget.

    More instances of a pool never lower the attainment (but for chance), so of one pool the smallest size
    that reaches it is found by bisection, and of two the pairs that reach it lie above a staircase: its ends
    are found by bisection, and only its steps are walked, those that could be cheaper than the best so far.

    Args:
        config: its limits, budget and GPUs an instance.
        attainment_of: the attainment of fixed sizes; called at most once for each.
        asked: the attainment to reach.
    """
    names = config.pool_names
    known: dict[Sizes, bool] = {}

    def reaches(*given: int) -> bool:
        sizes = Sizes(*given, names=names)
        if sizes not in known:
            known[sizes] = attainment_of(sizes) >= asked
        return known[sizes]

    found = _cheapest_pool(config, reaches) if len(names) == 1 else _cheapest_pair(config, reaches)
    return StaticSizes(None if found is None else Sizes(*found, names=names), len(known))


def _smallest(low: int, high: int, enough: Callable[[int], bool]) -> int | None:
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


def _cheapest_pool(config: AutoscalerConfig, reaches: Callable[[int], bool]) -> tuple[int, ...] | None:
    (pool,) = config.pools
    most = min(pool.most, config.max_gpu_budget // pool.gpus)
    found = _smallest(max(1, pool.least), most, reaches)
    return None if found is None else (found,)


def _cheapest_pair(config: AutoscalerConfig, reaches: Callable[[int, int], bool]) -> tuple[int, ...] | None:
    prefills, decodes = config.pools
    first_prefill = _smallest(max(1, prefills.least), prefills.most, lambda size: reaches(size, decodes.most))
    if first_prefill is None:
        return None
    first_decode = _smallest(max(1, decodes.least), decodes.most, lambda size: reaches(prefills.most, size))
    if first_decode is None:
        return None
    best: tuple[int, int] | None = None
    best_gpus = config.max_gpu_budget + 1
    decode = decodes.most
    for prefill in range(first_prefill, prefills.most + 1):
        if prefill * prefills.gpus + first_decode * decodes.gpus >= best_gpus:
            break
        # From above no more than what would be cheaper than the best; from below no less than the end.
        affordable = (best_gpus - 1 - prefill * prefills.gpus) // decodes.gpus
        high = min(decode, affordable)
        if high < first_decode or not reaches(prefill, high):
            continue
        found = _smallest(first_decode, high, lambda size, prefill=prefill: reaches(prefill, size))  # type: ignore[misc]  # the loop's own prefill
        if found is not None:
            decode, best = found, (prefill, found)
            best_gpus = prefill * prefills.gpus + found * decodes.gpus
    return best


_LEAST, _MOST = 0.5, 4.0
_HALVINGS = 4

HOLDS_S = (600.0, 1800.0, 7200.0)
"""How long sizes are held, beside not at all and throughout, where a schedule may do well to: an instance
that goes takes its cache along, and turns slowed down come later than foreseen."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule: what is asked for when, by the true demand.

    Attributes:
        headrooms: what the true demand of each pool is multiplied by; 0 is a fixed size, its floor.
        hold_s: a size stays for so long after it was last needed.
        floors: the fewest instances of each pool at any time; empty is none.
    """

    headrooms: tuple[float, ...]
    hold_s: float = 0.0
    floors: tuple[int, ...] = ()

    @classmethod
    def fixed(cls, sizes: Sizes) -> Schedule:
        """The same sizes throughout."""
        return cls((0.0,) * len(sizes), floors=tuple(sizes))

    def settings(self, pools: Sequence[str]) -> dict[str, float]:
        """What was chosen, by name: a fixed size's floors, else headrooms and, unless 0, the hold in s."""
        if self.floors:
            return {f"{name}_instances": floor for name, floor in zip(pools, self.floors, strict=True)}
        chosen = {f"{name}_headroom": ratio for name, ratio in zip(pools, self.headrooms, strict=True)}
        return chosen | ({"hold_s": self.hold_s} if self.hold_s else {})


def classic_sizings(load: TrueLoad, classic: ClassicPolicy) -> Iterator[tuple[int, Sizing]]:
    """Size both pools for the true load of each window with arrivals, by the classic formulas.

    Yields:
        The window's number, from 0, and its sizing.
    """
    for window, (requests, isl, osl) in enumerate(zip(*load.series().values(), strict=True)):
        if requests > 0:
            yield window, classic.size_for(float(requests), float(isl), float(osl))


def peak_sizes(load: TrueLoad, config: AutoscalerConfig, model: PerfModel) -> Sizes:
    """The most instances that any window needs of each pool by the classic formulas, without limits."""
    peak = Sizes.of({pool.name: 0 for pool in config.pools})
    for _, sizing in classic_sizings(load, ClassicPolicy(config, model)):
        peak = peak.map(lambda most, size: most if size is None else max(most, size.instances), sizing.pools)
    return peak


def schedule_sizes(
    trace: Trace, model: PerfModel, config: AutoscalerConfig, simulator: SimulatorConfig, schedule: Schedule
) -> list[Sizes]:
    """Lay down the sizes for every tick, entry 0 for the start.

    A tick at t decides what is ready from ``t + startup`` on, and at once what is given up. It asks for the
    most that any window from t to ``t + startup + T`` needs: the classic formulas on the window's true
    load, corrections 1, times the headroom of the pool, and for what any tick of the last ``hold_s`` asked
    for, if that is more; no fewer than the floors; within limits and budget.
    """
    interval_s = float(config.adjustment_interval_sec)
    load = true_load(trace, interval_s)
    names = config.pool_names
    demands = np.zeros((len(names), len(load)))
    for window, sizing in classic_sizings(load, ClassicPolicy(replace(config, load_headroom=1.0), model)):
        demands[:, window] = [0.0 if size is None else size.demand for size in sizing.pools]
    demands *= np.array(schedule.headrooms)[:, None]
    ahead = 1 + math.ceil(simulator.startup_delay_s.parameters[-1] / interval_s)
    padded = np.concatenate([demands, np.zeros((len(names), ahead))], axis=1)
    needed = np.lib.stride_tricks.sliding_window_view(padded, ahead, axis=1).max(axis=2)
    held = min(len(load), math.ceil(schedule.hold_s / interval_s))
    if held:
        behind = np.concatenate([np.zeros((len(names), held)), needed], axis=1)
        needed = np.lib.stride_tricks.sliding_window_view(behind, held + 1, axis=1).max(axis=2)
    if schedule.floors:
        needed = np.maximum(needed, np.array(schedule.floors)[:, None])
    fleet = config.fleet
    return [
        fit(within_limits(Sizes(*map(whole_instances, demand), names=names), fleet), fleet)
        for demand in needed.T.tolist()
    ]


def cheapest_schedule(
    answer: Callable[[Schedule], Answer],
    pools: int,
    asked: float,
    *,
    holds_s: Sequence[float] = (),
    fixed: Sizes | None = None,
) -> Schedule | None:
    """Find a cheap schedule that reaches the attainment; None where there is none.

    Args:
        answer: attainment and GPU-hours of a schedule.
        pools: how many there are.
        asked: the attainment.
        holds_s: beside sizes that follow demand at once, those held so long are tried.
        fixed: sizes that are known to reach the attainment throughout, tried as well.
    """

    def reaches(schedule: Schedule) -> bool:
        return answer(schedule).attainment >= asked

    candidates = [find_schedule(reaches, pools, hold_s) for hold_s in (0.0, *holds_s)]
    if fixed is not None:
        candidates.append(Schedule.fixed(fixed))
    found = [candidate for candidate in candidates if candidate is not None]
    # Several that cost the same: the first, which follows demand the closest.
    return min(found, key=lambda schedule: answer(schedule).gpu_hours, default=None)


def find_schedule(reaches: Callable[[Schedule], bool], pools: int, hold_s: float = 0.0) -> Schedule | None:
    """Find small headrooms that reach the attainment asked; None where even fourfold ones do not.

    First one for all pools by bisection, then each pool's own below that. Attainment is taken to grow with
    headroom; what is returned has been simulated and reaches it.

    Args:
        reaches: whether a schedule reaches the attainment.
        pools: how many there are.
        hold_s: of the schedule.
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

    def alike(ratio: float) -> Schedule:
        return Schedule((ratio,) * pools, hold_s)

    if reaches(alike(1.0)):
        every = smallest(_LEAST, 1.0, alike)
    elif reaches(alike(_MOST)):
        every = smallest(1.0, _MOST, alike)
    else:
        return None
    if pools == 1:
        return alike(every)
    headrooms = [every] * pools
    for at in range(pools):

        def own(ratio: float, at: int = at) -> Schedule:
            return Schedule((*headrooms[:at], ratio, *headrooms[at + 1 :]), hold_s)

        headrooms[at] = smallest(every * _LEAST, every, own)
    return Schedule(tuple(headrooms), hold_s)
