"""What ``trace info`` prints."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sagescale.trace import LengthStats, Trace, TraceStats

__all__ = ["print_json", "print_table"]

_BARS = "▁▂▃▄▅▆▇█"


def print_json(trace: Trace, stats: TraceStats) -> None:
    """Print identity, figures and warnings as one JSON document; what is unknown is null."""
    document = {
        "path": trace.path,
        "format": trace.format,
        "sha256": trace.sha256,
        **asdict(stats),
        "warnings": list(trace.warnings),
    }
    print(json.dumps(document, indent=2, allow_nan=False))


def print_table(trace: Trace, stats: TraceStats) -> None:
    """Print two tables and a sparkline of the rate; on a terminal and in a pipe alike."""
    from rich.table import Table
    from rich.text import Text

    from sagescale.cli.pipes import stdout_console

    # No wider than its words, whatever the terminal: a sha256 cut by an ellipsis identifies nothing.
    console = stdout_console(width=max(100, len(trace.path) + 24), highlight=False)
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(no_wrap=True)
    for label, value in (
        ("trace", trace.path),
        ("sha256", trace.sha256),
        ("format", trace.format),
        ("requests", f"{stats.requests:,}"),
        ("duration", f"{stats.duration_s:,.3f} s ({stats.duration_s / 3600:.2f} h)"),
        ("rate", f"{_figure(stats.mean_rps)} requests/s; busiest minute {_figure(stats.peak_minute_rps)}"),
        ("prompt tokens", f"{_figure(stats.prompt_tokens_per_s)} /s"),
        ("output tokens", f"{_figure(stats.output_tokens_per_s)} /s"),
        (
            "burstiness",
            f"cv of gaps {_figure(stats.gap_cv)}; dispersion by minute {_figure(stats.dispersion)}",
        ),
        ("ISL-OSL rank correlation", _figure(stats.isl_osl_correlation)),
        (
            "prefix-cached",
            "unknown" if stats.cached_share is None else f"{stats.cached_share:.1%} of prompt tokens",
        ),
        (
            "rate over time",
            f"{_sparkline(stats.rate_profile_rps)} 0 to {max(stats.rate_profile_rps, default=0):.3g}/s",
        ),
    ):
        facts.add_row(label, Text(value))
    console.print(facts)
    lengths = Table("tokens", box=None, pad_edge=False)
    for name in ("mean", "p50", "p90", "p99", "max"):
        lengths.add_column(name, justify="right")
    lengths.add_row("ISL", *_length_cells(stats.isl))
    lengths.add_row("OSL", *_length_cells(stats.osl))
    console.print()
    console.print(lengths)


def _length_cells(lengths: LengthStats) -> tuple[str, ...]:
    decimal = (lengths.mean, lengths.p50, lengths.p90, lengths.p99)
    return (*(f"{value:,.1f}" for value in decimal), f"{lengths.max:,}")


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.3f}"


def _sparkline(rates: tuple[float, ...]) -> str:
    """Draw rates from 0 to the highest as bars of eight heights."""
    top = max(rates, default=0.0)
    return "".join(_BARS[min(int(rate / top * len(_BARS)), len(_BARS) - 1)] for rate in rates) if top else ""
