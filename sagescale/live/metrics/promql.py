"""Builds PromQL; everything that comes from a configuration is escaped or checked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sagescale.live.metrics.matchers import escaped, matcher, parse_matchers
from sagescale.live.metrics.sampling import lookback_s

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagescale.live.config import LiveConfig
    from sagescale.live.metrics.presets import Mean, Preset

KIND_LABEL = "sagescale_series"
"""The label that tells the parts of one big query from one another."""


def duration(seconds: float) -> str:
    """Write a duration, in whole milliseconds as PromQL has it."""
    return f"{max(1, round(seconds * 1000))}ms"


def common_matchers(live: LiveConfig, preset: Preset) -> str:
    """Return the matchers that every group has: namespace, model, and the operator's own."""
    return ",".join(_common(live, preset))


def _common(live: LiveConfig, preset: Preset) -> list[str]:
    found = []
    if preset.namespace_label is not None:
        found.append(matcher(preset.namespace_label, "=", live.namespace))
    if live.model_name is not None:
        found.append(
            matcher(preset.model_label, "=~", f"(?i){re.escape(live.model_name)}")
            if preset.model_any_case
            else matcher(preset.model_label, "=", live.model_name)
        )
    return [*found, *map(str, parse_matchers(live.extra_matchers))]


def group_matchers(live: LiveConfig, preset: Preset) -> dict[str, str]:
    """Return the matchers of every group of instances that a preset reads."""
    common = _common(live, preset)
    if preset.frontend or preset.aggregated:  # which tell no pools apart
        return {preset.prompts: ",".join(common)}
    return {
        "prefill": ",".join([matcher(live.pool_label, "=~", live.prefill_pool), *common]),
        "decode": ",".join([matcher(live.pool_label, "=~", live.decode_pool), *common]),
    }


def _part(kind: str, inner: str, by: str, aggregate: str = "sum") -> str:
    return f'label_replace({aggregate} by ({by}) ({inner}), "{KIND_LABEL}", "{kind}", "", "")'


def samples_query(names: tuple[str, ...], matchers: str, range_s: float) -> str:
    """Write a query for every sample of the gauge that each instance has: when it was read, and by whom."""
    named = matcher("__name__", "=~", "|".join(names))
    return f"{{{','.join(part for part in (named, matchers) if part)}}}[{duration(range_s)}]"


def window_query(
    preset: Preset, matchers: str, instance_label: str, window_s: float, edge_s: float = 300.0
) -> str:
    """Write one query for every series of one group over one window, so that all are of one instant.

    Each part carries its kind and metric in ``KIND_LABEL``. ``edge_s`` is how old a sample may be and still
    stand for the window's start.
    """
    window = duration(window_s)
    since = f"[{duration(edge_s)}] offset {window}"

    def at_start(name: str) -> str:
        return f"last_over_time({name}{{{matchers}}}{since})"

    def growth(name: str) -> str:
        # ``increase`` extrapolates to the window's ends, which adds noise, and over a gap in the scrapes says
        # too little. It is used where a series has no sample at the start (it is new) or has fallen.
        series = f"{name}{{{matchers}}}"
        grown = f"((last_over_time({series}[{window}]) - {at_start(name)}) >= 0)"
        return f"({grown} or increase({series}[{window}]))"

    def falls(name: str) -> str:
        # ``resets`` sees the samples inside alone: a fall between the last one before and the first one after
        # the start would be in no window at all.
        series = f"{name}{{{matchers}}}"
        inside = f"resets({series}[{window}])"
        return f"({inside} + ({at_start(name)} > bool last_over_time({series}[{window}])) or {inside})"

    parts = [(f"increase {name}", growth(name)) for name in preset.counters()]
    ratios: list[tuple[str, str]] = []
    for name in preset.gauges():
        selector = f"{name}{{{matchers}}}"
        # An instance may have a series for each of its ranks.
        of_ranks = ratios if name in preset.ratios() else parts
        # One scrape that fails makes a series vanish for that instant: half a window is patience enough.
        of_ranks.append((f"now {name}", f"last_over_time({selector}[{duration(window_s / 2)}])"))
        of_ranks.append((f"last {name}", f"last_over_time({selector}[{window}])"))
        of_ranks.append((f"before {name}", at_start(name)))
    for name in preset.running:
        parts.append((f"fresh {name}", f"{name}{{{matchers}}}"))
        parts.append((f"scrapes {name}", f"count_over_time({name}{{{matchers}}}[{window}])"))
    for name in preset.completed:
        earliest = f"min_over_time({name}{{{matchers}}}[{window}])"
        parts.append((f"resets {name}", falls(name)))
        parts.append((f"first {name}", f"{earliest} unless {at_start(name)}"))
    targets = target_matchers(matchers, preset)
    used = f"increase(process_cpu_seconds_total{{{targets}}}[{window}]"
    parts += [("cpu", f"{used})"), ("earlier_cpu", f"{used} offset {window})")]
    # The server keeps ``up`` for every target it is to read, 0 where it cannot, until it is removed.
    parts.append(("listed", f"up{{{targets}}}"))
    return " or ".join(
        [
            *(_part(kind, inner, instance_label) for kind, inner in parts),
            *(_part(kind, inner, instance_label, "avg") for kind, inner in ratios),
            *(_part(f"bucket {name}", growth(name), "le") for name in preset.histograms()),
        ]
    )


