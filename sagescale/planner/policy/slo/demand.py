"""One pool's load to come, as a few values it may take, from how wrong the forecasts have lately been."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sagescale.planner.policy.slo.in_service import InService

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["SURPRISE", "Demand", "Scenarios", "certain"]

_MEMORY = 480
_HALF_LIFE_S = 7200.0
"""Windows whose forecast errors are remembered, and the time after which one counts half."""

_NO_ERRORS = np.zeros((0, 2))

_ALIKE = 0.25
_UNLIKE = 0.02
"""Errors count by how near the load they were made at is to this one: half-way off at so much, in logarithms,
and never less than this."""

_NEAR = 8.0
"""Of those made at loads further off, the worst says nothing of this load: that is a factor of e squared."""

_FADES = 0.5
"""The worst counts for less with age, half as fast as errors do: half of it after four hours."""

_LEAST_LEVEL = 0.1
"""Below this share of the usual load errors no longer shrink with it."""

_PRIOR_WINDOWS = 4.0
"""What the predictor itself says of its errors counts as so many."""

SURPRISE = 4.5
"""Beyond so many deviations of what chance does, a change of the load is one."""
_SWING_GAIN = 0.1
_LONGEST_MEAN = 30.0

_USUAL_HALF_LIFE = 240.0
_NO_LOAD = 1e-9

_SHRUNK = 20.0
_SURE = 9.0
"""A slope counts in full against so many independent windows, or where it is so many squared errors off 1."""

_REACH = 3.0
"""Deviations of past plans about their mean within which their line is used."""

_CUTS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.88, 0.94, 0.97, 0.99)
"""Cumulative weights between which scenarios are taken together."""

_NORMAL = np.array((-1.6449, -0.6745, -0.1257, 0.1257, 0.6745, 1.6449))
"""A normal distribution in six values."""


class Scenarios(NamedTuple):
    """Loads in tokens/s, rising, and how likely each is, adding up to 1."""

    loads: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def highest(self) -> float:
        """The highest load."""
        return float(self.loads[-1])

    @property
    def mean(self) -> float:
        """The expected load."""
        return float(self.loads @ self.weights)

    def scaled(self, factor: float, more: float = 0.0) -> Scenarios:
        """Return all loads times a factor, and some more."""
        return Scenarios(self.loads * factor + more, self.weights)


def certain(load: float) -> Scenarios:
    """Return one load and no other."""
    return Scenarios(np.array((load,)), np.ones(1))


class Demand:
    """Load of one pool in tokens/s: what was planned for, what was observed, and what to expect.

    Loads are what comes; plans and errors are of what is then in service (:class:`InService`): where answers
    take minutes, the next minute's decode load is mostly there already.

    What to expect is what was observed when the forecast was like this one (analogues): the plan corrected by
    the line that past plans and loads show, plus past errors, which are taken to grow with the root of the
    load as counts do. To them is added, once, what the worst so far, less with age, would be again: of n + 1
    exchangeable errors the next is the largest with probability 1/(n + 1). Errors made ``ahead`` windows
    ahead overlap: n of them count as between ``n / ahead`` and n, and the geometric mean is taken.

    A window's load is partly chance: with N requests of work w its variance over its square is
    ``E[w^2] / (E[w]^2 N)``. Engines are tried on streams that have that chance in them, so it is taken out
    here, twice: a forecast that moves no more than chance would is averaged (a Kalman filter of a local
    level whose observation noise is known and whose level noise is what the moves show beyond it), and
    past errors are shrunk by the share that chance explains.

    Args:
        interval_s: length of a window.

    Attributes:
        usual: what comes, averaged over hours.
        in_service: what is worked off now.
        coming: forecasts of what comes in the next windows.
        expected: what will be in service at the end of each.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._half_life = _HALF_LIFE_S / interval_s
        self.usual = 0.0
        self.in_service = InService()
        self.coming: tuple[float, ...] = ()
        self.expected: tuple[float, ...] = ()
        self._spread: tuple[float, ...] = ()
        self._windows = 0
        self._level = 0.0
        self._averaged = 1.0
        self._swing = 0.0
        self._variance = 0.0
        self._plans: deque[tuple[float, ...]] = deque(maxlen=64)
        self._errors: dict[int, NDArray[np.float64]] = {}  # plans and loads, the latest last

    def observe(self, load: float | None, chance: float, counted: float | None = None) -> None:
        """Take in the load of the window just ended.

        Args:
            load: tokens/s; None is unknown.
            chance: its variance by chance, over its square.
            counted: what requests counted in service make, tokens/s; None is unknown.
        """
        self._variance = chance
        if load is None:
            self.in_service.pass_unseen(self._interval_s)
            self._plans.append(())
            return
        self._windows += 1
        gain = max(1.0 - 0.5 ** (1.0 / _USUAL_HALF_LIFE), 1.0 / self._windows)
        self.usual += gain * (load - self.usual)
        in_service = self.in_service.observe(self._interval_s, load, counted)
        for ahead, plan in enumerate(reversed(self._plans), start=1):
            if ahead <= len(plan):
                error = plan[ahead - 1], in_service
                errors = np.append(self._errors.get(ahead, _NO_ERRORS), [error], axis=0)
                self._errors[ahead] = errors[-_MEMORY:]

    def plan(self, loads: Sequence[float], spread: Sequence[float]) -> None:
        """Take in a forecast of the next windows: mean loads and their standard deviations, tokens/s."""
        scale = self._smoothed(loads[0])
        self.coming = tuple(scale * load for load in loads)
        self.expected = self.in_service.after(self._interval_s, self.coming)
        self._spread = tuple(
            deviation * self.in_service.common(self._interval_s, ahead)
            for ahead, deviation in enumerate(spread, start=1)
        )
        self._plans.append(self.expected)

    def after(self, load: float, ahead: int) -> float:
        """Return what is in service in the ``ahead``-th window from now if such a load comes until then."""
        return self.in_service.after(self._interval_s, (load,) * ahead)[-1]

    def scenarios(self, ahead: int, seen: float = 0.0) -> Scenarios:
        """Return what may be in service in the ``ahead``-th window from now; the next is the first.

        Args:
            ahead: the window.
            seen: the same of a load seen just now that the forecast does not know of yet, if that is more.
        """
        floor = _LEAST_LEVEL * self.usual
        expected = max(self.expected[ahead - 1], seen)
        # Before any load was observed there are no errors that scale to a load.
        planned, observed = (self._errors.get(ahead, _NO_ERRORS) if self.usual > 0.0 else _NO_ERRORS).T
        weights = weights_by_age = 0.5 ** (np.arange(len(planned))[::-1] / self._half_life)
        fitted, distance = planned, np.zeros(len(planned))
        if len(planned):
            fitted, expected = _recalibrated(planned, observed, weights, expected, ahead)
            distance = np.log((fitted + floor) / (expected + floor)) / _ALIKE
            weights = weights * (np.exp(-0.5 * distance * distance) + _UNLIKE)
        root = math.sqrt(expected + floor)
        if root == 0.0:
            return Scenarios(np.zeros(1), np.ones(1))
        moves = np.append(
            (observed - fitted) / np.sqrt(fitted + floor), self._spread[ahead - 1] / root * _NORMAL
        )
        weights = np.append(weights, np.full(len(_NORMAL), _PRIOR_WINDOWS / len(_NORMAL)))
        total = float(weights.sum())
        weights /= total
        mean = float(moves @ weights)
        variance = float(weights @ (moves - mean) ** 2)
        chance = self.in_service.by_chance(self._interval_s, ahead)
        by_chance = self._variance * (chance * expected / root) ** 2
        shrunk = math.sqrt(max(0.0, 1.0 - by_chance / variance)) if variance > 0.0 else 0.0
        worse = 1.0 / (1.0 + total / math.sqrt(ahead))
        faded = weights_by_age**_FADES * (np.abs(distance) <= _NEAR)
        faded = np.append(faded, np.ones(len(_NORMAL)))
        moves = np.append(moves, max(float((moves * faded).max()), 0.0))
        weights = np.append(weights * (1.0 - worse), worse)
        return _grouped(np.maximum(0.0, expected + root * (mean + shrunk * (moves - mean))), weights)

    def _smoothed(self, load: float) -> float:
        """Return what to multiply a forecast by whose first value is ``load``."""
        noise = self._variance
        if min(self._level, load, noise) <= _NO_LOAD:
            self._level, self._averaged = load, 1.0
            return 1.0
        move = math.log(load / self._level)
        self._swing += _SWING_GAIN * (min(move * move, 1.0) - self._swing)
        if move * move > SURPRISE * SURPRISE * 2.0 * noise:
            self._level, self._averaged = load, 1.0
            return 1.0
        self._averaged = min(self._averaged + 1.0, _LONGEST_MEAN)
        moved = max(0.0, self._swing - 2.0 * noise)
        gain = max(moved / (moved + noise), 1.0 / self._averaged)
        self._level *= math.exp(gain * move)
        return self._level / load


