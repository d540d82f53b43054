"""``sagescale trace``: look at request traces, convert, transform and make them."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagescale.cli.examples import epilog
from sagescale.cli.options import (
    GIVEN,
    ConfigOption,
    GivenTrace,
    SeedOption,
    SetOption,
    Transforms,
    takes_trace,
    takes_transforms,
)

if TYPE_CHECKING:
    from sagescale.trace import LengthStats, Trace, TraceStats
    from sagescale.trace.synth import Pattern

__all__ = ["trace_app"]

trace_app = typer.Typer(
    help="Look at request traces, convert, transform and make them.", no_args_is_help=True
)

OutOption = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Where to write: .csv, .csv.gz, .parquet, or - for CSV on standard output.",
    ),
]


class PatternName(StrEnum):
    """The arrival patterns ``trace synth`` knows."""

    STEADY = "steady"
    RAMP = "ramp"
    STEP = "step"
    DIURNAL = "diurnal"
    BURSTY = "bursty"
    SPIKES = "spikes"


@trace_app.command(epilog=epilog("trace info"))
@takes_trace
def info(
    trace: GivenTrace,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of a table.")
    ] = False,
) -> None:
    """Describe a trace: rates, lengths, burstiness, and what was odd about the file."""
    from sagescale.trace import describe

    loaded = trace.read()
    _warn(loaded)
    (_print_json if as_json else _print_table)(loaded, describe(loaded))
    calibration = trace.calibration_command()
    if calibration is not None:
        print(
            "The log also says when first tokens and ends came. This fits a profile to it, with all times in "
            f"seconds on one clock (a duration is to be added to the arrival first):\n  {calibration}",
            file=sys.stderr,
        )


@trace_app.command(epilog=epilog("trace convert"))
@takes_trace
def convert(trace: GivenTrace, out: OutOption) -> None:
    """Rewrite a trace of any known format as sagescale's own CSV or Parquet."""
    from sagescale.trace import check_destination

    check_destination(out)
    _save(trace.read(), out)


@trace_app.command(epilog=epilog("trace transform"))
@takes_trace
@takes_transforms
def transform(
    trace: GivenTrace,
    out: OutOption,
    transforms: Transforms = GIVEN,
) -> None:
    """Cut, thin, multiply, speed up or repeat a trace and write the result."""
    from sagescale.errors import InputError
    from sagescale.trace import apply_transforms, check_destination

    check_destination(out)
    changed = apply_transforms(trace.read(), transforms)
    if not changed.transforms:
        raise InputError(
            "nothing to do: give --slice, --rate-scale, --speedup, --tile or --sessions, or use trace convert"
        )
    _save(changed, out)


