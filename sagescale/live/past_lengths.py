"""Prompt and output lengths of past requests, drawn from the histograms of the minutes they came in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sagescale.errors import InputError
from sagescale.live.metrics.answers import number
from sagescale.live.metrics.promql import duration

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.live.metrics.answers import Values
    from sagescale.live.metrics.presets import Mean, Preset
    from sagescale.live.metrics.prometheus import PrometheusReader

    Floats = NDArray[np.float64]

_WINDOW_S = 300.0
"""Lengths are taken to be alike for so long."""

_BEYOND = 2.0
"""The last bucket has no end: it is taken to reach to so many times its beginning."""

_ONE_TOKEN = 1.5
"""Outputs no longer than this in the mean are those of prefill engines."""


class Lengths(NamedTuple):
    """How long requests of a window were; ``edges`` and ``counts`` are empty where only the mean is known."""

    mean: float
    edges: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()


def draw_lengths(lengths: Lengths, n: int, rng: np.random.Generator) -> Floats:
    """Draw ``n`` lengths: each in a bucket as often as was counted there, within it so that the mean holds.

    A place in a bucket is ``low + (high - low) u**g``, of mean ``low + (high - low) / (1 + g)``; one ``g``
    for all buckets gives the mean that the sum and count say, as far as buckets allow it.
    """
    if not lengths.counts:
        return np.full(n, lengths.mean)
    counts, high = np.array(lengths.counts), np.array(lengths.edges)
    low = np.concatenate(([0.0], high[:-1]))
    high = np.where(np.isinf(high), low * _BEYOND, high)
    share = counts / counts.sum()
    width = float(share @ (high - low))
    place = (lengths.mean - float(share @ low)) / width if width > 0 else 0.5
    place = min(max(place, 0.02), 0.98)
    bucket = rng.choice(len(counts), n, p=share)
    within = rng.random(n) ** (1.0 / place - 1.0)
    return np.asarray(low[bucket] + (high - low)[bucket] * within)


class LengthReader:
    """Reads lengths from one server, piece by piece.

    Args:
        reader: The server.
        preset: Whose names.
        prompts: Matchers of those that count prompts.
        outputs: Matchers of those that count outputs.
        start_s: Where the history begins.
    """

    def __init__(
        self, reader: PrometheusReader, preset: Preset, prompts: str, outputs: str, start_s: float
    ) -> None:
        self._reader, self._start_s = reader, start_s
        self._sources = {"ISL": (preset.isl, prompts), "OSL": (preset.osl, outputs)}
        self._one_pool = prompts == outputs and not preset.frontend
        self._last: dict[str, Lengths] = {}
        self._borrowed = dict.fromkeys(self._sources, 0)
        self._no_spread = dict.fromkeys(self._sources, 0)
        self._total, self._tokens = 0, 0.0

    def draw(
        self, arrivals_s: Floats, start_s: float, end_s: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Draw ISL and OSL for sorted arrivals of one piece.

        Raises:
            InputError: no lengths are known.
            HttpError: the server does not answer.
        """
        self._total += len(arrivals_s)
        steps = max(1, round((end_s - start_s) / _WINDOW_S))
        step_s = (end_s - start_s) / steps
        window = np.clip(((arrivals_s - start_s) / step_s).astype(int), 0, steps - 1)
        counts = np.bincount(window, minlength=steps)
        isl, osl = (self._column(name, counts, start_s, step_s, rng) for name in self._sources)
        self._tokens += float(osl.sum())
        return isl, osl

    def _column(
        self, name: str, counts: NDArray[np.int64], start_s: float, step_s: float, rng: np.random.Generator
    ) -> NDArray[np.int32]:
        known = self._read(*self._sources[name], start_s, step_s, len(counts))
        if not known and name not in self._last:
            names = ", ".join(mean.total for mean in self._sources[name][0])
            raise InputError(
                f"{self._reader.describe()}: no {name} where requests came; expected {names} "
                "(metrics_preset), or a later --since"
            )
        columns, expected = [], 0.0
        for index, n in enumerate(counts.tolist()):
            near = min(known, key=lambda at, index=index: abs(at - index), default=None)  # type: ignore[misc]
            lengths = self._last[name] if near is None else known[near]
            if n and index not in known:
                self._borrowed[name] += n
            if not lengths.counts:
                self._no_spread[name] += n
            columns.append(draw_lengths(lengths, n, rng))
            expected += n * lengths.mean
        if known:
            self._last[name] = known[max(known)]
        drawn = np.concatenate(columns)
        # The mean of what was drawn differs from the counted one by chance.
        drawn *= expected / drawn.sum()
        # Up or down by chance as well: always to the nearest is wrong in the mean for short ones.
        whole = np.floor(drawn + rng.random(len(drawn)))
        return np.clip(whole, 1, 2**31 - 1).astype(np.int32)

    def _read(
        self, means: tuple[Mean, ...], matchers: str, start_s: float, step_s: float, steps: int
    ) -> dict[int, Lengths]:
        """Return the lengths of each window by its number, of those in which any were counted."""
        ends = (start_s + step_s, start_s + steps * step_s, step_s)
        span = duration(step_s)

        def grown(metric: str, by: str = "") -> list[Values]:
            query = f"sum {by}(increase({metric}{{{matchers}}}[{span}]))"
            return self._reader.over(query, *ends)

        def place(at_s: float) -> int:
            return round((at_s - start_s) / step_s) - 1

        for mean in means:
            totals, counts = (
                {
                    place(at): value
                    for one in grown(name)
                    for at, value in zip(one.times_s, one.values, strict=True)
                }
                for name in (mean.total, mean.count)
            )
            whole = {at: totals[at] / n for at, n in counts.items() if n > 0 and totals.get(at, 0.0) > 0}
            if not whole:
                continue
            buckets: dict[int, dict[float, float]] = {}
            for one in grown(mean.buckets, "by (le) ") if mean.buckets else []:
                for at, value in zip(one.times_s, one.values, strict=True):
                    buckets.setdefault(place(at), {})[number(one.labels.get("le"))] = value
            return {at: _lengths(value, buckets.get(at, {})) for at, value in whole.items()}
        return {}

    def warnings(self) -> list[str]:
        """Say what is not known of the lengths drawn.

        Raises:
            InputError: they are those of prefill engines alone.
        """
        mean = self._tokens / max(1, self._total)
        if self._one_pool and mean <= _ONE_TOKEN:
            raise InputError(
                f"the mean OSL is {mean:.2f}: these are prefill engines, and nothing matches decode_pool; "
                "expected pool_label, prefill_pool and decode_pool that match both"
            )
        said = []
        for name, n in self._no_spread.items():
            if n:
                said.append(
                    f"{name} has no histogram for {n / self._total:.1%} of the requests: each is as long as "
                    "the mean of its five minutes, so percentiles are too kind"
                )
        for name, n in self._borrowed.items():
            if n:
                said.append(f"{name} of {n / self._total:.1%} of the requests is that of other minutes")
        return said


def _lengths(mean: float, cumulative: dict[float, float]) -> Lengths:
    edges = sorted(edge for edge in cumulative if not math.isnan(edge))
    if len(edges) < 2 or edges[-1] != math.inf:
        return Lengths(mean)
    counts = np.diff(np.maximum.accumulate([0.0, *(max(0.0, cumulative[edge]) for edge in edges)]))
    if counts.sum() <= 0:
        return Lengths(mean)
    return Lengths(mean, tuple(edges), tuple(counts.tolist()))
