"""``plan --check``: which metrics there are, which are missing, what they say now, and what to fix."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.errors import SagescaleError
from sagescale.live.actuators.protocol import ActuatorError
from sagescale.live.config import METRIC_FIELDS
from sagescale.live.metrics.observe import NEEDS
from sagescale.live.metrics.source import MetricSource
from sagescale.live.secret import foreign_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sagescale.live.actuators.protocol import Actuator
    from sagescale.live.clock import Clock
    from sagescale.live.metrics.presets import Preset
    from sagescale.live.metrics.source import Source
    from sagescale.live.metrics.window import Problem, RawWindow

REREADS = 2
"""How often an instance that was not read is looked for again before that counts."""

_NEEDED = {
    "requests": "nothing can be sized",
    "isl_mean": "prefill holds until prompts have been measured",
    "osl_mean": "decode holds until outputs have been measured",
    "ttft_ms_mean": "prefill cannot be corrected",
    "itl_ms_mean": "decode cannot be corrected",
    "duration_s_mean": "decode cannot be corrected",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check: ``level`` is ``ok``, ``note`` or ``bad``; ``code`` is that of a problem."""

    level: str
    what: str
    fix: str = ""
    code: str = ""

    def __post_init__(self) -> None:
        # It names instances and models by their labels, which are anybody's.
        object.__setattr__(self, "what", foreign_text(self.what, 500))


def check(
    source: Source, actuator: Actuator, window_s: float, clock: Clock | None = None, pause_s: float = 0.0
) -> list[Finding]:
    """Read one window and the pools' state, and say what is there.

    An instance that is being removed is listed for a moment longer than it answers. So what is not read is
    read again, twice at most, and only instances that are read in none of these windows count: while pools
    are being scaled there may be another one on its way out in each.

    Args:
        source: Where metrics come from.
        actuator: What says how large the pools are.
        window_s: Length of the window that is read, in seconds of the engines' clock.
        clock: The clock the pause is taken on; without one nothing is read again.
        pause_s: Real seconds between two readings: a few scrape intervals.
    """
    pools = _actuator(actuator)
    if not isinstance(source, MetricSource):
        fix = "give prometheus_url, or scrape_prefill and scrape_decode"
        return [pools, Finding("bad", source.describe(), fix)]
    preset = source.observer.preset
    try:
        raw = source.reader.read(preset, window_s)
        missed = _missed(raw)
        for _ in range(REREADS):
            if not missed or clock is None or clock.wait_until(clock.monotonic_s() + pause_s):
                break
            raw = source.reader.read(preset, window_s)
            missed &= _missed(raw)
    except SagescaleError as error:
        return [pools, Finding("bad", str(error), "check the address, the network and the credentials")]
    raw = _without(raw, _missed(raw) - missed)
    groups = [found for group in raw.groups for found in _group(group, raw, preset)]
    return [pools, Finding("ok", f"{source.describe()} answers"), *groups, *_values(source, raw)]


def _missed(raw: RawWindow) -> set[str]:
    """Return what should have been read and was not: names of instances, addresses of pages."""
    pages = {_page(problem) for problem in raw.problems if problem.code == "instance_unreachable"}
    return pages.union(
        *(series.stale | (series.incomplete - series.instances) for series in raw.groups.values())
    )


def _without(raw: RawWindow, leaving: set[str]) -> RawWindow:
    """Return a window that does not complain about instances on their way out."""
    groups = {
        name: dataclasses.replace(
            series,
            stale=series.stale - leaving,
            incomplete=series.incomplete - (leaving - series.instances),
        )
        for name, series in raw.groups.items()
    }
    problems = tuple(
        problem
        for problem in raw.problems
        if problem.code != "instance_unreachable" or _page(problem) not in leaving
    )
    return dataclasses.replace(raw, groups=groups, problems=problems)


def _page(unreachable: Problem) -> str:
    """Return the address that its text begins with; why it cannot be read may differ each time."""
    return unreachable.text.partition(": ")[0]