@trace_app.command(epilog=epilog("trace synth"))
def synth(
    pattern: Annotated[PatternName, typer.Option("--pattern", help="How requests arrive.")],
    duration_s: Annotated[float, typer.Option("--duration-s", metavar="S", help="For how long.")],
    rps: Annotated[
        float,
        typer.Option(
            "--rps", metavar="R", help="Requests/s: the mean; at the start of a ramp or step; between spikes."
        ),
    ],
    isl: Annotated[
        str,
        typer.Option(
            "--isl",
            metavar="DIST",
            help="Prompt tokens: lognormal:mean=1024,p99=8000 (or any two of mean, median, sigma, p99; "
            "also min, max), constant:512, or empirical:TRACE.",
        ),
    ],
    osl: Annotated[str, typer.Option("--osl", metavar="DIST", help="Generated tokens, likewise.")],
    out: OutOption,
    correlation: Annotated[
        str,
        typer.Option(
            "--correlation",
            metavar="R|pairs",
            help="Of ISL and OSL: a number from -1 to 1, or pairs to draw whole rows of one empirical trace.",
        ),
    ] = "0",
    seed: SeedOption = 0,
    end_rps: Annotated[
        float | None, typer.Option("--end-rps", metavar="R", help="ramp, step: requests/s at the end.")
    ] = None,
    at_s: Annotated[
        float | None, typer.Option("--at-s", metavar="S", help="step: when; half way by default.")
    ] = None,
    amplitude: Annotated[
        float | None,
        typer.Option("--amplitude", metavar="A", help="diurnal: swing about the mean, 0 to 1 (0.5)."),
    ] = None,
    peak_hour: Annotated[
        float | None, typer.Option("--peak-hour", metavar="H", help="diurnal: hour of the peak (14).")
    ] = None,
    weekend_factor: Annotated[
        float | None,
        typer.Option(
            "--weekend-factor", metavar="F", help="diurnal: days 6 and 7 of each week times this (1)."
        ),
    ] = None,
    cv: Annotated[
        float | None,
        typer.Option("--cv", metavar="C", help="bursty: coefficient of variation of the gaps (2)."),
    ] = None,
    family: Annotated[
        str | None, typer.Option("--family", metavar="gamma|weibull", help="bursty: of the gaps (gamma).")
    ] = None,
    spike_rps: Annotated[
        float | None, typer.Option("--spike-rps", metavar="R", help="spikes: requests/s in a spike.")
    ] = None,
    every_s: Annotated[
        float | None, typer.Option("--every-s", metavar="S", help="spikes: from one to the next (600).")
    ] = None,
    spike_s: Annotated[
        float | None, typer.Option("--spike-s", metavar="S", help="spikes: how long each lasts (60).")
    ] = None,
    prefix_groups: Annotated[
        int | None,
        typer.Option(
            "--prefix-groups",
            metavar="N",
            help="Each prompt begins with one of N beginnings; needs --prefix-tokens and --out FILE.parquet.",
        ),
    ] = None,
    prefix_tokens: Annotated[
        int | None,
        typer.Option("--prefix-tokens", metavar="T", help="How long each beginning is, part of --isl."),
    ] = None,
) -> None:
    """Make a trace from an arrival pattern and two length distributions; same options, same bytes."""
    from sagescale.trace import check_destination
    from sagescale.trace.synth import parse_correlation, parse_lengths, synthesise

    check_destination(out)
    prefixes = _beginnings(prefix_groups, prefix_tokens, out)
    chosen = _pattern(
        pattern,
        duration_s,
        rps,
        {
            "--end-rps": end_rps,
            "--at-s": at_s,
            "--amplitude": amplitude,
            "--peak-hour": peak_hour,
            "--weekend-factor": weekend_factor,
            "--cv": cv,
            "--spike-rps": spike_rps,
            "--every-s": every_s,
            "--spike-s": spike_s,
        },
        family,
    )
    made = synthesise(
        chosen,
        duration_s,
        parse_lengths("--isl", isl),
        parse_lengths("--osl", osl),
        correlation=parse_correlation(correlation),
        seed=seed,
        prefixes=prefixes,
    )
    _save(made, out)


@trace_app.command(epilog=epilog("trace from-prometheus"))
def from_prometheus(
    out: OutOption,
    since: Annotated[
        str,
        typer.Option("--since", metavar="T", help="Since when: how long ago, e.g. 36h or 7d, or ISO 8601."),
    ],
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="The server; `prometheus_url` of --config if not given."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="T", help="Until when, likewise; now if not given.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", metavar="NAME", help="Whose metric names: vllm, sglang, trtllm, dynamo or sagellm."
        ),
    ] = None,
    config_file: ConfigOption = None,
    assignments: SetOption = None,
    time_zone: Annotated[
        str,
        typer.Option("--time-zone", metavar="ZONE", help="Of times that state none, e.g. Europe/Berlin."),
    ] = "UTC",
    seed: SeedOption = 0,
) -> None:
    """Rebuild a request trace from the metrics of engines or a gateway, where there is no log."""
    from sagescale.cli.progress import task_progress
    from sagescale.errors import InputError
    from sagescale.live.config import LiveConfig, configuration_classes
    from sagescale.live.past_requests import rebuild_trace
    from sagescale.planner.loading import load_settings
    from sagescale.trace import check_destination
    from sagescale.trace.log.times import parse_zone

    check_destination(out)
    options: dict[str, tuple[str, object]] = {}
    if url is not None:
        options["--url"] = ("prometheus_url", url)
    if preset is not None:
        options["--preset"] = ("metrics_preset", preset)
    settings = load_settings(configuration_classes(), config_file or [], assignments or [], options)
    live = settings.build(LiveConfig)
    if live.prometheus_url is None:
        raise InputError("no server to ask; expected --url http://HOST:9090, or prometheus_url in --config")
    with task_progress("reading history", counted=False) as progress:
        made = rebuild_trace(live, since, until, zone=parse_zone(time_zone), seed=seed, progress=progress)
    _save(made, out)


