"""The planner's reason codes in words, and which of them are limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.report.formats import known, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOVES = ("scale_up", "scale_down", "steady")
"""What was done; other codes say why."""
_USUAL = "forecast_choice"
"""Said at each tick with ``auto``."""
MOVES = tuple(code.replace("_", " ") for code in _MOVES)
"""The same in words."""

_WORDS = {
    "no_traffic": "no traffic",
    "work_waiting": "kept an instance for waiting work",
    "hold_unknown_traffic": "held, traffic unknown",
    "hold_unknown_lengths": "held, lengths unknown",
    "hold_unknown_metrics": "held, metrics unknown",
    "hold_no_capacity": "held, no capacity in the profile",
    "invalid_metric": "metric refused as invalid",
    "replicas_changed": "instances changed by others",
    "no_decode_ready": "no decode instance ready",
    "correction_bounded": "correction at its bound",
    "learned_times": "left the profile for learned times, or came back",
    "target_ttft_unreachable": "a lone prompt exceeds the TTFT target",
    "sla_infeasible": "no decode point meets the ITL target",
    "forecast_note": "predictor fell back or made a note",
    "forecast_choice": "auto chose a predictor",
    "within_tolerance": "within tolerance",
    "sized_for_misses": "sized to keep the attainment asked",
    "stabilised": "kept by stabilisation",
    "rate_limited": "kept by a rate limit",
    "at_min_prefill": "raised to min_prefill_instances",
    "at_min_decode": "raised to min_decode_instances",
    "at_min_aggregated": "raised to min_instances",
    "at_min_pool": "raised to a pool's minimum",
    "at_max_prefill": "cut to max_prefill_instances",
    "at_max_decode": "cut to max_decode_instances",
    "at_max_aggregated": "cut to max_instances",
    "at_max_pool": "cut to a pool's maximum",
    "gpu_budget": "cut to max_gpu_budget",
    "dry_run": "dry run, not acted on",
}

LIMITS = {
    "gpu_budget": "max_gpu_budget",
    "at_max_prefill": "max_prefill_instances",
    "at_max_decode": "max_decode_instances",
    "at_max_aggregated": "max_instances",
}
"""What cuts a size, and the key that says so."""


def times(reasons: Mapping[str, int], code: str) -> int:
    """Return how often a code was given; 0 where that is unknown."""
    return int(known(reasons.get(code)) or 0)


def in_words(code: str) -> str:
    """Return what a reason code means; codes not known here are read as they are spelt."""
    return _WORDS.get(code, plain(code).replace("_", " "))


def causes(reasons: Mapping[str, int], most: int) -> list[tuple[int, str, str]]:
    """Return the ``most`` frequent causes as (times, code, words), most frequent first, ties by code."""
    counted = [(times(reasons, code), code) for code in reasons if code not in (*_MOVES, _USUAL)]
    return [(number, code, in_words(code)) for number, code in _ranked(counted)[:most]]


def limits(reasons: Mapping[str, int]) -> list[tuple[int, str]]:
    """Return the limits that cut a size as (times, configuration key), most frequent first."""
    return _ranked([(times(reasons, code), key) for code, key in LIMITS.items()])


def _ranked(counted: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return those that occur, most frequent first, ties by name."""
    return sorted((pair for pair in counted if pair[0] > 0), key=lambda pair: (-pair[0], pair[1]))
