"""``sagescale profile validate``: is a profile fit to plan with."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sagescale.cli.transform_options import (
    JitterOption,
    RateScaleOption,
    SeedOption,
    SliceOption,
    SpeedupOption,
    TileOption,
    transform_spec,
)

__all__ = ["validate"]


def validate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped profile's name, or a YAML file.")],
    trace: Annotated[
        Optional[str], typer.Option(metavar="TRACE", help="Traffic that the profile is to be used for.")
    ] = None,
    trace_format: Annotated[
        Optional[str],
        typer.Option("--trace-format", help="The trace's format, where content does not decide."),
    ] = None,
    slice_text: SliceOption = None,
    rate_scale: RateScaleOption = 1.0,
    speedup: SpeedupOption = 1.0,
    tile: TileOption = 1,
    jitter_s: JitterOption = 30.0,
    seed: SeedOption = 0,
) -> None:
    """Check a profile's fit, order, noise and limits and, with --trace, how much of it was measured for that.

    The exit code is 0 when it is fit and 1 when it is not.
    """
    from rich.table import Table

    from sagescale.cli.pipes import stdout_console
    from sagescale.perf import load_profile
    from sagescale.perf.validate import Traffic, Verdict, validate_profile

    profile = load_profile(name)
    traffic = None
    if trace is not None:
        from sagescale.trace import apply_transforms, read_trace

        spec = transform_spec(
            slice_text=slice_text,
            rate_scale=rate_scale,
            speedup=speedup,
            tile=tile,
            seed=seed,
            jitter_s=jitter_s,
        )
        loaded = apply_transforms(read_trace(trace, format=trace_format), spec)
        cached = loaded.cached_tokens
        traffic = Traffic(loaded.isl, loaded.isl if cached is None else loaded.isl - cached, loaded.osl)
    checks = validate_profile(profile, traffic)
    colours = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.UNFIT: "bold red"}
    table = Table(title=f"{profile.name}{f' for {trace}' if trace else ''}")
    for heading in ("checked", "found", "needed"):
        table.add_column(heading, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for check in checks:
        verdict = f"[{colours[check.verdict]}]{check.verdict}[/]"
        table.add_row(check.what, check.found, check.needed, verdict)
    stdout_console().print(table)
    unfit = sum(check.verdict is Verdict.UNFIT for check in checks)
    if unfit:
        print(f"unfit: {unfit} of {len(checks)} checks failed")
        raise typer.Exit(1)
    print(f"fit: {len(checks)} checks")