# Options of each pattern with their defaults; None has none and must be given.
_PATTERN_OPTIONS: dict[PatternName, dict[str, float | None]] = {
    PatternName.STEADY: {},
    PatternName.RAMP: {"--end-rps": None},
    PatternName.STEP: {"--end-rps": None, "--at-s": None},
    PatternName.DIURNAL: {"--amplitude": 0.5, "--peak-hour": 14.0, "--weekend-factor": 1.0},
    PatternName.BURSTY: {"--cv": 2.0},
    PatternName.SPIKES: {"--spike-rps": None, "--every-s": 600.0, "--spike-s": 60.0},
}


def _pattern(
    name: PatternName, duration_s: float, rps: float, given: dict[str, float | None], family: str | None
) -> Pattern:
    """Build the pattern; refuse options that it does not have, and the lack of those that it needs."""
    from sagescale.errors import InputError
    from sagescale.trace.synth import Bursty, Diurnal, Ramp, Spikes, Steady, Step

    known = dict(_PATTERN_OPTIONS[name])
    if name is PatternName.STEP:
        known["--at-s"] = duration_s / 2
    values: dict[str, float] = {}
    for option, value in given.items():
        if option not in known and value is not None:
            fitting = ", ".join(known) or "none"
            raise InputError(
                f"{option} {value:g}: has no effect on --pattern {name}; its options are: {fitting}"
            )
        if option in known:
            chosen = known[option] if value is None else value
            if chosen is None:
                raise InputError(f"{option}: --pattern {name} needs it")
            values[option] = chosen
    if family is not None and name is not PatternName.BURSTY:
        raise InputError(f"--family {family}: has no effect on --pattern {name}; it goes with bursty")
    match name:
        case PatternName.STEADY:
            return Steady(rps)
        case PatternName.RAMP:
            return Ramp(rps, values["--end-rps"])
        case PatternName.STEP:
            return Step(rps, values["--end-rps"], values["--at-s"])
        case PatternName.DIURNAL:
            return Diurnal(rps, values["--amplitude"], values["--peak-hour"], values["--weekend-factor"])
        case PatternName.SPIKES:
            return Spikes(rps, values["--spike-rps"], values["--every-s"], values["--spike-s"])
        case PatternName.BURSTY:
            return Bursty(rps, values["--cv"], _family(family))


def _beginnings(groups: int | None, tokens: int | None, out: Path) -> tuple[int, int] | None:
    """Put the options of shared beginnings together; refuse one alone, and a file without room for them."""
    from sagescale.errors import InputError

    if groups is None and tokens is None:
        return None
    if groups is None or tokens is None:
        there, lacking = (
            ("--prefix-tokens", "--prefix-groups")
            if groups is None
            else ("--prefix-groups", "--prefix-tokens")
        )
        raise InputError(f"{there}: needs {lacking} as well")
    if out.suffix != ".parquet":
        raise InputError(f"--out {out}: has no room for --prefix-groups; expected a name ending in .parquet")
    return groups, tokens


def _family(text: str | None) -> Literal["gamma", "weibull"]:
    from sagescale.errors import InputError

    match text:
        case None | "gamma":
            return "gamma"
        case "weibull":
            return "weibull"
        case _:
            raise InputError(f"--family {text}: expected gamma or weibull")


def _warn(trace: Trace) -> None:
    for line in trace.warnings:
        print(f"warning: {trace.path}: {line}", file=sys.stderr)


def _save(trace: Trace, out: Path) -> None:
    """Write the trace, pass on its warnings, and say what was done."""
    from sagescale.trace import write_trace

    _warn(trace)
    if trace.prefixes is not None and out.suffix != ".parquet":
        print(
            f"warning: {out}: without prefix ids, which CSV has no lists for; write .parquet", file=sys.stderr
        )
    write_trace(trace, out)
    done = f" after {', '.join(trace.transforms)}" if trace.transforms else ""
    print(f"{out}: {len(trace):,} requests over {trace.duration_s:,.1f} s{done}")


def _print_json(trace: Trace, stats: TraceStats) -> None:
    """Print identity, figures and warnings as one JSON document; what is unknown is null."""
    import json
    from dataclasses import asdict

    figures = asdict(stats)
    for name in ("prefixes", "sessions"):
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


def _print_table(trace: Trace, stats: TraceStats) -> None:
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
    return (("sessions", f"{stats.sessions:,}, {stats.requests / stats.sessions:,.1f} requests each"),)


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
