"""From raw series to the planner's observation: what is known, what is not, and what looks wrong."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sagescale.live.metrics.evenness import InstanceLoad, instance_loads
from sagescale.live.metrics.possible import Evidence, keep_possible
from sagescale.live.metrics.window import (
    Problem,
    RawWindow,
    Reports,
    SeriesWindow,
    bucket_quantile,
    bucket_share,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Literal

    from sagescale.live.metrics.presets import Mean, Preset
    from sagescale.live.metrics.window import ByInstance

_ENOUGH = 20.0
"""Requests completed, at least, before tokens a request are compared with what counters of tokens say."""

NEEDS = {
    "prefill": ("requests", "isl_mean"),
    "decode": ("osl_mean",),
    "frontend": ("requests", "isl_mean", "osl_mean"),
    "aggregated": ("requests", "isl_mean", "osl_mean"),
}
"""What a group's series are needed for: queries of the operator's own for all of it make them dispensable."""

_MEASURED = {
    "prefill": (
        "requests", "isl_mean", "duration_s_mean", "prefix_hit_rate", "running_prefill", "queued_prefill",
        "ttft_ms_mean", "ttft_ms_p99", "ttft_attainment",
    ),
    "decode": (
        "osl_mean", "itl_ms_mean", "itl_ms_p99", "itl_attainment", "itl_attainment_estimate",
        "duration_s_mean", "completed", "preemptions", "kv_usage", "running_decode", "queued_decode",
    ),
}  # fmt: skip
"""What is measured in each pool."""

_OF_DECODE = (
    "osl_mean", "itl_ms_mean", "itl_ms_p99", "itl_attainment", "itl_attainment_estimate", "duration_s_mean",
    "completed", "preemptions", "running_decode",
)  # fmt: skip
"""What is not known where instances that decode report values that do not move."""

_IN_FLIGHT = ("queued_prefill", "running_prefill", "queued_decode", "running_decode")

_LENGTHS = 64
_MIXING = 7
"""Which prompt goes with which output is not known: every seventh quantile, modulo 64, mixes them."""


class Targets(NamedTuple):
    """What attainment is measured against."""

    ttft_ms: float
    itl_ms: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """An observation's metrics with what was wrong about them.

    Attributes:
        values: Its numbers by field, all but the times and instances.
        problems: What was wrong.
        reporting: Who reports, by group.
        lengths: Its sample of (ISL, OSL); ``None`` where the exporter has no histograms of them.
        decode_loads: What each decode instance is loaded with now, where all of them say.
    """

    values: Mapping[str, float | None]
    problems: tuple[Problem, ...]
    reporting: Mapping[str, Reports]
    lengths: tuple[tuple[int, int], ...] | None = None
    decode_loads: tuple[InstanceLoad, ...] | None = None

    @property
    def usable(self) -> bool:
        """Whether the load is known: the one thing without which nothing can be sized."""
        return self.values.get("requests") is not None


@dataclass(slots=True)
class Observer:
    """Reads windows, one at a time; it remembers nothing.

    Args:
        preset: Whose names.
        first_token: Which pool streams it: where TTFT is measured.
        targets: Without them attainment is unknown.
    """

    preset: Preset
    first_token: Literal["prefill", "decode"] = "prefill"
    targets: Targets | None = None

    def observe(self, raw: RawWindow) -> Metrics:
        """Read one window."""
        problems = list(raw.problems)
        raw, doubtful = _without_negatives(raw, self.preset, problems)
        if self.preset.frontend:
            values = self._frontend(raw.groups["frontend"], problems)
        elif self.preset.aggregated:
            values = self._aggregated(raw.groups["aggregated"], problems)
        else:
            values = self._pools(raw.groups["prefill"], raw.groups["decode"], problems)
        for name, group in raw.groups.items():
            gone = not group.instances and group.first(group.last, self.preset.running) is not None
            if _not_whole(name, group, problems) or gone:
                # What was seen earlier in the window is not the whole of it.
                values.update(dict.fromkeys(self._measured(name), None))
            if not group.instances and name != "decode":
                values["requests"] = None
            if not group.instances and not all(need in raw.own for need in NEEDS[name]):
                problems.append(
                    Problem(
                        "no_series",
                        f"no {name} instance reports {self.preset.running[0]}: see plan --check",
                    )
                )
            problems.extend(
                Problem(
                    "not_a_number", f"{name} was reported as something that is no number: taken as unknown"
                )
                for name in sorted(group.invalid)
            )
        if doubtful:
            values["requests"] = None
        values |= raw.own
        reporting = {name: self._reports(name, group, raw.own) for name, group in raw.groups.items()}
        problems.extend(
            Problem("no_series", f"the query of {name} gives no number: its metric is not there")
            for name in ("requests", "requests_shed", "requests_queued_gateway")
            if name in raw.own and raw.own[name] is None
        )
        keep_possible(values, self._evidence(raw), problems)
        add_unserved(values, raw.own_before, problems)
        for pool in ("prefill", "decode", "aggregated"):
            if (counted := values.pop(f"instances_{pool}", None)) is not None:
                unheard = Reports(frozenset(), None)
                reporting[pool] = reporting.get(pool, unheard)._replace(counted=round(counted))
        prompts, outputs = raw.groups[self.preset.prompts], raw.groups[self.preset.outputs]
        return Metrics(
            values,
            tuple(problems),
            reporting,
            self._lengths(prompts, outputs, values),
            None if self.preset.frontend else instance_loads(outputs, self.preset),
        )

    def _frontend(self, group: SeriesWindow, problems: list[Problem]) -> dict[str, float | None]:
        preset = self.preset
        values = self._latencies(group, group, group)
        values["duration_s_mean"] = _mean(group, preset.duration_s)
        arrived = _total(group.increases, preset.arrived)
        # What waits in a frontend is part of what is in flight.
        values["requests"] = _arrivals(group, preset) if arrived is None else arrived
        values["completed"] = _total(group.increases, preset.completed)
        running, queued = _total(group.now, preset.running), _queued(group, preset)
        values["running_decode"] = None
        if running is not None and queued is not None:
            values["running_decode"] = max(0.0, running - queued)
        values["queued_prefill"] = queued
        restarted = _restarted("frontend", group, problems)
        if self._frozen("frontend", group, problems) or restarted:
            values["requests"] = None
        return values

    def _aggregated(self, group: SeriesWindow, problems: list[Problem]) -> dict[str, float | None]:
        """Read one pool whose instances see each request whole: what runs is not told apart."""
        preset = self.preset
        values = self._latencies(group, group, group) | self._work(group, group)
        values["duration_s_mean"] = _mean(group, preset.duration_s)
        values["running_decode"] = _total(group.now, preset.running)
        values["queued_prefill"] = _queued(group, preset)
        known = values["running_decode"] is not None
        values["running_prefill"] = values["queued_decode"] = 0.0 if known else None
        if group.stale:
            problems.append(_late("aggregated", group))
        begun, frozen = (
            _just_begun("aggregated", group, preset, problems),
            self._frozen("aggregated", group, problems),
        )
        if begun:
            values["completed"] = None
        if frozen:
            values.update(dict.fromkeys(_OF_DECODE, None))
        if _restarted("aggregated", group, problems) or begun or frozen:
            values["requests"] = None
        return values

    def _work(self, prompts: SeriesWindow, outputs: SeriesWindow) -> dict[str, float | None]:
        """Return what instances themselves have had to do."""
        preset = self.preset
        return {
            "requests": _arrivals(prompts, preset),
            "completed": _total(outputs.increases, preset.completed),
            "kv_usage": _average(outputs.first(outputs.now, preset.kv_usage)),
            "prefix_hit_rate": self._prefix_hits(prompts),
            "preemptions": _total(outputs.increases, preset.preemptions),
        }

    def _prefix_hits(self, group: SeriesWindow) -> float | None:
        preset = self.preset
        if preset.prefix_hits is not None:
            return _mean(group, (preset.prefix_hits,))
        return _average(group.first(group.now, preset.prefix_hit_gauge))

    def _pools(
        self,
        prefill: SeriesWindow,
        decode: SeriesWindow,
        problems: list[Problem],
    ) -> dict[str, float | None]:
        preset = self.preset
        both = prefill.instances & decode.instances
        if both:
            problems.append(
                Problem(
                    "double_counted",
                    f"{len(both)} instances are in both pools ({_some(both)}): every request would count "
                    "twice. Make prefill_pool and decode_pool tell them apart",
                )
            )
            return {}
        first = prefill if self.first_token == "prefill" else decode
        values = self._latencies(prefill, decode, first)
        if self.first_token == "decode" and values.get("ttft_ms_mean") is not None:
            # The user waited for prefill first; of a sum two histograms tell neither percentile nor share.
            before = _mean(prefill, preset.duration_s)
            own_ms = values["ttft_ms_mean"]
            values["ttft_ms_mean"] = None if before is None or own_ms is None else own_ms + 1000.0 * before
            values["ttft_ms_p99"] = values["ttft_attainment"] = None
        in_prefill, in_decode = _mean(prefill, preset.duration_s), _mean(decode, preset.duration_s)
        # A request is in one pool, then in the other.
        values["duration_s_mean"] = (
            None if in_prefill is None or in_decode is None else in_prefill + in_decode
        )
        values |= self._work(prefill, decode)
        for pool, group in (("prefill", prefill), ("decode", decode)):
            values[f"running_{pool}"] = _total(group.now, preset.running)
            values[f"queued_{pool}"] = _queued(group, preset)
            if group.stale:
                problems.append(_late(pool, group))
        wrong = [
            _just_begun("prefill", prefill, preset, problems),
            self._frozen("prefill", prefill, problems),
        ]
        if _just_begun("decode", decode, preset, problems):
            values["completed"] = None
        if self._frozen("decode", decode, problems):
            values.update(dict.fromkeys(_OF_DECODE, None))
        wrong.append(_restarted("prefill", prefill, problems))
        _restarted("decode", decode, problems)
        if any(wrong):
            values["requests"] = None
        return values

    def _measured(self, group: str) -> Iterable[str]:
        """Return the numbers that come from a group of instances."""
        if group in {"frontend", "aggregated"}:
            return (*_MEASURED["prefill"], *_MEASURED["decode"])
        if group == self.first_token == "decode":
            return (*_MEASURED["decode"], "ttft_ms_mean")  # prefill's time and decode's
        return _MEASURED[group]

    def _evidence(self, raw: RawWindow) -> Evidence:
        """Return what the series say beside the numbers made of them."""
        preset = self.preset
        prefill, decode = raw.groups[preset.prompts], raw.groups[preset.outputs]
        counted = {
            name: tokens
            for name, group, means in (("isl_mean", prefill, preset.isl), ("osl_mean", decode, preset.osl))
            if (tokens := _counted(group, means, preset)) is not None
        }
        before, now = _in_flight(raw.groups.values(), preset) or _in_flight_by_queries(raw) or (None, None)
        if preset.frontend or preset.aggregated:
            return Evidence(before, now, counted=counted)
        earlier = _in_flight((prefill,), preset)
        reached = _arrivals(decode, preset)
        return Evidence(before, now, None if earlier is None else earlier[0], reached, counted)

    def _latencies(
        self, prompts: SeriesWindow, outputs: SeriesWindow, first: SeriesWindow
    ) -> dict[str, float | None]:
        preset = self.preset
        return {
            "isl_mean": _mean(prompts, preset.isl),
            "osl_mean": _mean(outputs, preset.osl),
            "ttft_ms_mean": _mean(first, preset.ttft_ms),
            "ttft_ms_p99": _p99(first, preset.ttft_ms),
            "itl_ms_mean": _mean(outputs, preset.itl_ms),
            "itl_ms_p99": _p99(outputs, preset.itl_ms),
            "ttft_attainment": self.targets and _share(first, preset.ttft_ms, self.targets.ttft_ms),
            "itl_attainment": self.targets and _share(outputs, preset.itl_ms, self.targets.itl_ms),
            "itl_attainment_estimate": self.targets
            and _share_by_gaps(outputs, preset.itl_ms, self.targets.itl_ms),
        }

    def _lengths(
        self, prompts: SeriesWindow, outputs: SeriesWindow, values: Mapping[str, float | None]
    ) -> tuple[tuple[int, int], ...] | None:
        """Return requests with the lengths that both histograms show, each independent of the other."""
        isl = _spread(prompts, self.preset.isl, values.get("isl_mean"))
        osl = _spread(outputs, self.preset.osl, values.get("osl_mean"))
        if isl is None or osl is None:
            return None
        return tuple((prompt, osl[_MIXING * at % _LENGTHS]) for at, prompt in enumerate(isl))

    def _reports(self, name: str, group: SeriesWindow, own: Mapping[str, float | None]) -> Reports:
        """Say who reports, and of whom both what was done and what is being done is there."""
        names, listed = frozenset(group.instances), None if group.listed is None else frozenset(group.listed)
        if ("osl_mean" if name == "decode" else "requests") in own:
            return Reports(names, None, listed)  # somebody else sees it whole
        if name == "frontend":
            return Reports(names, names, listed)
        completed = group.first(group.increases, self.preset.completed) or {}
        running = group.first(group.now, self.preset.running) or completed
        return Reports(names, frozenset((completed.keys() | group.incomplete) & running.keys()), listed)

    def _frozen(self, pool: str, group: SeriesWindow, problems: list[Problem]) -> bool:
        """Say whether instances claim to be busy while none of their counters moves."""
        stuck = []
        watched = self.preset.activity + self.preset.completed
        for instance in group.instances:
            grown = [
                values[instance] for name in watched if instance in (values := group.increases.get(name, {}))
            ]
            if not grown or any(value > 0 for value in grown):
                continue
            busy = [
                kind[name].get(instance, 0.0)
                for kind in (group.before, group.now)
                for name in self.preset.running
                if name in kind
            ]
            if (busy and min(busy) > 0) or group.alive_cpu.get(instance) == 0.0:
                stuck.append(instance)
        if stuck:
            problems.append(
                Problem(
                    "frozen", f"{len(stuck)} {pool} instances report values that do not move ({_some(stuck)})"
                )
            )
        return bool(stuck)


def _not_whole(name: str, group: SeriesWindow, problems: list[Problem]) -> bool:
    """Say whether a group's series are not of the whole window, or are of some instances twice."""
    if group.doubled:
        shown = ", ".join(f"{instance} ({how})" for instance, how in sorted(group.doubled.items())[:2])
        problems.append(
            Problem(
                "double_counted",
                f"{len(group.doubled)} {name} instances are read twice, so each request counts twice: "
                f"{shown}. Leave one out by extra_matchers, prefill_pool or decode_pool",
            )
        )
    if group.incomplete:
        problems.append(
            Problem(
                "window_incomplete",
                f"{len(group.incomplete)} of {len(group.instances)} {name} instances were not read at an end "
                f"of the window ({_some(group.incomplete)}): what they did in it is not known",
            )
        )
    return bool(group.doubled or group.incomplete)