def whole_query(
    names: tuple[str, ...], matchers: str, targets: str, instance_label: str, window_s: float, edge_s: float
) -> str:
    """Write a query that gives a number where instances were read at both ends of a window, else nothing.

    An instance that has gone from the list of targets is not missed at the end, and a new one not at the
    start.
    """

    def read(metrics: tuple[str, ...], where: str, range_s: float, offset_s: float = 0.0) -> str:
        since = f"[{duration(range_s)}]" + (f" offset {duration(offset_s)}" if offset_s else "")
        found = " or ".join(f"count_over_time({name}{{{where}}}{since})" for name in metrics)
        return f"count by ({instance_label}) ({found})"

    inside, at_end = read(names, matchers, window_s), read(names, matchers, edge_s)
    at_start = read(names, matchers, edge_s, window_s)
    before = read(names, matchers, lookback_s(window_s), window_s)
    listed = read(("up",), targets, edge_s)
    there = f"({inside} or {listed})"
    return (
        f"count({at_start}) and count({at_end}) unless count(({before} and {there}) unless {at_start}) "
        f"unless count((({inside} or {at_start}) and {listed}) unless {at_end})"
    )


def load_queries(preset: Preset, matchers: Mapping[str, str], window_s: float) -> dict[str, str]:
    """Write queries for one number each, of the load of a window: ``requests``, ``isl_mean``, ``osl_mean``.

    They are asked over a range of past windows, where the series of every instance would be too many.

    Args:
        preset: Whose names.
        matchers: Those of each group.
        window_s: In the server's seconds.
    """
    prompts, outputs = matchers.get(preset.prompts, ""), matchers.get(preset.outputs, "")
    window = duration(window_s)

    def grown(name: str, where: str) -> str:
        return f"sum(increase({name}{{{where}}}[{window}]))"

    def mean(means: tuple[Mean, ...], where: str) -> str:
        return " or ".join(f"({grown(one.total, where)} / {grown(one.count, where)})" for one in means)

    completed = " or ".join(grown(name, prompts) for name in preset.completed)
    more_in_flight = "".join(
        f" + (sum({name}{{{prompts}}}) - sum({name}{{{prompts}}} offset {window}) or vector(0))"
        for name in preset.in_flight
    )
    arrived = [grown(name, prompts) for name in preset.arrived]
    return {
        "requests": " or ".join([*arrived, f"({completed}){more_in_flight}"]),
        "isl_mean": mean(preset.isl, prompts),
        "osl_mean": mean(preset.osl, outputs),
    }


def target_matchers(matchers: str, preset: Preset) -> str:
    """Return the matchers of ``up`` and of processes, which know nothing of models and namespaces."""
    labels = {preset.model_label, preset.namespace_label}
    return ",".join(str(one) for one in parse_matchers(matchers) if one.label not in labels)


def expand(query: str, live: LiveConfig, preset: Preset, window_s: float) -> str:
    """Fill in the placeholders of an operator's own query."""
    values: Mapping[str, str] = {
        "$window": duration(window_s),
        "$matchers": ",".join(_common(live, preset)),
        "$namespace": escaped(live.namespace),
        "$model": escaped(live.model_name or ""),
    }
    for name, value in values.items():
        query = query.replace(name, value)
    return query