def _recalibrated(
    planned: NDArray[np.float64],
    observed: NDArray[np.float64],
    weights: NDArray[np.float64],
    expected: float,
    ahead: int,
) -> tuple[NDArray[np.float64], float]:
    """Correct plans by the line through past plans and loads, never steeper than 1 (Mincer & Zarnowitz 1969).

    Load that swings returns: a high forecast tends to be too high. The line is shrunk towards no
    correction by how few independent windows there are (errors ``ahead`` windows ahead overlap), or by how
    far its slope is from 1 in standard errors, whichever leaves more (James & Stein's positive part).
    """
    total = float(weights.sum())
    independent = total / ahead
    trust = independent / (independent + _SHRUNK)
    centre = float(weights @ planned) / total
    wrong = observed - planned
    bias = float(weights @ wrong) / total
    off, wrong = planned - centre, wrong - bias
    spread = float(weights @ (off * off))
    tilt = 0.0  # the slope less one
    if spread > 0.0:
        tilt = min(0.0, float(weights @ (off * wrong)) / spread)
    if tilt < 0.0:
        share = trust
        if independent > 3.0:
            left = wrong - tilt * off
            error2 = float(weights @ (left * left)) / spread / (independent - 2.0)
            share = max(trust, 1.0 - _SURE * error2 / (tilt * tilt))
        tilt = max(share * tilt, -1.0)
    # Beyond what has been seen the line says nothing more.
    reach = _REACH * math.sqrt(spread / total)
    offset = expected - centre
    fitted = planned + trust * bias + tilt * np.clip(off, -reach, reach)
    return np.maximum(fitted, 0.0), max(0.0, expected + trust * bias + tilt * min(max(offset, -reach), reach))


def _grouped(loads: NDArray[np.float64], weights: NDArray[np.float64]) -> Scenarios:
    order = np.argsort(loads, kind="stable")
    loads, weights = loads[order], weights[order]
    group = np.searchsorted(_CUTS, np.cumsum(weights) - weights / 2.0)
    mass = np.bincount(group, weights, minlength=len(_CUTS) + 1)
    total = np.bincount(group, weights * loads, minlength=len(_CUTS) + 1)
    filled = mass > 0.0
    return Scenarios(np.asarray(total[filled] / mass[filled]), np.asarray(mass[filled], np.float64))