def _just_begun(name: str, group: SeriesWindow, preset: Preset, problems: list[Problem]) -> bool:
    """Say whether nothing is known of the window's start: the source itself has just begun."""
    if (
        group.incomplete
        or group.first(group.now, preset.running) is None
        or group.first(group.before, preset.running) is not None
    ):
        return False
    problems.append(
        Problem(
            "window_incomplete",
            f"no {name} instance was read at the window's start: it is shorter than it should be",
        )
    )
    return True


def _late(pool: str, group: SeriesWindow) -> Problem:
    return Problem(
        "scrapes_late",
        f"{len(group.stale)} {pool} instances were not read at the last attempt ({_some(group.stale)}): the "
        "load is at least what is shown",
    )


def _restarted(pool: str, group: SeriesWindow, problems: list[Problem]) -> bool:
    if group.resets:
        shown = _some(group.resets)
        problems.append(
            Problem(
                "counter_reset", f"counters of {len(group.resets)} {pool} instances fell ({shown}): restarted"
            )
        )
    return bool(group.resets)


def _some(instances: Collection[str]) -> str:
    return ", ".join(sorted(instances)[:3])


def _total(kind: Mapping[str, ByInstance], names: tuple[str, ...]) -> float | None:
    """Return the sum over instances of the first metric that exists."""
    return next((sum(kind[name].values()) for name in names if kind.get(name)), None)


