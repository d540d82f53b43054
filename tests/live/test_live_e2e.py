"""End to end: emulator, a real Prometheus server, and the planner, as processes; loopback only."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time

import pytest
from live_processes import COMMAND, World, keys, post_json, wait_for
from sagescale.errors import InputError
from sagescale.live.journal import read_journal
from sagescale.live.lock import TargetLock
from sagescale.live.setup import load_live_setup
from sagescale.sim.simulate import simulate
from sagescale.trace import TransformSpec, apply_transforms, read_trace

pytestmark = pytest.mark.e2e

SETTINGS: dict[str, object] = {
    "adjustment_interval_sec": 60,
    "target_itl_ms": 6,  # tight enough that the decode pool moves too
    "load_predictor_type": "moving_average",
    "load_headroom": 1.3,
}
# Others to try: SAGESCALE_E2E_SET="adjustment_interval_sec=30 load_headroom=1" make e2e
SETTINGS |= dict(text.split("=", 1) for text in os.environ.get("SAGESCALE_E2E_SET", "").split())
INTERVAL_S = 5.0  # of the clock
SPEED = float(str(SETTINGS["adjustment_interval_sec"])) / INTERVAL_S
SCRAPE_S = 0.2


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, SPEED)
    yield made
    made.stop()


@pytest.fixture
def conversation(shared):
    return shared / "traces" / "azure_llm_2023_conv.csv"


def begin(world, planner_settings):
    """Start emulator and planner so that the planner's first tick ends the trace's first interval."""
    lock = TargetLock(f"webhook {world.emulator_url}/scale", str(world.folder))
    lock.acquire_or_refuse()
    words = [*COMMAND, "plan", "--standby", "--log", "json", *keys(planner_settings)]
    planner = world.spawn("planner", words)
    wait_for(lambda: "standing by" in planner.log, "the planner stands by", 60)
    at_s = (math.floor(time.time() / INTERVAL_S) + 2) * INTERVAL_S
    post_json(f"{world.emulator_url}/start", {"at": at_s})
    time.sleep(max(0.0, at_s - time.time()) + 0.05)
    lock.release()
    wait_for(lambda: '"started"' in planner.log, "the planner took over", INTERVAL_S - 1.0)
    return planner


def test_live_decisions_are_the_simulators(world, conversation, capsys):
    # The trace stands still while the planner is at work, as it does in the simulator.
    world.start_emulator(conversation, "--rate-scale", "20", "--tick-pause", "0.4", settings=SETTINGS)
    world.start_prometheus(SCRAPE_S)
    planner = begin(world, {**SETTINGS, **world.live_settings()})
    wait_for(lambda: world.state()["finished"], "the trace is served", 3700 / SPEED + 60, 0.5)
    state = world.state()
    assert planner.end() == 0
    ticks = list(read_journal(world.folder / "journal.sqlite")[0])

    setup = load_live_setup(None, [], [f"{key}={value}" for key, value in SETTINGS.items()])
    spec = TransformSpec(slice=None, rate_scale=20.0, speedup=1.0, tile=1, seed=0, jitter_s=30.0)
    trace = apply_transforms(read_trace(conversation), spec)
    run = simulate(trace, setup.profile, setup.config, setup.simulator)
    hours = (run.lifetimes["stop_s"] - run.lifetimes["launch_s"]) / 3600.0
    gpus = [
        setup.model.prefill_gpus if prefill else setup.model.decode_gpus
        for prefill in run.lifetimes["prefill"]
    ]
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
        f"PARITY {SETTINGS}",
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
    assert len({twin.decision.targets.prefill for twin in run.ticks}) >= 4
    assert len({twin.decision.targets.decode for twin in run.ticks}) >= 4
    assert exact >= 0.80
    assert near >= 0.95
    assert abs(difference) <= 0.05


def journal(world):
    try:
        return list(read_journal(world.folder / "journal.sqlite")[0])
    except InputError:  # not made yet
        return []


def codes(tick):
    return {problem.code for problem in tick.problems}


def unsafe(ticks, budget=32):
    """Ticks that scaled down on metrics in doubt, or passed the budget."""
    found = []
    for tick in ticks:
        shrank = any(to < at for to, at in zip(tick.goal, tick.current, strict=True))
        doubtful = bool(codes(tick) - {"instance_unreachable"})
        pools = (tick.observation.prefill, tick.observation.decode)
        held = sum(pool.ready + pool.starting + pool.draining for pool in pools)
        if (shrank and doubtful) or held > budget or sum(tick.goal) > budget:
            found.append(tick)
    return found


@pytest.fixture
def scaled(world, conversation):
    """A planner at work on the emulator, three ticks in."""
    world.start_emulator(conversation, "--rate-scale", "20", settings=SETTINGS)
    world.start_prometheus(SCRAPE_S)
    world.planner = begin(world, {**SETTINGS, **world.live_settings(), "no_data_timeout_s": 240})
    wait_for(lambda: len(journal(world)) >= 3, "three ticks", 60)
    return world


def ticks_after(world, count, since=None):
    since = len(journal(world)) if since is None else since
    wait_for(lambda: len(journal(world)) >= since + count, f"{count} more ticks", 30 + 4 * count)
    return journal(world)[since:]


def test_prometheus_killed_and_restarted(scaled):
    before = scaled.state()
    scaled.prometheus.end(signal.SIGKILL)
    blind = ticks_after(scaled, 6)
    assert all("source_failed" in codes(tick) for tick in blind[1:])
    assert "safe_floor" in {note.code for note in blind[-1].notes}
    assert scaled.state()["prefill"]["ready"] >= before["prefill"]["ready"]
    scaled.prometheus.start()
    scaled.wait_for_prometheus()
    seen = ticks_after(scaled, 4)
    assert seen[-1].observation.requests is not None
    assert not unsafe(journal(scaled))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "error"}, {"no_series", "scrapes_late", "instances_silent"}),
        ({"kind": "slow", "value": 2}, {"no_series", "scrapes_late", "instances_silent"}),
        ({"kind": "half"}, {"instances_silent", "scrapes_late"}),
        ({"kind": "nan"}, {"not_a_number"}),
        ({"kind": "frozen"}, {"frozen"}),
        ({"kind": "reset"}, {"counter_reset"}),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_metrics_that_fail_or_lie_never_shrink_the_pools(scaled, fault, expected):
    post_json(f"{scaled.emulator_url}/fault", fault)
    during = ticks_after(scaled, 4)
    assert any(codes(tick) & expected for tick in during), [codes(tick) for tick in during]
    post_json(f"{scaled.emulator_url}/fault", {"kind": "none"})
    after = ticks_after(scaled, 4)
    assert after[-1].observation.requests is not None, [codes(tick) for tick in after]
    assert not unsafe(journal(scaled))


def test_a_planner_killed_in_the_middle_resumes(scaled):
    scaled.planner.end(signal.SIGKILL)
    time.sleep(4.0)
    before = journal(scaled)
    scaled.planner.start()
    ticks = ticks_after(scaled, 3, len(before))
    assert [tick.id for tick in before + ticks] == list(range(1, len(before) + len(ticks) + 1))
    assert scaled.planner.end() == 0
    events = read_journal(scaled.folder / "journal.sqlite")[1]
    assert "resumed" in {event.kind for event in events}
    assert not unsafe(journal(scaled))


def test_a_second_planner_is_refused(scaled):
    second = scaled.spawn("second", [*COMMAND, "plan", *keys({**SETTINGS, **scaled.live_settings()})])
    assert second.running.wait(60) == 1
    assert "another planner" in second.log
    assert "Traceback" not in second.log


def test_once_prints_one_screen_and_changes_nothing(scaled):
    scaled.planner.end()
    before = scaled.state()
    once = scaled.spawn(
        "once", [*COMMAND, "plan", "--dry-run", "--once", *keys({**SETTINGS, **scaled.live_settings()})]
    )
    assert once.running.wait(60) == 0
    assert len(once.log.splitlines()) <= 40
    for word in ("SAW", "FORECAST", "WOULD DO", "WHY"):
        assert word in once.log
    assert "unknown   isl" not in once.log
    after = scaled.state()
    for pool in ("prefill", "decode"):
        assert (
            before[pool]["ready"] + before[pool]["starting"] == after[pool]["ready"] + after[pool]["starting"]
        )


def test_the_check_finds_everything_there(scaled):
    check = scaled.spawn(
        "check", [*COMMAND, "plan", "--check", *keys({**SETTINGS, **scaled.live_settings()})]
    )
    assert check.running.wait(60) == 0, check.log
    assert "all there" in check.log


def test_a_fresh_planner_is_warmed_by_prometheus(scaled):
    fresh = {"journal": scaled.folder / "fresh", "warm_start_windows": 3, "no_operation": "true"}
    settings = {**SETTINGS, **scaled.live_settings(), **fresh}
    planner = scaled.spawn("fresh", [*COMMAND, "plan", "--ticks", "1", *keys(settings)])
    assert planner.running.wait(60) == 0, planner.log
    ticks, events = read_journal(scaled.folder / "fresh.dry-run")
    warmed = next(event for event in events if event.kind == "warm_start")
    assert warmed.text.startswith(("2 windows", "3 windows"))
    assert next(ticks).observation.requests is not None


def test_explain_answers_from_a_journal_in_use(scaled):
    explained = scaled.spawn("explain", [*COMMAND, "explain", str(scaled.folder / "journal.sqlite")])
    assert explained.running.wait(60) == 0
    assert "WHY DOES IT NOT SCALE UP?" in explained.log
    as_json = scaled.spawn(
        "json", [*COMMAND, "explain", str(scaled.folder / "journal.sqlite"), "--at", "-1m", "--json"]
    )
    assert as_json.running.wait(60) == 0
    assert "observation" in json.loads(as_json.log)
