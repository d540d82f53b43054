"""Whether instances are as unequal as if requests had been dealt out without looking at who is busy."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.live.metrics.presets import Preset
    from sagescale.live.metrics.window import SeriesWindow

_LEAST_INSTANCES = 3
_LEAST_REQUESTS = 4.0
"""An instance, in the mean: with fewer, balanced ones differ as much."""

_ENOUGH = 60.0
"""Instances less one, added up over windows, from which the question is answered."""
_FADE = 0.98
"""What a window counts for at the next."""

_REQUESTS, _MEMORY = 0.3, 0.5
"""Variance of the requests over their mean, and variance of the KV memory in use over its squared mean times
the mean requests, from which both are as dealt out blindly. In the simulator's decode pools, `round_robin`
has 0.45 and 0.8 to 1.7, `load_balanced` 0.2 and 0.1 to 0.5. A router that counts requests evens the first,
one that counts tokens the second: both have to be high."""


class InstanceLoad(NamedTuple):
    """Requests running and waiting on an instance, and the share of its KV memory in use."""

    requests: float
    kv_usage: float


def instance_loads(group: SeriesWindow, preset: Preset) -> tuple[InstanceLoad, ...] | None:
    """Return what each decode instance is loaded with at a window's end.

    Returns:
        ``None`` where not every instance says it, or one has come or gone in the window: it would have less.
    """
    running, usage = (group.first(group.now, names) for names in (preset.running, preset.kv_usage))
    before = group.first(group.before, preset.running)
    if not running or not usage or before is None or not running.keys() == usage.keys() == before.keys():
        return None
    waiting = [group.now[name] for name in preset.waiting if group.now.get(name)]
    return tuple(
        InstanceLoad(count + sum(queue.get(name, 0.0) for queue in waiting), usage[name])
        for name, count in sorted(running.items())
    )


@dataclass(slots=True)
class Evenness:
    """Sums over windows, older ones fading."""

    _weight: float = 0.0
    _requests: float = 0.0
    _memory: float = 0.0

    def observe(self, loads: Sequence[InstanceLoad]) -> None:
        """Take in the instances of a pool in which none starts or drains."""
        mean, usage = (sum(values) / len(loads) for values in zip(*loads, strict=True))
        if len(loads) < _LEAST_INSTANCES or not _LEAST_REQUESTS <= mean < inf or not 0.0 < usage < inf:
            return
        self._weight = _FADE * self._weight + len(loads) - 1
        self._requests = _FADE * self._requests + sum((one.requests - mean) ** 2 for one in loads) / mean
        variance = sum((one.kv_usage - usage) ** 2 for one in loads)
        self._memory = _FADE * self._memory + variance / usage**2 * mean

    @property
    def dealt_blindly(self) -> bool | None:
        """Whether instances are as unequal as that; ``None`` while too little has been seen."""
        if self._weight < _ENOUGH:
            return None
        return self._requests >= _REQUESTS * self._weight and self._memory >= _MEMORY * self._weight