def _queued(group: SeriesWindow, preset: Preset) -> float | None:
    """Return the requests that wait: in one queue or several."""
    found = [sum(group.now[name].values()) for name in preset.waiting if group.now.get(name)]
    return sum(found) if found else None


def _average(found: ByInstance | None) -> float | None:
    return sum(found.values()) / len(found) if found else None


def _mean(group: SeriesWindow, means: tuple[Mean, ...]) -> float | None:
    """Return the first mean that exists; over nothing it is unknown."""
    for mean in means:
        totals, counts = group.increases.get(mean.total), group.increases.get(mean.count)
        if totals and counts:
            shared = totals.keys() & counts.keys()
            count = sum(counts[name] for name in shared)
            return mean.scale * sum(totals[name] for name in shared) / count if count > 0 else None
    return None


def _p99(group: SeriesWindow, means: tuple[Mean, ...]) -> float | None:
    for mean in means:
        if mean.buckets is not None and group.buckets.get(mean.buckets):
            value = bucket_quantile(0.99, group.buckets[mean.buckets])
            return None if value is None else mean.scale * value
    return None


def _share(group: SeriesWindow, means: tuple[Mean, ...], target: float) -> float | None:
    """Return the share of requests within a target; entries of tokens do not tell it."""
    for mean in means:
        if mean.buckets is not None and not mean.per_token and group.buckets.get(mean.buckets):
            return bucket_share(target / mean.scale, group.buckets[mean.buckets])
    return None


