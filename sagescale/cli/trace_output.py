"""What ``sagescale trace`` prints and writes: a trace in figures, warnings, files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sagescale.trace import LengthStats, Trace, TraceStats

OutOption = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Where to write: .csv, .csv.gz, .parquet, or - for CSV on standard output.",
    ),
]


def warn(trace: Trace) -> None:
    """Print what its reader said."""
    for line in trace.warnings:
        print(f"warning: {trace.path}: {line}", file=sys.stderr)


def save(trace: Trace, out: Path) -> None:
    """Write the trace, pass on its warnings, and say what was done."""
    from sagescale.trace import write_trace

    warn(trace)
    if trace.prefixes is not None and out.suffix != ".parquet":
        print(
            f"warning: {out}: without prefix ids, which CSV has no lists for; write .parquet", file=sys.stderr
        )
    write_trace(trace, out)
    done = f" after {', '.join(trace.transforms)}" if trace.transforms else ""
    print(f"{out}: {len(trace):,} requests over {trace.duration_s:,.1f} s{done}")


def print_json(trace: Trace, stats: TraceStats) -> None:
    """Print identity, figures and warnings as one JSON document; what is unknown is null."""
    import json
    from dataclasses import asdict

    figures = asdict(stats)
    for name in ("prefixes", "sessions", "turns"):
        if figures[name] is None:
            del figures[name]
    document = {
        "path": trace.path,
        "format": trace.format,
        "sha256": trace.sha256,
        **({"started_at": trace.started_at.isoformat()} if trace.started_at else {}),
        **figures,
        "warnings": list(trace.warnings),
    }
    print(json.dumps(document, indent=2, allow_nan=False))


def print_table(trace: Trace, stats: TraceStats) -> None:
    """Print two tables and a sparkline of the rate; on a terminal and in a pipe alike."""
    from rich.table import Table
    from rich.text import Text

    from sagescale.cli.output import stdout_console
    from sagescale.report.text_plots import bars

    most = max(stats.rate_profile_rps, default=0.0)
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
        *((("began", f"{trace.started_at:%Y-%m-%d %H:%M:%S %z}"),) if trace.started_at else ()),
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
        *_session_rows(stats),
        *_prefix_rows(stats),
        (
            "rate over time",
            f"{bars(stats.rate_profile_rps, 0.0, most) if most else ''} 0 to {most:.3g}/s",
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


def _session_rows(stats: TraceStats) -> tuple[tuple[str, str], ...]:
    if stats.sessions is None:
        return ()
    count = f"{stats.sessions:,}, {stats.requests / stats.sessions:,.1f} requests each"
    turns = stats.turns
    if turns is None:
        return (("sessions", count),)
    each, joins = turns.per_session, f", {turns.joins:,} of them for several" if turns.joins else ""
    rows = [
        ("sessions", f"{count} (p50 {each.p50:,.0f}, p90 {each.p90:,.0f}, most {each.max:,})"),
        ("sessions begin", f"{_figure(turns.starts_per_hour)} an hour"),
        ("turns", f"{turns.waiting:,} requests wait for an answer{joins}"),
    ]
    for label, spread, unit in (
        ("thinking", turns.think_s, "s before a turn"),
        ("prompts grow by", turns.growth, "tokens a turn"),
    ):
        if spread is not None:
            figures = ((name, getattr(spread, name)) for name in ("p50", "p90", "p99", "mean"))
            values = ", ".join(f"{name} {value:,.1f}" for name, value in figures)
            rows.append((label, f"{values} {unit}"))
    return tuple(rows)


def _prefix_rows(stats: TraceStats) -> tuple[tuple[str, str], ...]:
    shared = stats.prefixes
    if shared is None:
        return ()
    return (
        ("prefix ids", f"{shared.ids:,} of {shared.block_tokens} tokens; {shared.distinct_ids:,} differ"),
        (
            "cache without end",
            f"holds {shared.distinct_tokens:,} tokens, finds {shared.hit_share:.3%} of all prompt tokens",
        ),
    )


def _length_cells(lengths: LengthStats) -> tuple[str, ...]:
    decimal = (lengths.mean, lengths.p50, lengths.p90, lengths.p99)
    return (*(f"{value:,.1f}" for value in decimal), f"{lengths.max:,}")


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.3f}"
