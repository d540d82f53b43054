"""Setting a knob on a grid: which values to try next, given what is known of those tried.

Generators, so that whoever evaluates can do many searches side by side: each ``yield`` asks for grid
positions and is sent the answers; the return value is the position chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

__all__ = ["Answer", "KnobSearch", "cheapest_reaching", "highest_attainment", "search_all"]

K = TypeVar("K")


class Answer(NamedTuple):
    """What a value of the knob came to."""

    attainment: float
    gpu_hours: float


if TYPE_CHECKING:
    KnobSearch = Generator[Sequence[int], Mapping[int, Answer], int]


def cheapest_reaching(count: int, start: int, asked: float, around: int) -> KnobSearch:
    """Find the cheapest grid position that reaches an attainment; where none does, the one nearest to it.

    Attainment and cost grow with the position, but for chance. So the first position that reaches it is
    found by doubling steps and bisection, and then its neighbours are tried as well.

    Args:
        count: positions of the grid.
        start: where to begin.
        asked: the attainment to reach.
        around: how many neighbours on each side are tried in the end.
    """
    known: dict[int, Answer] = {}
    below, above, at, step = -1, count, start, 2  # the bracket: does not reach it, reaches it
    while above - below > 1:
        known.update((yield (at,)))
        if known[at].attainment >= asked:
            above = at
        else:
            below = at
        if below < 0:
            at = max(0, above - step)
        elif above == count:
            at = min(count - 1, below + step)
        else:
            at = (below + above) // 2
        step *= 2
    if above < count:
        near = range(max(0, above - around), min(count, above + around + 1))
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
            told = {position: answers[key, position] for position in positions if (key, position) in answers}
            if len(told) < len(positions):
                continue
            try:
                going[key] = list(searches[key].send(told))
            except StopIteration as stop:
                found[key] = stop.value
        asked = going
    return found


def _nearest(known: Mapping[int, Answer]) -> int:
    """The highest attainment; of equal ones the cheapest."""
    return max(known, key=lambda position: (known[position].attainment, -known[position].gpu_hours))