def _share_by_gaps(group: SeriesWindow, means: tuple[Mean, ...], target: float) -> float | None:
    """Estimate the share of requests whose mean gap is within a target where gaps alone are counted.

    An instance decodes its requests in common steps, so that in a window each has about its mean: those on
    instances with a mean above the target are taken to miss it, by tokens. But of requests near the target
    some meet it: no more are taken to miss than the share of all gaps above it.

    Returns:
        ``None`` where there is no histogram of gaps, or one of requests as well.
    """
    used = next((mean for mean in means if group.increases.get(mean.total)), None)
    if used is None or used.buckets is None or not used.per_token:
        return None
    within = bucket_share(target / used.scale, group.buckets.get(used.buckets, {}))
    totals, counts = group.increases[used.total], group.increases.get(used.count, {})
    gaps = sum(counts[name] for name in totals.keys() & counts.keys())
    if within is None or gaps <= 0.0:
        return None
    late = sum(
        counts[name]
        for name in totals.keys() & counts.keys()
        if used.scale * totals[name] > target * counts[name]
    )
    return max(within, 1.0 - late / gaps)


def _spread(group: SeriesWindow, means: tuple[Mean, ...], observed: float | None) -> list[int] | None:
    """Return quantiles of the first histogram that exists, scaled to the mean observed."""
    for mean in means:
        if mean.buckets is not None and (buckets := group.buckets.get(mean.buckets)):
            found = [bucket_quantile((at + 0.5) / _LENGTHS, buckets) for at in range(_LENGTHS)]
            quantiles = [value for value in found if value is not None]
            total = sum(quantiles)
            if observed is None or total <= 0.0:
                return None
            return [max(1, round(value * observed * _LENGTHS / total)) for value in quantiles]
    return None


