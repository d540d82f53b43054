"""What goes wrong while a planner is at work: on the emulator and a real Prometheus server, as processes."""

from __future__ import annotations

import json
import signal
import time

import pytest
from live_processes import (
    COMMAND,
    INTERVAL_S,
    SCRAPE_S,
    SETTINGS,
    SPEED,
    World,
    begin,
    codes,
    keys,
    post_json,
    wait_for,
)
from sagescale.errors import InputError
from sagescale.live.journal import read_journal

pytestmark = pytest.mark.e2e


def journal(world):
    try:
        return list(read_journal(world.folder / "journal.sqlite")[0])
    except InputError:  # not made yet
        return []


def unsafe(ticks, budget=32):
    """Ticks that scaled down on metrics in doubt, or passed the budget."""
    found = []
    for tick in ticks:
        shrank = any(to < at for to, at in zip(tick.goal, tick.current, strict=True))
        doubtful = bool(codes(tick) - {"instance_unreachable"})
        pools = tick.observation.pools
        held = sum(pool.ready + pool.starting + pool.draining for pool in pools)
        if (shrank and doubtful) or held > budget or sum(tick.goal) > budget:
            found.append(tick)
    return found


@pytest.fixture(scope="module")
def at_work(tmp_path_factory, shared):
    """A planner at work on the emulator, three ticks in."""
    world = World(tmp_path_factory.mktemp("world"), SPEED)
    trace = shared / "traces" / "azure_llm_2023_conv.csv"
    world.start_emulator(trace, "--rate-scale", "20", "--tile", "3", settings=SETTINGS)
    world.start_prometheus(SCRAPE_S)
    own = {"no_data_timeout_s": 240, "metrics_timeout_s": 2}
    world.planner = begin(world, {**SETTINGS, **world.live_settings(), **own})
    ticks_after(world, 3)
    yield world
    world.stop()


@pytest.fixture
def scaled(at_work):
    """The same for every test, whole again after each; whatever happened to it, nothing unsafe was done."""
    sees_the_load_again(at_work, len(journal(at_work)) - 1)
    yield at_work
    post_json(f"{at_work.emulator_url}/fault", {"kind": "none"})
    for process in (at_work.prometheus, at_work.planner):
        if process.running.poll() is None:
            process.running.send_signal(signal.SIGCONT)
        else:
            process.start()
    assert not unsafe(journal(at_work))


def ticks_after(world, count, since=None):
    since = len(journal(world)) if since is None else since
    wait_for(lambda: len(journal(world)) >= since + count, f"{count} more ticks", 30 + 4 * INTERVAL_S * count)
    return journal(world)[since:]


def sees_the_load_again(world, since=None):
    """Wait for a tick on metrics that are not in doubt."""
    since = len(journal(world)) if since is None else since
    wait_for(
        lambda: any(
            tick.observation.requests is not None and not tick.problems for tick in journal(world)[since:]
        ),
        "the planner sees the load",
        20 * INTERVAL_S,
        0.5,
    )


def asked(state):
    return tuple(state[pool]["ready"] + state[pool]["starting"] for pool in ("prefill", "decode"))


def test_prometheus_killed_and_restarted(scaled):
    scaled.prometheus.end(signal.SIGKILL)
    blind = ticks_after(scaled, 6)
    assert all("source_failed" in codes(tick) for tick in blind[1:])
    assert "safe_floor" in {note.code for note in blind[-1].notes}
    assert all(now >= then for now, then in zip(asked(scaled.state()), blind[0].goal, strict=True))
    scaled.prometheus.start()
    sees_the_load_again(scaled)


def test_prometheus_too_slow_to_answer(scaled):
    scaled.prometheus.running.send_signal(signal.SIGSTOP)
    blind = ticks_after(scaled, 3)
    assert all("source_failed" in codes(tick) for tick in blind[1:])
    assert all(now >= then for now, then in zip(asked(scaled.state()), blind[0].goal, strict=True))
    scaled.prometheus.running.send_signal(signal.SIGCONT)
    sees_the_load_again(scaled)


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
    during = ticks_after(scaled, 3)
    assert any(codes(tick) & expected for tick in during), [codes(tick) for tick in during]
    post_json(f"{scaled.emulator_url}/fault", {"kind": "none"})
    sees_the_load_again(scaled)


def test_a_planner_killed_in_the_middle_of_scaling_resumes(scaled):
    few = {"targets": {"prefill": 2, "decode": 2}}
    post_json(f"{scaled.emulator_url}/scale", few)  # somebody else's doing; it has to grow again
    wait_for(lambda: scaled.state()["decode"]["starting"], "instances are starting", 30)
    scaled.planner.end(signal.SIGKILL)
    time.sleep(1.5 * INTERVAL_S)
    before = journal(scaled)
    scaled.planner.start()
    ticks = ticks_after(scaled, 3, len(before))
    assert [tick.id for tick in before + ticks] == list(range(1, len(before) + len(ticks) + 1))
    reasons = {reason["code"] for tick in before[-2:] for reason in tick.decision["reasons"]}
    assert "replicas_changed" in reasons
    events = read_journal(scaled.folder / "journal.sqlite")[1]
    assert "resumed" in {event.kind for event in events}
    wait_for(lambda: asked(scaled.state()) == journal(scaled)[-1].goal, "the pools are as decided", 30)


def test_a_second_planner_is_refused(scaled):
    second = scaled.spawn("second", [*COMMAND, "plan", *keys({**SETTINGS, **scaled.live_settings()})])
    assert second.running.wait(60) == 1
    assert "another planner" in second.log
    assert "Traceback" not in second.log


def test_once_prints_one_screen_and_changes_nothing(scaled):
    assert scaled.planner.end() == 0
    before = asked(scaled.state())
    once = scaled.spawn(
        "once", [*COMMAND, "plan", "--dry-run", "--once", *keys({**SETTINGS, **scaled.live_settings()})]
    )
    assert once.running.wait(60) == 0
    assert len(once.log.splitlines()) <= 40
    for word in ("SAW", "FORECAST", "WOULD DO", "WHY"):
        assert word in once.log
    assert "unknown   isl" not in once.log
    assert asked(scaled.state()) == before


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
