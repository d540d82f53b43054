"""``sagescale emulate``: a pretend P/D cluster in (scaled) real time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sagescale.cli.options import (
    GIVEN,
    ConfigOption,
    GivenTrace,
    ProfileOption,
    SetOption,
    Transforms,
    takes_trace,
    takes_transforms,
)


@takes_trace
@takes_transforms
def emulate(
    trace: GivenTrace,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    port: Annotated[int, typer.Option(help="Port to serve on; 0 takes a free one.", min=0, max=65535)] = 9400,
    address: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    speed: Annotated[
        float,
        typer.Option(metavar="X", help="Seconds of the trace in a second of the clock.", min=0.01, max=1000),
    ] = 1.0,
    tick_pause: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Stand still around each multiple of adjustment_interval_sec for this share of it, as a "
            "simulation does while it decides; catch up in between.",
            min=0,
            max=0.9,
        ),
    ] = 0.0,
    namespace: Annotated[
        str, typer.Option(help="Value of the label `namespace` on every series.")
    ] = "sagellm",
    model_name: Annotated[
        str | None,
        typer.Option(help="Value of the labels `model` and `model_name`; by default the profile's."),
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option(help="File with the key that commands must be signed with.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Begin only on POST /start.")] = False,
    exit_when_done: Annotated[
        bool, typer.Option("--exit-when-done", help="End when every request has been served.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every scale command.")] = False,
    transforms: Transforms = GIVEN,
) -> None:
    """Serve a trace with modelled pools in real time: engine metrics out, scale commands in.

    What a newcomer without GPUs tries first: point `sagescale plan`, or Prometheus, at it.
    """
    from sagescale.cli.output import log_to_stderr
    from sagescale.live.emulator.run import run_emulator
    from sagescale.live.emulator.server import Pace
    from sagescale.live.secret import read_secret
    from sagescale.live.setup import configured
    from sagescale.trace import apply_transforms

    setup = configured(profile, config or [], overrides or [])
    requests = apply_transforms(trace.read(), transforms)
    if verbose:
        log_to_stderr()
    secret = read_secret("--secret", None if secret_file is None else str(secret_file), None)
    run_emulator(
        setup,
        requests,
        (address, port),
        pace=Pace(speed, float(setup.config.adjustment_interval_sec), tick_pause),
        labels={
            "namespace": namespace,
            "model": model_name or setup.profile.model,
            "model_name": model_name or setup.profile.model,
            "engine": "0",
        },
        secret=secret,
        wait=wait,
        exit_when_done=exit_when_done,
    )
