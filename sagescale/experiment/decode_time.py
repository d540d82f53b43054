"""What decode steps took while a log was served, from the log alone: who decoded beside whom is known.

A request decodes from when its KV cache is with the instance (and a slot is free) until it is done, one
token a step. By a profile's step times that time is so many steps; the factors that make them as many as the
log has, for every request, are those by which steps under load differ. Nothing is simulated, so no queue can
hide them.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sagescale.perf.surfaces import compile_decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.experiment.served import ServedLog
    from sagescale.perf import DecodeProfile, Profile

_RANGES = (8, 16, 32, 64, 128, 256, 512)
"""Ends of the ranges of requests in which unequal contexts cost alike where a profile knows nothing of them;
up to the first they cost nothing."""

_MOST_REQUESTS = 20_000
"""Of the part fitted to: enough for a few numbers."""

_FEWEST = 50
_ENOUGH_SHARE = 0.002
"""Of the time decoding, in a range: less says nothing of it."""

_STEPS_OFF, _SHARE_OFF = 0.7, 0.01
"""How far a request's steps may be off: joining falls within a step, and times vary."""

_SCALE_SPREAD, _JOIN_SPREAD_MS, _SPREAD_MS, _CURVE_SPREAD = 0.05, 3.0, 0.002, 0.3
"""One standard deviation of each factor from what the profile says."""


@dataclass(frozen=True, slots=True)
class DecodeTime:
    """What was fitted: the scale of equal steps, what unequal contexts cost, what a joining prompt costs.

    ``before`` and ``after`` are the median relative errors of a request's number of steps.
    """

    scale: float
    spread_requests: tuple[float, ...]
    spread_ms: tuple[float, ...]
    join_ms_per_1k_tokens: float
    requests: int
    before: float
    after: float

    def applied(self, decode: DecodeProfile) -> DecodeProfile:
        """Return the surface with what unequal contexts cost at the profile's own scale."""
        return dataclasses.replace(
            decode,
            spread_requests=self.spread_requests,
            spread_ms=tuple(value / self.scale for value in self.spread_ms),
        )


