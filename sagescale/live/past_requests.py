"""Requests of the past, rebuilt from what Prometheus has kept of their counters: a trace where no log is."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.live.http import HttpError
from sagescale.live.metrics.answers import Samples
from sagescale.live.metrics.matchers import matcher
from sagescale.live.metrics.presets import PRESETS
from sagescale.live.metrics.prometheus import PrometheusReader
from sagescale.live.metrics.promql import common_matchers, group_matchers
from sagescale.live.metrics.sampling import Sampling
from sagescale.live.metrics.window import counts_from_before
from sagescale.live.past_lengths import LengthReader
from sagescale.trace.trace import REBUILT, REBUILT_WARNING, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import tzinfo

    from numpy.typing import NDArray

    from sagescale.live.config import LiveConfig
    from sagescale.live.metrics.answers import Values
    from sagescale.live.metrics.presets import Preset

    Floats = NDArray[np.float64]

_PIECE_S = 3600.0
"""Of history read at once; halved, down to ``_LEAST_PIECE_S``, where the answer is too long."""

_LEAST_PIECE_S = 300.0

_LEAD_S = 300.0
"""Read before the beginning, so that its first scrape has one to be compared with."""

_GAP_INTERVALS = 2.5
"""Scrapes further apart than so many intervals have a gap between them: one may fail."""

_MOST_REQUESTS = 200_000_000

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def parse_past(option: str, text: str, now_s: float, zone: tzinfo) -> float:
    """Read a time that is over: ``7d`` before now, or ISO 8601 (in ``zone`` where it states none).

    Returns:
        Seconds since 1970.

    Raises:
        InputError: it is neither.
    """
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if ago is not None:
        return now_s - float(ago[1]) * _UNITS_S[ago[2]]
    try:
        at = datetime.fromisoformat(text.strip())
        return (at if at.tzinfo is not None else at.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError):
        raise InputError(
            f"{option} {text}: expected how long ago, e.g. 90m, 36h, 7d, 2w, or a time like 2026-11-21T08:00"
        ) from None


@dataclass
class _Instance:
    """What is known of one instance after the pieces read so far.

    ``carry`` is what has arrived and is no whole request yet, or, below zero, what was counted too much.
    """

    last_s: float | None = None
    interval_s: float | None = None
    in_flight: float = 0.0
    carry: float = 0.0
    series: dict[frozenset[tuple[str, str]], tuple[float, float]] = field(default_factory=dict)


@dataclass
class _Tally:
    """How much of the time was read."""

    covered: list[tuple[float, float]] = field(default_factory=list)
    gap_s: float = 0.0
    left_out: float = 0.0
    intervals_s: list[float] = field(default_factory=list)

    def covered_s(self, start_s: float, end_s: float) -> float:
        """Return for how long at least one instance was read."""
        total, reached = 0.0, start_s
        for since_s, until_s in sorted(self.covered):
            begin, end = max(since_s, reached), min(until_s, end_s)
            total += max(0.0, end - begin)
            reached = max(reached, end)
        return total


def rebuild_trace(
    live: LiveConfig,
    since: str,
    until: str | None = None,
    *,
    zone: tzinfo = UTC,
    seed: int = 0,
    progress: Callable[[float, float], None] | None = None,
) -> Trace:
    """Rebuild the requests of a past time from the counters that Prometheus has scraped.

    A scrape's requests are counted exactly: what the arrivals counter grew by or, of engines, completions and
    the change of what is in flight. They are drawn, seeded, evenly within it. Lengths are drawn from the
    histograms of the same minutes, their means kept over a piece of an hour. Where nothing was scraped
    nothing is made up.

    Args:
        live: The server, whose names, and which instances.
        since: How long ago it begins, or when.
        until: When it ends, likewise; the server's present if not given.
        zone: Of times that state none, and of the trace.
        seed: Of all that is drawn.
        progress: Called with the seconds read and the whole.

    Raises:
        InputError: there is no such history, or it cannot be told whose requests they are.
        HttpError: the server does not answer.
    """
    if live.time_scale != 1.0:
        raise InputError(f"time_scale is {live.time_scale:g}; expected 1: history is rebuilt as it was")
    for option, text in (("--since", since), ("--until", until or "0s")):
        parse_past(
            option, text, 0.0, zone
        )  # what is no time is refused before the server is asked for its own
    reader = PrometheusReader(live)
    preset = PRESETS[live.metrics_preset]
    now_s = reader.now_s()
    start_s = parse_past("--since", since, now_s, zone)
    end_s = min(now_s, now_s if until is None else parse_past("--until", until, now_s, zone))
    if start_s >= end_s:
        raise InputError(f"--since {since}: begins when it has ended; expected an earlier time")
    prompts, outputs, warnings = _pools(live, reader, preset, start_s, end_s)
    if live.metric_queries.queries:
        warnings.append("metric_queries are not used: one number a window says nothing of a scrape")
    rng = np.random.default_rng(seed)
    tally, instances = _Tally(), dict[str, _Instance]()
    lengths = LengthReader(reader, preset, prompts, outputs, start_s)
    arrivals: list[Floats] = []
    isl: list[NDArray[np.int32]] = []
    osl: list[NDArray[np.int32]] = []
    at_s, piece_s, first = start_s, _PIECE_S, True
    while at_s < end_s:
        stop_s = min(at_s + piece_s, end_s)
        try:
            found = reader.samples(_selector(preset, prompts), at_s - (_LEAD_S if first else 0.0), stop_s)
        except HttpError as error:
            if "metrics_max_bytes" not in str(error) or piece_s <= _LEAST_PIECE_S:
                raise
            piece_s /= 2
            continue
        if found and first:
            _refuse_doubled(live, preset, found, at_s, stop_s)
        first = first and not found
        made = _arrivals(live, preset, found, instances, tally, rng)
        made = np.sort(made[(made >= start_s) & (made < end_s)])
        if len(made):
            arrivals.append(made)
            drawn = lengths.draw(made, at_s, stop_s, rng)
            isl.append(drawn[0])
            osl.append(drawn[1])
        if sum(map(len, arrivals)) > _MOST_REQUESTS:
            raise InputError(
                f"--since {since}: more than {_MOST_REQUESTS:,} requests; expected a shorter time"
            )
        at_s = stop_s
        if progress is not None:
            progress(at_s - start_s, end_s - start_s)
    if not arrivals:
        raise InputError(f"{reader.describe()}: no request came since {since}; expected history with traffic")
    all_s = np.round(np.concatenate(arrivals), 6)
    trace = Trace.from_arrays(
        all_s, np.concatenate(isl), np.concatenate(osl), path=f"<{live.prometheus_url} since {since}>"
    )
    warnings = [REBUILT_WARNING, *_missing(tally, start_s, end_s), *warnings, *lengths.warnings()]
    started_at = datetime.fromtimestamp(float(all_s.min()), zone)
    return replace(trace, format=REBUILT, warnings=tuple(warnings), started_at=started_at)


def _selector(preset: Preset, matchers: str) -> str:
    names = (*preset.arrived, *preset.completed, *preset.in_flight)
    named = matcher("__name__", "=~", "|".join(names))
    return f"{{{','.join(part for part in (named, matchers) if part)}}}"


def _pools(
    live: LiveConfig, reader: PrometheusReader, preset: Preset, start_s: float, end_s: float
) -> tuple[str, str, list[str]]:
    """Return the matchers of those that count prompts and of those that count outputs, and what to say of it.

    Raises:
        InputError: nothing is there under these names; the message says what is.
    """
    groups = group_matchers(live, preset)
    there = {
        name: bool(reader.known_series(_selector(preset, where), start_s, end_s))
        for name, where in groups.items()
    }
    if all(there.values()):
        if "frontend" in groups:
            return groups["frontend"], groups["frontend"], []
        return groups["prefill"], groups["decode"], []
    everyone = common_matchers(live, preset)
    if "frontend" not in groups and not any(there.values()):
        found = reader.known_series(_selector(preset, everyone), start_s, end_s)
        if found:
            values = sorted({labels.get(live.pool_label, "none") for labels in found})
            words = (
                f"no {live.pool_label} matches prefill_pool or decode_pool: all instances "
                f"({', '.join(values[:5])}) are taken as one pool that does both"
            )
            return everyone, everyone, [words]
    for name, present in there.items():
        if present:
            other = "decode" if name == "prefill" else "prefill"
            words = f"nothing matches {other}_pool: {name} instances are taken to do both"
            return groups[name], groups[name], [words]
    others = [
        name
        for name, other in PRESETS.items()
        if name != "sagellm" and reader.known_series(_selector(other, ""), start_s, end_s)
    ]
    hint = f"; there are series under the names of {', '.join(others)}: --preset" if others else ""
    raise InputError(
        f"{reader.describe()}: no {preset.completed[0]}{{{everyone}}} in that time; expected the engines' or "
        f"the frontend's metrics (metrics_preset, namespace, model_name, extra_matchers){hint}"
    )


def _refuse_doubled(
    live: LiveConfig, preset: Preset, found: Sequence[Values], start_s: float, end_s: float
) -> None:
    gauges = [Samples(one.labels, one.times_s) for one in found if one.labels["__name__"] in preset.running]
    for instance, differing in Sampling(gauges, live.instance_label, start_s, end_s).doubled(preset).items():
        raise InputError(
            f"{instance} is read twice ({differing}), and its requests would count twice; expected "
            "extra_matchers that choose one"
        )


def _arrivals(
    live: LiveConfig,
    preset: Preset,
    found: Sequence[Values],
    instances: dict[str, _Instance],
    tally: _Tally,
    rng: np.random.Generator,
) -> Floats:
    """Return when requests arrived in one piece, unsorted; moves the instances on."""
    ordered = sorted(found, key=lambda one: one.labels.get(live.instance_label, ""))
    made = []
    for name, of_one in itertools.groupby(ordered, key=lambda one: one.labels.get(live.instance_label, "")):
        made.append(_of_instance(preset, list(of_one), instances.setdefault(name, _Instance()), tally, rng))
    return np.concatenate(made) if made else np.empty(0)


def _of_instance(
    preset: Preset, found: Sequence[Values], known: _Instance, tally: _Tally, rng: np.random.Generator
) -> Floats:
    names = {one.labels["__name__"] for one in found}
    counters = next(({name} for name in (*preset.arrived, *preset.completed) if name in names), set())
    counts_arrivals = bool(counters & set(preset.arrived))
    times_s = np.unique(np.concatenate([np.array(one.times_s) for one in found]))
    if known.last_s is not None:
        times_s = times_s[times_s > known.last_s]
    if not len(times_s):
        return times_s
    if len(times_s) > 3:
        known.interval_s = float(np.median(np.diff(times_s)))
        tally.intervals_s.append(known.interval_s)
    interval_s = known.interval_s or 60.0
    new = known.last_s is None
    before_s = times_s[0] - interval_s if known.last_s is None else known.last_s
    starts_s = np.concatenate(([before_s], times_s[:-1]))
    growth, in_flight, fell = (np.zeros(len(times_s)) for _ in range(3))
    firsts: list[tuple[int, float]] = []
    for one in found:
        at_s, values = np.array(one.times_s), np.array(one.values)
        keep = at_s >= times_s[0]
        at_s, values = at_s[keep], values[keep]
        if not len(at_s):
            continue
        where = np.searchsorted(times_s, at_s)
        if one.labels["__name__"] in counters:
            key = frozenset(one.labels.items())
            earlier = known.series.get(key)
            if earlier is None:
                firsts.append((int(where[0]), float(values[0])))
            changes = np.diff(values, prepend=values[0] if earlier is None else earlier[1])
            fell[where[changes < 0]] = 1.0
            np.add.at(growth, where, np.where(changes < 0, values, changes))
            known.series[key] = float(at_s[-1]), float(values[-1])
        elif one.labels["__name__"] in preset.in_flight:
            np.add.at(in_flight, where, values)
    # A series seen for the first time counts from nothing, unless it can be no newer than what was read.
    busiest = float(growth.max())
    from_before = False
    for index, value in firsts:
        if counts_from_before(value, busiest):
            from_before = True
        else:
            growth[index] += value
    if not counts_arrivals:
        changes = np.diff(in_flight, prepend=in_flight[0] if new and from_before else known.in_flight)
        growth += np.where(fell > 0, in_flight, changes)
    known.last_s, known.in_flight = float(times_s[-1]), float(in_flight[-1])
    gap = times_s - starts_s > _GAP_INTERVALS * interval_s
    tally.gap_s += float((times_s - starts_s)[gap].sum())
    tally.left_out += float(np.maximum(growth[gap], 0.0).sum())
    growth[gap] = 0.0
    tally.covered += zip(starts_s[~gap].tolist(), times_s[~gap].tolist(), strict=True)
    reached = np.cumsum(growth) + known.carry
    whole = np.floor(np.maximum.accumulate(np.maximum(reached, 0.0)) + 1e-6)
    known.carry = float(reached[-1] - whole[-1])
    counts = np.diff(whole, prepend=0.0).astype(np.int64)
    placed: Floats = np.repeat(starts_s, counts) + rng.random(int(counts.sum())) * np.repeat(
        times_s - starts_s, counts
    )
    return placed


def _missing(tally: _Tally, start_s: float, end_s: float) -> list[str]:
    """Say how much of the time, and of the requests, is not known."""
    said = []
    whole_s = end_s - start_s
    missing_s = whole_s - tally.covered_s(start_s, end_s)
    usual_s = float(np.median(tally.intervals_s)) if tally.intervals_s else 60.0
    if missing_s > _GAP_INTERVALS * usual_s:
        said.append(
            f"nothing was scraped for {missing_s / 3600:.2f} of {whole_s / 3600:.2f} hours "
            f"({missing_s / whole_s:.1%}): no requests are made up there"
        )
    if tally.gap_s > 0:
        said.append(
            f"instances came back after {tally.gap_s / 3600:.2f} instance-hours without scrapes: at least "
            f"{tally.left_out:,.0f} requests that came in them are left out, for when they came is not known"
        )
    said.append(f"arrivals are known to {usual_s:g} s, the time between scrapes: bursts within it are not")
    return said