def _actuator(actuator: Actuator) -> Finding:
    try:
        states = actuator.states()
    except ActuatorError as error:
        return Finding("bad", f"{actuator.target}: {error}", "without the pools' state nothing is scaled")
    if states is None:
        return Finding(
            "note", f"{actuator.target}: cannot say how many instances there are; those that report count"
        )
    if not states.draining_seen:
        return Finding(
            "note",
            f"{actuator.target}: pods may not be listed: what drains and what is rolled out is not seen",
            "give the role `list` on pods",
        )
    return Finding(
        "ok",
        f"{actuator.target}: "
        + ", ".join(f"{name} {pool.ready} of {pool.asked} ready" for name, pool in states.pools.items()),
    )


def _group(group: str, raw: RawWindow, preset: Preset) -> Iterator[Finding]:
    """Say which instances of a group report, and which of the metrics that are needed."""
    series = raw.groups[group]
    if not series.instances and all(name in raw.own for name in NEEDS[group]):
        yield Finding("ok", f"{group}: no instance is read; queries give {', '.join(NEEDS[group])}")
        return
    if not series.instances:
        where = (
            "prefill_pool / decode_pool / pool_label"
            if group in {"prefill", "decode"}
            else "namespace and model_name"
        )
        fix = f"check metrics_preset, {where}, model_name and that the instances are scraped"
        yield Finding("bad", f"{group}: no instance reports {preset.running[0]}", fix)
        return
    names = ", ".join(sorted(series.instances)[:4])
    more = "" if len(series.instances) <= 4 else f" and {len(series.instances) - 4} more"
    yield Finding("ok", f"{group}: {len(series.instances)} instances report: {names}{more}")
    if preset.arrived and not any(series.increases.get(name) for name in preset.arrived):
        yield Finding(
            "note",
            f"{group}: arrivals: none of {', '.join(preset.arrived)} (since May 2026): they are "
            f"{preset.completed[0]} plus the change of {preset.running[0]}",
        )
    for what, options, kind in (
        ("completions", preset.completed, series.increases),
        ("running", preset.running, series.now),
        ("waiting", preset.waiting, series.now),
    ):
        present = next((name for name in options if kind.get(name)), None)
        if present is None:
            yield Finding("bad", f"{group}: {what}: none of {', '.join(options)}", "enable it in the engine")
        else:
            yield Finding("ok", f"{group}: {what}: {present} = {sum(kind[present].values()):g}")
    for what, means in (
        ("ISL", preset.isl), ("OSL", preset.osl), ("TTFT", preset.ttft_ms), ("ITL", preset.itl_ms),
        ("duration", preset.duration_s),
    ):  # fmt: skip
        used = next((mean.total for mean in means if series.increases.get(mean.total)), None)
        none = f"none of {', '.join(mean.total for mean in means)}"
        yield Finding("note" if used is None else "ok", f"{group}: {what}: {used or none}")


def _values(source: MetricSource, raw: RawWindow) -> Iterator[Finding]:
    """Say what the planner would be shown, and what is wrong with it."""
    metrics = source.observer.observe(raw)
    for name, value in raw.own.items():
        if name in METRIC_FIELDS:
            continue
        if value is None:
            yield Finding("bad", f"{name}: its query gives no number")
        else:
            yield Finding("note", f"{name} = {value:.2f} (a query)")
    hint = (
        "see what is wrong below"
        if metrics.problems
        else "a window needs at least two scrapes in it; see the lines above"
    )
    for name in METRIC_FIELDS:
        value = metrics.values.get(name)
        if value is not None:
            yield Finding("ok", f"{name} = {value:.2f}")
        elif name not in _NEEDED:
            yield Finding("note", f"{name} is unknown")
        elif metrics.values.get("requests") == 0 and name != "requests":
            yield Finding("note", f"{name} is unknown: no traffic in the window")
        else:
            yield Finding("bad", f"{name} is unknown: {_NEEDED[name]}", hint)
    if (estimate := metrics.values.get("itl_attainment_estimate")) is not None:
        yield Finding(
            "note",
            f"itl_attainment is estimated from gaps between tokens: {estimate:.2f}; policy slo takes "
            "more care for it, never less",
            "an engine that counts requests says it, as vLLM does since 0.11; or give a query",
        )
    if metrics.lengths is None:
        yield Finding("note", "lengths: no histograms of ISL and OSL; policy slo assumes their spread")
    else:
        yield Finding("ok", f"lengths: {len(metrics.lengths)} drawn from histograms of ISL and OSL")
    for item in metrics.problems:
        yield Finding("bad", f"{item.code}: {item.text}", code=item.code)