def _arrivals(group: SeriesWindow, preset: Preset) -> float | None:
    """Completions plus the change of what is in flight: an overload shows before anything completes."""
    total = _total(group.increases, preset.completed)
    if total is None or group.first(group.last, preset.running) is None:
        return None
    for name in preset.in_flight:
        if name in group.last:
            total += sum(group.last[name].values()) - sum(group.before.get(name, {}).values())
    return total


def _in_flight(groups: Iterable[SeriesWindow], preset: Preset) -> tuple[float, float] | None:
    """Return the requests in flight at a window's start and, of the same instances, at its end."""
    before = now = 0.0
    for group in groups:
        if group.first(group.before, preset.running) is None:
            return None
        for name in preset.in_flight:
            earlier, later = group.before.get(name, {}), group.now.get(name, {})
            before += sum(earlier.values())
            now += sum(later.get(instance, 0.0) for instance in earlier)
    return before, now


def _in_flight_by_queries(raw: RawWindow) -> tuple[float, float] | None:
    """Return the same where the operator's own queries say it."""
    before, now = ([kind.get(name) for name in _IN_FLIGHT] for kind in (raw.own_before, raw.own))
    earlier, later = ([value for value in found if value is not None] for found in (before, now))
    return (sum(earlier), sum(later)) if len(earlier) == len(later) == len(_IN_FLIGHT) else None


