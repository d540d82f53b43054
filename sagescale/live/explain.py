"""Answers from a journal why the pools were, or were not, scaled, in the guide's troubleshooting terms."""

from __future__ import annotations

import bisect
import itertools
import re
import statistics
import textwrap
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.fleet import DISAGGREGATED
from sagescale.live.tick_text import tick_text, time_text
from sagescale.planner import keys_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sagescale.live.records import Event, TickRecord

_AGO = re.compile(r"-(\d+(?:\.\d+)?)(s|m|h|d)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_METRICS_FAIL = frozenset(
    {"source_failed", "no_source", "no_series", "instances_silent", "frozen", "not_a_number",
     "double_counted", "counter_reset", "inconsistent", "invalid_metric", "query_ambiguous"}
)  # fmt: skip
_CAUSES = {
    "hold_unknown_lengths": (
        "lengths not known yet",
        "check that the ISL and OSL metrics exist: plan --check",
    ),
    "hold_no_capacity": ("the profile gives no capacity", "check the profile: sagescale profile validate"),
    "stabilised": ("stabilisation windows", "shorten scale_up_stabilization_window_sec"),
    "within_tolerance": ("tolerance", "lower tolerance"),
    "step_capped": ("step cap", "raise max_step_instances"),
    "router_uneven": (
        "requests are dealt out in turns",
        "let the router look at the load, or set routing_strategy: round_robin",
    ),
    "paused": ("paused", "remove the pause_file"),
    "pools_unknown": ("the pools' state is unknown", "check the actuator"),
    "rollout_in_progress": ("a rollout", "wait for it, or undo it"),
    "right_lost": ("another planner acts", "keep one of them, or this one with --standby"),
    "dry_run": ("dry run", "leave out --dry-run and no_operation, and configure an actuator"),
}
"""Cause and advice by the code of a reason or note."""
_WIDTH = 98
_FLAPS = 0.2
"""More direction changes than this share of the ticks is called frequent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One cause found: what it is, what shows it, and what to do about it."""

    cause: str
    evidence: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.cause}: {self.evidence}" + (f"\n    -> {self.advice}" if self.advice else "")


def parse_time(text: str, newest_s: float) -> float:
    """Read ISO 8601 (local where it names no zone), seconds since 1970, or ``-10m`` before the newest tick.

    Raises:
        InputError: it is none of them.
    """
    if found := _AGO.fullmatch(text.strip()):
        return newest_s - float(found[1]) * _SECONDS[found[2]]
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except ValueError:
        raise InputError(
            f"--at {text}: expected a time as 2026-11-22T09:30:00, seconds since 1970, or "
            "-10m before the last tick"
        ) from None


def tick_at(ticks: Sequence[TickRecord], time_s: float) -> int:
    """Return the index of the last tick at or before a time; before the first, the first."""
    return max(0, bisect.bisect_right(ticks, time_s, key=lambda tick: tick.time_s) - 1)


def explain_tick(record: TickRecord, events: Iterable[Event]) -> str:
    """Say what one tick did, what came of it, and why it did not do more."""
    parts = [tick_text(record)]
    if words := _in_plain_words(record):
        parts.append("IN PLAIN WORDS\n" + "\n".join(textwrap.indent(text, "  ") for text in words) + "\n")
    if answers := list(why_not_up([record])):
        parts.append("WHY NOT MORE\n" + "\n".join(f"  {answer}" for answer in answers) + "\n")
    after = [event for event in events if event.tick == record.id]
    if after:
        parts.append("WHAT CAME OF IT\n" + "\n".join(_event_line(event) for event in after) + "\n")
    return "\n".join(parts)


def explain_all(records: Sequence[TickRecord], events: Sequence[Event]) -> str:
    """Sum a journal up and answer the guide's two questions."""
    first, last = records[0], records[-1]
    ticks = [record for record in records if record.kind == "tick"]
    burst_checks = len(records) - len(ticks)
    ups = sum(any(to > at for _, at, to in tick.moves) for tick in records)
    downs = sum(any(to < at for _, at, to in tick.moves) for tick in ticks)
    kinds = Counter(event.kind for event in events)
    between = f"; {burst_checks} burst checks between them added instances" if burst_checks else ""
    lines = [
        f"{len(ticks)} ticks from {time_text(first.time_s)} to {time_text(last.time_s)}{between}",
        f"{ups} scaled up, {downs} scaled down; now {last.goal}",
        "events: " + (", ".join(f"{kind} {count}" for kind, count in kinds.most_common()) or "none"),
        "",
        "WHY DOES IT NOT SCALE UP?",
        *_answers(why_not_up(ticks), "nothing held it back: the demand it forecast asked for no more"),
        "",
        "WHY DOES IT SCALE SO OFTEN?",
        *_answers(why_so_often(records), "it does not"),
    ]
    bad = [event for event in events if event.kind in {"order_failed", "scale_up_stuck", "state_unknown"}][
        -5:
    ]
    if bad:
        lines += ["", "WHAT WENT WRONG IN ACTING", *(_event_line(event) for event in bad)]
    return "\n".join(lines) + "\n"


