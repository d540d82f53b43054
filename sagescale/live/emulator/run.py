"""Runs an emulator until it is stopped, and says how it went."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.live.clock import stopping_on_signals
from sagescale.live.emulator.cluster import EmulatedCluster
from sagescale.live.emulator.server import Emulator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagescale.live.emulator.server import Pace
    from sagescale.live.secret import Secret
    from sagescale.live.setup import Configured
    from sagescale.trace import Trace


def run_emulator(
    setup: Configured,
    trace: Trace,
    address: tuple[str, int],
    *,
    pace: Pace,
    labels: Mapping[str, str],
    secret: Secret | None,
    wait: bool,
    exit_when_done: bool,
) -> None:
    """Serve until SIGTERM, SIGINT or (if wished) the last request's end.

    Raises:
        InputError: the address cannot be listened on, or a closed population of sessions is asked for.
    """
    if setup.simulator.concurrent_sessions is not None:
        raise InputError(
            f"concurrent_sessions is {setup.simulator.concurrent_sessions}; expected null: turns of sessions "
            "are emulated as recorded, answered or not"
        )
    # A page lives a little longer than its instance, in the trace's time as a pod's grace is.
    cluster = EmulatedCluster(trace, setup.profile, setup.config, setup.simulator, linger_s=30.0)
    cluster.compile()
    emulator = Emulator(cluster, address, pace=pace, labels=labels, secret=secret, wait=wait)
    url = f"http://{address[0]}:{emulator.port}"
    print(
        f"emulating {len(trace)} requests over {trace.duration_s:.0f} s at {pace.speed:g}x "
        f"on {setup.profile.name}\n"
        f"metrics {url}/metrics   discovery {url}/sd   state {url}/state   commands POST {url}/scale",
        flush=True,
    )
    if trace.turns is not None:
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
        f"({', '.join(f'{pool} {hours:.2f}' for pool, hours in outcome.gpu_hours.items())})"
    )
    sys.stdout.flush()


def _stop_when_done(emulator: Emulator, cluster: EmulatedCluster) -> None:
    pause = threading.Event()
    while not cluster.finished:
        pause.wait(0.2)
    emulator.stop()
