"""One tick in one screen, for a person: what was seen, what is expected, what is done, and why."""

from __future__ import annotations

import textwrap
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sagescale.errors import one_line
from sagescale.planner import keys_of

if TYPE_CHECKING:
    from sagescale.fleet import PoolCounts
    from sagescale.live.records import TickRecord

_WIDTH = 100
_MOST_LINES = 12


def time_text(time_s: float) -> str:
    """Write a time in the local zone, to the second."""
    return datetime.fromtimestamp(time_s).astimezone().isoformat(sep=" ", timespec="seconds")


def tick_text(record: TickRecord, *, heading: str = "") -> str:
    """Write a tick in about twenty lines."""
    seen, decision, settings = record.observation, record.decision, record.settings
    forecast, corrections = decision["forecast"], decision["corrections"]
    lines = [f"sagescale  {time_text(record.time_s)}" + (f"  {heading}" if heading else ""), ""]
    between = ", between two ticks" if record.kind == "look" else ""
    lines.append(f"SAW       the last {seen.window_s:.0f} s{between}")
    lines.append(
        "  requests {}   isl {}   osl {}   duration {}".format(
            _number(seen.requests),
            _number(seen.isl_mean),
            _number(seen.osl_mean),
            _number(seen.duration_s_mean, " s"),
        )
    )
    if seen.requests_unserved:
        lines.append(
            f"  {_number(seen.requests_unserved)} of them reached no pool: a gateway shed or keeps them"
            if seen.requests_unserved > 0.0
            else f"  {_number(-seen.requests_unserved)} more reached the pools from a gateway's queue"
        )
    lines.append(
        "  TTFT {} (p99 {}, target {:g} ms)   ITL {} (p99 {}, target {:g} ms)".format(
            _number(seen.ttft_ms_mean, " ms"),
            _number(seen.ttft_ms_p99, " ms"),
            settings["target_ttft_ms"],
            _number(seen.itl_ms_mean, " ms", 2),
            _number(seen.itl_ms_p99, " ms", 2),
            settings["target_itl_ms"],
        )
    )
    usage = "" if seen.kv_usage is None else f"   KV {100 * seen.kv_usage:.0f} %"
    work = {
        "aggregated": _work(seen.running_decode, seen.queued_prefill) + usage,
        "prefill": _work(seen.running_prefill, seen.queued_prefill),
        "decode": _work(seen.running_decode, seen.queued_decode) + usage,
    }
    lines += [_pool(pool, counts) + work.get(pool, "") for pool, counts in seen.pools.items()]
    if seen.preemptions:
        lines.append(f"  {_number(seen.preemptions)} requests lost their KV memory to others")
    lines.extend(_clip(f"  ! {problem.text}") for problem in record.problems[:4])
    lines += [
        "",
        f"FORECAST  the next {settings['adjustment_interval_sec']} s, {settings['load_predictor_type']}",
    ]
    lines.append(
        "  requests {}   isl {}   osl {}   corrections: prefill {:.3f}, decode {:.3f}".format(
            _number(forecast["requests"]),
            _number(forecast["isl"]),
            _number(forecast["osl"]),
            corrections["prefill"],
            corrections["decode"],
        )
    )
    doing = "DO" if record.acted else "WOULD DO"
    gpus = sum(size * int(settings[keys_of(pool).gpus]) for pool, size in record.goal.items())
    raw = ", ".join(f"{pool} {size}" for pool, size in decision["raw"].items())
    asked = f"{settings['policy']} policy asked for {raw}"
    lines += ["", f"{doing:<9} {asked}"]
    for pool, now, then in record.moves:
        change = "stays" if now == then else f"{then - now:+d}"
        low, high = settings[keys_of(pool).least], settings[keys_of(pool).most]
        lines.append(f"  {pool:<8} {now} -> {then}   {change:<6} (limits {low} to {high})")
    lines.append(f"  GPUs {gpus} of a budget of {settings['max_gpu_budget']}")
    lines += ["", "WHY"]
    reasons = [(item["code"], item["text"]) for item in decision["reasons"]]
    reasons += [(note.code, note.text) for note in record.notes]
    why: list[str] = []
    for number, (code, text) in enumerate(reasons):
        wrapped = textwrap.wrap(
            _clip(f"{code}: {text}", 3), _WIDTH, initial_indent="  ", subsequent_indent="    "
        )
        if len(why) + len(wrapped) > _MOST_LINES:
            why.append(f"  ... and {len(reasons) - number} more")
            break
        why.extend(wrapped)
    lines.extend(why)
    return "\n".join(lines) + "\n"


def log_fields(record: TickRecord) -> dict[str, Any]:
    """Return a tick's essentials for one log line."""
    seen = record.observation
    return {
        "time": time_text(record.time_s),
        "requests": seen.requests,
        "isl": seen.isl_mean,
        "osl": seen.osl_mean,
        "ttft_ms": seen.ttft_ms_mean,
        "itl_ms": seen.itl_ms_mean,
        **{pool: {"now": now, "goal": then} for pool, now, then in record.moves},
        "acted": record.acted,
        "problems": [problem.code for problem in record.problems],
        "reasons": [item["code"] for item in record.decision["reasons"]]
        + [note.code for note in record.notes],
    }


def _pool(name: str, counts: PoolCounts) -> str:
    states = [f"{counts.ready} ready"]
    states += [
        f"{getattr(counts, state)} {state}"
        for state in ("starting", "draining", "waiting")
        if getattr(counts, state)
    ]
    return f"  {name:<8} {', '.join(states)}"


def _work(running: float | None, queued: float | None) -> str:
    return f"   running {_number(running)}   queued {_number(queued)}"


def _number(value: float | None, unit: str = "", digits: int = 1) -> str:
    if value is None:
        return "unknown"
    return f"{value:.{digits}f}{unit}" if value % 1 else f"{value:.0f}{unit}"


def _clip(text: str, lines: int = 2) -> str:
    # Texts may quote labels, which are anybody's: nothing in them reaches the terminal as a command.
    return one_line(text, lines * _WIDTH)