def _counted(group: SeriesWindow, means: tuple[Mean, ...], preset: Preset) -> float | None:
    """Return tokens a completed request by counters that no histogram fills.

    Tokens are counted as they are made, requests when they end: only over many more requests than are under
    way do the two mean the same.
    """
    before, now = (_total(kind, preset.running) for kind in (group.before, group.now))
    if before is None or now is None:
        return None
    for mean in means:
        completed = _total(group.increases, (mean.count,)) or 0.0
        counted = mean.buckets is None and completed >= max(_ENOUGH, 2.0 * before, 2.0 * now)
        if counted and group.increases.get(mean.total):
            return _mean(group, (mean,))
    return None


def _without_negatives(raw: RawWindow, preset: Preset, problems: list[Problem]) -> tuple[RawWindow, bool]:
    """Take out metrics that are below zero somewhere, which no gauge or counter can be.

    Returns:
        The window without them, and whether the load is made of one of them or of one that is no number: a
        sum with a part missing is not the sum.
    """
    groups = {}
    doubtful = False
    for role, group in raw.groups.items():
        negative = {
            name: (instance, value)
            for kind in (group.increases, group.before, group.last, group.now)
            for name, values in kind.items()
            for instance, value in values.items()
            if value < 0.0
        }
        problems.extend(
            Problem("invalid_metric", f"{role}: {instance} reports {name} as {value:g}: taken as unknown")
            for name, (instance, value) in sorted(negative.items())
        )
        doubtful |= bool(
            (negative.keys() | group.invalid) & {*preset.arrived, *preset.completed, *preset.in_flight}
        )

        known: dict[str, Any] = {
            kind: {name: values for name, values in getattr(group, kind).items() if name not in negative}
            for kind in ("increases", "before", "last", "now")
        }
        groups[role] = dataclasses.replace(group, **known)
    return dataclasses.replace(raw, groups=groups), doubtful


def add_unserved(
    values: dict[str, float | None], at_start: Mapping[str, float | None], problems: list[Problem]
) -> None:
    """Add what a gateway turned away, and what its queue grew by, to the load; it reached no pool.

    Args:
        values: A window's numbers, changed in place; ``requests_shed`` and ``requests_queued_gateway`` are
            taken out.
        at_start: The queue at the window's start.
        problems: Takes what is wrong.
    """
    parts = [values.pop("requests_shed")] if "requests_shed" in values else []
    queued = None
    if "requests_queued_gateway" in values:
        queued, before = values.pop("requests_queued_gateway"), at_start.get("requests_queued_gateway")
        if queued is not None and before is None:
            problems.append(
                Problem("window_incomplete", "requests_queued_gateway is not known at the window's start")
            )
        parts.append(None if queued is None or before is None else queued - before)
    if not parts:
        return
    known = [part for part in parts if part is not None]
    unserved = sum(known) if len(known) == len(parts) else None
    requests, waiting = values.get("requests"), values.get("queued_prefill")
    values["requests_unserved"] = unserved
    values["requests"] = None if requests is None or unserved is None else max(0.0, requests + unserved)
    if queued is not None and waiting is not None:
        values["queued_prefill"] = waiting + queued
