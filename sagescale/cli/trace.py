"""``sagescale trace``: look at request traces, convert, transform and make them."""

from __future__ import annotations

import sys
from typing import Annotated

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
from sagescale.cli.trace_output import OutOption, print_json, print_table, save, warn
from sagescale.cli.trace_synth import synth

trace_app = typer.Typer(
    help="Look at request traces, convert, transform and make them.", no_args_is_help=True
)


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
    warn(loaded)
    (print_json if as_json else print_table)(loaded, describe(loaded))
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
    save(trace.read(), out)


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
    save(changed, out)


trace_app.command(epilog=epilog("trace synth"))(synth)


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
    save(made, out)