def why_not_up(ticks: Sequence[TickRecord]) -> Iterator[Answer]:
    """The guide's causes: the maximum reached, the budget spent, metrics failing; and ours."""
    codes = Counter(code for tick in ticks for code in _codes(tick))
    problems = Counter(problem.code for tick in ticks for problem in tick.problems)
    settings, total = ticks[-1].settings, len(ticks)
    for pool in ticks[-1].goal.names:
        if count := codes[f"at_max_{pool}"]:
            key = keys_of(pool).most
            yield Answer(f"{key} reached", f"{_of(count, total)}; it is {settings[key]}", f"raise {key}")
    if count := codes["gpu_budget"]:
        yield Answer(
            "GPU budget spent",
            f"{_of(count, total)}; max_gpu_budget is {settings['max_gpu_budget']}",
            "raise max_gpu_budget, or lower the minima of the other pool",
        )
    failing = sum(problems[code] for code in _METRICS_FAIL)
    blind = codes["hold_unknown_traffic"]
    if failing or blind:
        texts = [problem.text for tick in ticks for problem in tick.problems if problem.code in _METRICS_FAIL]
        evidence = f"requests unknown in {_of(blind, total)}" + (f"; last: {texts[-1]}" if texts else "")
        advice = "run `sagescale plan --check` and see to Prometheus or the instances"
        yield Answer("metrics fail", evidence, advice)
    if count := sum("correction_bounded" in _codes(tick) and _too_slow(tick) for tick in ticks):
        yield Answer(
            "latency above its target, the correction at its bound",
            _of(count, total),
            "calibrate the profile: the engines are slower than it says; a backlog alone passes. "
            "Or widen correction_bounds, or raise load_headroom",
        )
    for code, (cause, advice) in _CAUSES.items():
        if count := codes[code]:
            yield Answer(cause, _of(count, total), advice)


def why_so_often(ticks: Sequence[TickRecord]) -> Iterator[Answer]:
    """The guide's causes: an interval too short, an unstable predictor, corrections that fluctuate."""
    turns = 0
    for pool in ticks[-1].goal.names:
        sizes = [tick.goal[pool] for tick in ticks if pool in tick.goal.names]
        steps = [now - before for before, now in itertools.pairwise(sizes) if now != before]
        turns += sum(before * now < 0 for before, now in itertools.pairwise(steps))
    if len(ticks) < 5 or turns <= _FLAPS * len(ticks):
        return
    settings = ticks[-1].settings
    yield Answer("sizes go up and down again", f"{turns} times in {len(ticks)} ticks")
    interval_s = settings["adjustment_interval_sec"]
    if interval_s < 60:
        yield Answer("interval too short", f"{interval_s} s", "set adjustment_interval_sec to 60 to 120")
    seen = [
        tick.observation.requests
        for tick in ticks
        if tick.kind == "tick" and tick.observation.requests is not None
    ]
    if len(seen) > 2 and statistics.mean(seen) > 0 and settings["load_predictor_type"] == "constant":
        spread = statistics.stdev(seen) / statistics.mean(seen)
        yield Answer(
            "predictor repeats every wiggle",
            f"load varies by {100 * spread:.0f} % and the predictor is constant",
            "set load_predictor_type to moving_average, or prediction_window_size higher",
        )
    for pool in DISAGGREGATED:
        factors = [tick.decision["corrections"][pool] for tick in ticks]
        if len(factors) > 2 and statistics.pstdev(factors) > 0.1 * statistics.mean(factors):
            yield Answer(
                f"{pool} correction fluctuates",
                f"between {min(factors):.2f} and {max(factors):.2f}",
                "calibrate the profile, narrow correction_bounds, or set enable_correction: false",
            )
    yield Answer(
        "stabilisation is what damps it",
        "the windows are 0 by default",
        "set scale_down_stabilization_window_sec to 300 and tolerance to 0.1",
    )


def _in_plain_words(record: TickRecord) -> list[str]:
    """What the slo policy's reasons mean, for somebody who does not know it."""
    codes, seen = _codes(record), record.observation
    found = []
    if "surge" in codes and seen.requests is not None:
        expected = record.decision["forecast"]["requests"]
        plan = (
            ""
            if expected is None
            else f", where {expected / record.settings['adjustment_interval_sec']:.1f} a second were forecast"
        )
        found.append(
            f"This was decided between two ticks: {seen.requests:.0f} requests came in {seen.window_s:.0f} "
            f"s, {seen.requests / seen.window_s:.1f} a second{plan}. That, or the length of their prompts, "
            "is more than chance explains, so instances were added without waiting for the tick. Between "
            "ticks they are only ever added; the next tick decides anew."
        )
    if "sized_for_misses" in codes:
        found.append(
            "Sizes were tried on simulated engines, with requests as long as those seen lately and the loads "
            "that may come. Each line under WHY says what share of the requests would then miss a target, "
            "and what one instance fewer would miss. The sizes are the fewest GPUs with which all pools "
            "together miss no more than target_attainment leaves."
        )
    return ["\n".join(textwrap.wrap(text, _WIDTH)) for text in found]


def _codes(tick: TickRecord) -> set[str]:
    return {item["code"] for item in tick.decision["reasons"]} | {note.code for note in tick.notes}


def _too_slow(tick: TickRecord) -> bool:
    seen, settings = tick.observation, tick.settings
    return any(
        observed is not None and observed > settings[target]
        for observed, target in ((seen.ttft_ms_mean, "target_ttft_ms"), (seen.itl_ms_mean, "target_itl_ms"))
    )


def _of(count: int, total: int) -> str:
    return f"{count} of {total} ticks"


def _answers(answers: Iterable[Answer], otherwise: str) -> list[str]:
    return [f"  {answer}" for answer in answers] or [f"  {otherwise}"]


def _event_line(event: Event) -> str:
    return f"  {time_text(event.time_s)} {event.kind}: {event.text}"
