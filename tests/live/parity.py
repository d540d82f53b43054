"""Decisions on the emulator and a real Prometheus server beside those of the simulator."""

from __future__ import annotations

import sys

from live_processes import SCRAPE_S, SETTINGS, SPEED, begin, codes, wait_for
from sagescale.live.journal import read_journal
from sagescale.live.setup import configured
from sagescale.sim.simulate import simulate
from sagescale.trace import TransformSpec, apply_transforms, read_trace


def assert_decisions_are_the_simulators(world, conversation, capsys, **served):
    """Serve the conversation hour live and simulated, and compare decision by decision."""
    settings = {**SETTINGS, **served}
    # The trace stands still while the planner is at work, as it does in the simulator.
    world.start_emulator(conversation, "--rate-scale", "20", "--tick-pause", "0.4", settings=settings)
    world.start_prometheus(SCRAPE_S)
    planner = begin(world, {**settings, **world.live_settings()})
    wait_for(lambda: world.state()["finished"], "the trace is served", 3700 / SPEED + 60, 0.5)
    state = world.state()
    assert planner.end() == 0
    records = read_journal(world.folder / "journal.sqlite")[0]
    ticks = [record for record in records if record.kind == "tick"]

    setup = configured(None, [], [f"{key}={value}" for key, value in settings.items()])
    spec = TransformSpec(slice=None, rate_scale=20.0, speedup=1.0, tile=1, seed=0, jitter_s=30.0)
    trace = apply_transforms(read_trace(conversation), spec)
    run = simulate(trace, setup.profile, setup.config, setup.simulator)
    hours = (run.lifetimes["stop_s"] - run.lifetimes["launch_s"]) / 3600.0
    gpus = [setup.config.pools[pool].gpus for pool in run.lifetimes["pool"]]
    simulated_hours = float((hours * gpus).sum())

    # A tick that was missed is missing here too; the others keep their partners.
    interval_s = setup.config.adjustment_interval_sec
    numbers = [round((tick.time_s - ticks[0].time_s) / interval_s) for tick in ticks]
    pairs = [
        (tick, run.ticks[number])
        for tick, number in zip(ticks, numbers, strict=True)
        if number < len(run.ticks)
    ]
    apart = [
        max(abs(a - b) for a, b in zip(tick.goal, twin.decision.targets, strict=True)) for tick, twin in pairs
    ]
    exact = sum(distance == 0 for distance in apart) / len(run.ticks)
    near = sum(distance <= 1 for distance in apart) / len(run.ticks)
    live_hours = state["gpu_hours"]["total"]
    difference = live_hours / simulated_hours - 1
    lines = [
        f"PARITY {settings}",
        f"{len(apart)} of {len(run.ticks)} ticks: exact {exact:.1%}, within one instance {near:.1%}",
        f"GPU-hours live {live_hours:.3f}, simulated {simulated_hours:.3f} ({difference:+.1%})",
    ]
    for (tick, twin), distance in zip(pairs, apart, strict=True):
        if distance:
            seen, meant = tick.observation, twin.observation
            lines.append(
                f"  at {meant.time_s:.0f} s: live {tuple(tick.goal)} from {seen.requests} requests, "
                f"{sorted(codes(tick))}; simulated {tuple(twin.decision.targets)} from {meant.requests:.0f}"
            )
    with capsys.disabled():  # to standard error, which reaches the terminal from parallel tests too
        print("", *lines, sep="\n", file=sys.stderr)
    assert abs(len(ticks) - len(run.ticks)) <= 1
    for pool in setup.config.pools:
        assert len({twin.decision.targets[pool.name] for twin in run.ticks}) >= 4
    assert exact >= 0.80
    assert near >= 0.95
    assert abs(difference) <= 0.05
