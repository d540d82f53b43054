"""``sagescale emulate``: a pretend P/D cluster in (scaled) real time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from sagescale.errors import InputError

if TYPE_CHECKING:
    from sagescale.live.emulator.cluster import EmulatedCluster
    from sagescale.live.emulator.server import Emulator


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
    from sagescale.live.clock import stopping_on_signals
    from sagescale.live.emulator.cluster import EmulatedCluster
    from sagescale.live.emulator.server import Emulator, Pace
    from sagescale.live.secret import read_secret
    from sagescale.live.setup import configured
    from sagescale.trace import apply_transforms

    setup = configured(profile, config or [], overrides or [])
    requests = apply_transforms(trace.read(), transforms)
    if verbose:
        log_to_stderr()
    secret = read_secret("--secret", None if secret_file is None else str(secret_file), None)
    if setup.simulator.concurrent_sessions is not None:
        raise InputError(
            f"concurrent_sessions is {setup.simulator.concurrent_sessions}; expected null: turns of sessions "
            "are emulated as recorded, answered or not"
        )
    # A page lives a little longer than its instance, in the trace's time as a pod's grace is.
    cluster = EmulatedCluster(requests, setup.profile, setup.config, setup.simulator, linger_s=30.0)
    cluster.compile()
    pace = Pace(speed, float(setup.config.adjustment_interval_sec), tick_pause)
    model = model_name or setup.profile.model
    labels = {"namespace": namespace, "model": model, "model_name": model, "engine": "0"}
    emulator = Emulator(cluster, (address, port), pace=pace, labels=labels, secret=secret, wait=wait)
    url = f"http://{address}:{emulator.port}"
    print(
        f"emulating {len(requests)} requests over {requests.duration_s:.0f} s at {speed:g}x "
        f"on {setup.profile.name}\n"
        f"metrics {url}/metrics   discovery {url}/sd   state {url}/state   commands POST {url}/scale",
        flush=True,
    )
    if requests.turns is not None:
        print("turns of sessions arrive as recorded, answered or not", flush=True)
    if exit_when_done:
        threading.Thread(target=_stop_when_done, args=(emulator, cluster), daemon=True).start()
    with stopping_on_signals(emulator.stop):
        emulator.run()
    outcome = emulator.outcome()
    good = "-" if outcome.attainment is None else f"{100 * outcome.attainment:.1f} %"
    print(
        f"{outcome.completed} of {outcome.arrived} requests served in {outcome.time_s:.0f} s, "
        f"attainment {good}, "
        f"{sum(outcome.gpu_hours.values()):.2f} GPU-hours "
        f"({', '.join(f'{pool} {hours:.2f}' for pool, hours in outcome.gpu_hours.items())})",
        flush=True,
    )


def _stop_when_done(emulator: Emulator, cluster: EmulatedCluster) -> None:
    while not cluster.finished:
        time.sleep(0.2)
    emulator.stop()