def fit_decode_time(log: ServedLog, profile: Profile, part: slice) -> DecodeTime | None:
    """Fit decode steps to the requests of part of a log that one decode instance served.

    Later requests are not looked at: counted are those done before the last arrival of the part. None where
    there are too few.
    """
    from scipy.optimize import least_squares

    decode = profile.decode
    _, stop, _ = part.indices(len(log))
    first = max(0, stop - _MOST_REQUESTS)
    state = _State.of(log, slice(first, stop), decode)
    counted = state.done_s <= log.arrival_s[stop - 1] if stop < len(log) else np.ones(len(state.steps), bool)
    if part.start:
        counted &= state.arrival_s >= log.arrival_s[part.start]
    if int(counted.sum()) < _FEWEST:
        return None
    steps = state.steps[counted]
    tolerance = np.hypot(_STEPS_OFF, _SHARE_OFF * steps)
    curve, join = _Curve.of(state, decode), profile.join_ms_per_1k_tokens

    def errors(z: NDArray[np.float64]) -> NDArray[np.float64]:
        scale, join_ms = _scale_and_join(z, join)
        return np.asarray(state.steps_made(scale, join_ms, curve.at(z[2:]), curve.knots)[counted] - steps)

    def residuals(z: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([errors(z) / tolerance, z])

    low = np.full(2 + curve.change.shape[1], 0.0 if not decode.spread_ms else -1.0 / _CURVE_SPREAD)
    low[:2] = -10.0, -join / _JOIN_SPREAD_MS
    # From inside the bounds: at a bound of its own a factor would not move.
    found = least_squares(residuals, np.maximum(low, 0.0) + 0.2, bounds=(low, np.inf)).x
    scale, join_ms = _scale_and_join(found, join)
    before, after = (float(np.median(np.abs(errors(z)) / steps)) for z in (np.zeros(len(found)), found))
    return DecodeTime(
        scale=scale,
        spread_requests=tuple(curve.knots.tolist()),
        spread_ms=tuple(curve.at(found[2:]).tolist()),
        join_ms_per_1k_tokens=join_ms,
        requests=len(steps),
        before=before,
        after=after,
    )


def _scale_and_join(z: NDArray[np.float64], join: float) -> tuple[float, float]:
    """Scale and join cost at a point in standard deviations from what is expected."""
    return math.exp(_SCALE_SPREAD * z[0]), max(join + _JOIN_SPREAD_MS * z[1], 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """Who decoded when: requests in order of arrival, and segments of time between joins and ends.

    Attributes:
        arrival_s, done_s: float64[requests], those with a second token.
        steps: Decode steps of each, float64[requests].
        begins, ends: The segments a request decodes in, begins <= segment < ends, int64[requests].
        joined: Prompt tokens that join at the beginning of a segment, float64[segments].
        seconds, running, equal_ms, above: Of each segment its length, the requests decoding (padded), the
            step of equal contexts by the profile, and the longest context less the mean.
    """

    arrival_s: NDArray[np.float64]
    done_s: NDArray[np.float64]
    steps: NDArray[np.float64]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    joined: NDArray[np.float64]
    seconds: NDArray[np.float64]
    running: NDArray[np.int64]
    equal_ms: NDArray[np.float64]
    above: NDArray[np.float64]

    @classmethod
    def of(cls, log: ServedLog, part: slice, decode: DecodeProfile) -> _State:
        """Follow the log's requests through the instance."""
        handed = log.osl[part] > 1
        arrival, isl, done = (
            array[part][handed].astype(np.float64) for array in (log.arrival_s, log.isl, log.done_s)
        )
        steps = log.osl[part][handed].astype(np.float64) - 1.0
        ready = next(
            times for times in (log.admitted_s, log.kv_ready_s, log.first_token_s) if times is not None
        )[part][handed]
        joins = ready if log.admitted_s is not None else _admitted(ready, done, decode.max_num_seqs)
        joins = np.minimum(joins, done)
        rate = steps / np.maximum(done - joins, 1e-9)

        times, at = np.unique(np.concatenate([joins, done]), return_inverse=True)
        begins, ends = at[: len(joins)], at[len(joins) :]
        count = len(times) - 1
        running = np.zeros(count, dtype=np.int64)
        held, longest = np.zeros(count), np.zeros(count)
        starting: list[list[int]] = [[] for _ in range(len(times))]
        ending: list[list[int]] = [[] for _ in range(len(times))]
        for i, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
            starting[begin].append(i)
            ending[end].append(i)
        there: set[int] = set()
        middles = (times[:-1] + times[1:]) / 2.0
        for segment in range(count):
            there.difference_update(ending[segment])
            there.update(i for i in starting[segment] if ends[i] > segment)
            if there:
                who = np.fromiter(there, dtype=np.int64, count=len(there))
                contexts = isl[who] + np.floor(rate[who] * (middles[segment] - joins[who]))
                running[segment], held[segment] = len(who), contexts.sum()
                longest[segment] = contexts.max()
        slots = decode.max_num_seqs
        table = compile_decode(dataclasses.replace(decode, max_num_seqs=max(slots, int(running.max()))))
        padded = np.array([0, *decode.padded_batch_sizes])
        above = np.minimum(np.searchsorted(padded, running), len(padded) - 1)
        equal = [
            table.step_ms(n, kv) if n else np.inf
            for n, kv in zip(running.tolist(), held.tolist(), strict=True)
        ]
        joined = np.bincount(begins, weights=isl, minlength=len(times))[:count].astype(np.float64)
        return cls(
            arrival_s=arrival,
            done_s=done,
            steps=steps,
            begins=begins,
            ends=ends,
            joined=joined,
            seconds=np.diff(times),
            running=np.maximum(running, padded[above]),
            equal_ms=np.array(equal),
            above=np.where(running > 0, longest - held / np.maximum(running, 1), 0.0),
        )

    def steps_made(
        self,
        scale: float,
        join_ms_per_1k_tokens: float,
        spread_ms: NDArray[np.float64],
        knots: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return how many steps fit into the time that each request decoded, float64[requests]."""
        step_ms = scale * self.equal_ms + np.interp(self.running, knots, spread_ms) * self.above
        lost_ms = join_ms_per_1k_tokens * self.joined / 1000.0
        passed = np.concatenate([[0.0], np.cumsum((self.seconds * 1e3 - lost_ms) / step_ms)])
        return np.asarray(passed[self.ends] - passed[self.begins])


def _admitted(ready_s: NDArray[np.float64], done_s: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
    """When each request got a slot, first come first served, ends as in the log."""
    admitted = ready_s.copy()
    busy: list[float] = []
    for i in np.argsort(ready_s, kind="stable").tolist():
        if len(busy) == slots:
            admitted[i] = max(admitted[i], heapq.heappop(busy))
        heapq.heappush(busy, float(done_s[i]))
    return admitted


@dataclass(frozen=True, slots=True, eq=False)
class _Curve:
    """What unequal contexts cost, as few numbers z: ``expected + change @ z`` at the knots, never below 0.

    Of a profile that knows it the whole curve may be larger or smaller. Else it is level in ranges of
    requests that double, from 9 on, as far as enough time was spent in each: kernels choose by such sizes.
    """

    knots: NDArray[np.float64]
    expected: NDArray[np.float64]
    change: NDArray[np.float64]

    @classmethod
    def of(cls, state: _State, decode: DecodeProfile) -> _Curve:
        if decode.spread_ms:
            known = np.array(decode.spread_ms)
            return cls(np.array(decode.spread_requests), known, _CURVE_SPREAD * known[:, None])
        spent = state.seconds * (state.running > 0)
        knots, levels = [float(_RANGES[0])], [-1]
        for low, high in pairwise(_RANGES):
            inside = (state.running > low) & (state.running <= high)
            if spent[inside].sum() >= _ENOUGH_SHARE * spent.sum():
                level = levels[-1] + 1
                knots += [low + 1.0, float(high)]
                levels += [level, level]
        change = _SPREAD_MS * (np.array(levels)[:, None] == np.arange(max(levels) + 1))
        return cls(np.array(knots), np.zeros(len(knots)), change)

    def at(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``spread_ms`` at the knots."""
        return np.asarray(np.maximum(self.expected + self.change @ z, 0.0))
