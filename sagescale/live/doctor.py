"""``plan --check``: which metrics there are, which are missing, what they say now, and what to fix."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.errors import SagescaleError
from sagescale.live.actuators.protocol import ActuatorError
from sagescale.live.config import METRIC_FIELDS
from sagescale.live.foreign_text import foreign_text
from sagescale.live.metrics.observe import NEEDS
from sagescale.live.metrics.source import MetricSource

if TYPE_CHECKING:
    from sagescale.live.actuators.protocol import Actuator
    from sagescale.live.clock import Clock
    from sagescale.live.metrics.presets import Preset
    from sagescale.live.metrics.source import Source
    from sagescale.live.metrics.window import Problem, RawWindow, SeriesWindow

__all__ = ["Finding", "check"]

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
    found = [_actuator(actuator)]
    if not isinstance(source, MetricSource):
        return [
            *found,
            Finding("bad", source.describe(), "give prometheus_url, or scrape_prefill and scrape_decode"),
        ]
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
        return [*found, Finding("bad", str(error), "check the address, the network and the credentials")]
    raw = _without(raw, _missed(raw) - missed)
    found.append(Finding("ok", f"{source.describe()} answers"))
    for group, series in raw.groups.items():
        if not series.instances and all(name in raw.own for name in NEEDS[group]):
            found.append(
                Finding("ok", f"{group}: no instance is read; queries give {', '.join(NEEDS[group])}")
            )
        else:
            found.extend(_group(group, series, preset))
    found.extend(_values(source, raw))
    return found


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


def _group(group: str, series: SeriesWindow, preset: Preset) -> list[Finding]:
    if not series.instances:
        where = (
            "prefill_pool / decode_pool / pool_label" if group != "frontend" else "namespace and model_name"
        )
        return [
            Finding(
                "bad",
                f"{group}: no instance reports {preset.running[0]}",
                f"check metrics_preset, {where}, model_name and that the instances are scraped",
            )
        ]
    names = ", ".join(sorted(series.instances)[:4])
    more = "" if len(series.instances) <= 4 else f" and {len(series.instances) - 4} more"
    found = [Finding("ok", f"{group}: {len(series.instances)} instances report: {names}{more}")]
    if preset.arrived and not any(series.increases.get(name) for name in preset.arrived):
        found.append(
            Finding(
                "note",
                f"{group}: arrivals: none of {', '.join(preset.arrived)} (since May 2026): they are "
                f"{preset.completed[0]} plus the change of {preset.running[0]}",
            )
        )
    for what, options, kind in (
        ("completions", preset.completed, series.increases),
        ("running", preset.running, series.now),
        ("waiting", preset.waiting, series.now),
    ):
        present = next((name for name in options if kind.get(name)), None)
        if present is None:
            found.append(
                Finding("bad", f"{group}: {what}: none of {', '.join(options)}", "enable it in the engine")
            )
        else:
            total = sum(kind[present].values())
            found.append(Finding("ok", f"{group}: {what}: {present} = {total:g}"))
    for what, means in (
        ("ISL", preset.isl), ("OSL", preset.osl), ("TTFT", preset.ttft_ms), ("ITL", preset.itl_ms),
        ("duration", preset.duration_s),
    ):  # fmt: skip
        used = next((mean for mean in means if series.increases.get(mean.total)), None)
        if used is None:
            found.append(
                Finding("note", f"{group}: {what}: none of {', '.join(mean.total for mean in means)}")
            )
        else:
            found.append(Finding("ok", f"{group}: {what}: {used.total}"))
    return found


def _values(source: MetricSource, raw: RawWindow) -> list[Finding]:
    metrics = source.observer.observe(raw)
    found = [
        Finding("note", f"{name} = {value:.2f} (a query)")
        if value is not None
        else Finding("bad", f"{name}: its query gives no number")
        for name, value in raw.own.items()
        if name not in METRIC_FIELDS
    ]
    hint = (
        "see what is wrong below"
        if metrics.problems
        else "a window needs at least two scrapes in it; see the lines above"
    )
    for name in METRIC_FIELDS:
        value = metrics.values.get(name)
        if value is not None:
            found.append(Finding("ok", f"{name} = {value:.2f}"))
        elif name in _NEEDED:
            traffic = metrics.values.get("requests")
            idle = traffic == 0 and name != "requests"
            found.append(
                Finding(
                    "note" if idle else "bad",
                    f"{name} is unknown: " + ("no traffic in the window" if idle else _NEEDED[name]),
                    "" if idle else hint,
                )
            )
        else:
            found.append(Finding("note", f"{name} is unknown"))
    if (estimate := metrics.values.get("itl_attainment_estimate")) is not None:
        found.append(
            Finding(
                "note",
                f"itl_attainment is estimated from gaps between tokens: {estimate:.2f}; policy slo takes "
                "more care for it, never less",
                "an engine that counts requests says it, as vLLM does since 0.11; or give a query",
            )
        )
    found.append(
        Finding("note", "lengths: no histograms of ISL and OSL; policy slo assumes their spread")
        if metrics.lengths is None
        else Finding("ok", f"lengths: {len(metrics.lengths)} drawn from histograms of ISL and OSL")
    )
    found.extend(Finding("bad", f"{item.code}: {item.text}", code=item.code) for item in metrics.problems)
    return found
