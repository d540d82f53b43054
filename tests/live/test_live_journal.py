"""The journal keeps every decision, through restarts and full disks, and ``explain`` reads it."""

from __future__ import annotations

import dataclasses
import os
import sqlite3

import pytest
from live_world import LiveWorld
from sagescale.errors import InputError, SagescaleError
from sagescale.live.explain import explain_all, explain_tick, parse_time, tick_at
from sagescale.live.journal import Event, Journal, read_journal
from sagescale.live.lock import TargetLock
from sagescale.live.tick_text import tick_text


def written(path, ticks=5, requests=2400.0, **keys):
    world = LiveWorld(path=path, **keys)
    world.loop.start()
    world.load.requests = requests
    world.ticks(ticks)
    world.loop.finish()
    return world


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "j.sqlite"
    world = written(path)
    ticks, events = read_journal(path)
    assert list(ticks) == world.log.records
    assert [event.kind for event in events] == world.log.kinds()


def test_a_journal_belongs_to_one_target(tmp_path):
    Journal(tmp_path / "j", "one", 1e9).close()
    with pytest.raises(InputError, match="belongs to one"):
        Journal(tmp_path / "j", "two", 1e9)


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    (tmp_path / "j").write_text("hello, I am text and longer than a header\n" * 50)
    for open_it in (lambda: Journal(tmp_path / "j", "x", 1e9), lambda: read_journal(tmp_path / "j")):
        with pytest.raises(InputError, match="journal"):
            open_it()
    with pytest.raises(InputError, match="no such journal"):
        read_journal(tmp_path / "missing")


def test_a_full_disk_loses_no_record(tmp_path):
    path = tmp_path / "j.sqlite"
    world = LiveWorld(path=path)
    world.loop.start()
    world.load.requests = 2400.0
    world.ticks(2)
    pages = world.journal._db.execute("PRAGMA page_count").fetchone()[0]
    world.journal._db.execute(f"PRAGMA max_page_count = {pages}")
    world.ticks(20, start=3)
    assert world.journal.waiting > 0
    assert "full" in world.journal.failure
    assert "journal_failed" in world.log.kinds()
    assert world.pools.sizes == world.wanted(2400.0), "it goes on scaling"
    world.journal._db.execute("PRAGMA max_page_count = 1000000")
    world.ticks(1, start=23)
    assert world.journal.waiting == 0
    world.loop.finish()
    ticks, _ = read_journal(path)
    assert [tick.id for tick in ticks] == list(range(1, 24))


def test_old_records_go(tmp_path):
    journal = Journal(tmp_path / "j", "x", retention_s=600.0)
    world = written(tmp_path / "other", ticks=1)
    record = world.log.records[0]
    for number in range(500):
        journal.add_tick(dataclasses.replace(record, id=number + 1, time_s=60.0 * number))
        journal.add_event(Event(60.0 * number, None, "order", "x"))
    kept = journal.last_ticks(1000)
    assert 10 <= len(kept) <= 61
    journal.close()


def test_ids_go_on_after_a_restart(tmp_path):
    path = tmp_path / "j.sqlite"
    written(path, ticks=3)
    journal = Journal(path, "made-up pools", 1e9)
    assert journal.next_id() == 4
    journal.close()


def test_a_second_planner_of_a_target_is_refused(tmp_path):
    first, second = TargetLock("pools", str(tmp_path)), TargetLock("pools", str(tmp_path))
    assert first.acquire()
    assert not second.acquire()
    with pytest.raises(SagescaleError, match=f"process {os.getpid()}"):
        second.acquire_or_refuse()
    assert TargetLock("other pools", str(tmp_path)).acquire()
    first.release()
    assert second.acquire()
    second.release()


# --- explain ----------------------------------------------------------------------------------------


def explained(path):
    ticks, events = read_journal(path)
    return explain_all(list(ticks), events)


def test_a_tick_fits_one_screen_and_says_everything(tmp_path):
    world = written(tmp_path / "j")
    text = tick_text(world.log.records[-1])
    assert len(text.splitlines()) <= 30
    for word in ("SAW", "FORECAST", "DO", "WHY", "requests 2400", "prefill", "decode", "GPUs"):
        assert word in text


def test_it_says_that_the_maximum_is_reached(tmp_path):
    written(tmp_path / "j", requests=60000.0)
    text = explained(tmp_path / "j")
    assert "max_prefill_instances reached" in text
    assert "max_decode_instances reached" in text


def test_it_says_that_the_budget_is_spent(tmp_path):
    written(tmp_path / "j", requests=6000.0, max_gpu_budget=6)
    assert "GPU budget spent" in explained(tmp_path / "j")


def test_it_says_that_metrics_fail(tmp_path):
    world = LiveWorld(path=tmp_path / "j")
    world.loop.start()
    world.load.broken = "http://localhost:9090: connection refused"
    world.ticks(3)
    world.loop.finish()
    text = explained(tmp_path / "j")
    assert "metrics fail" in text
    assert "connection refused" in text
    assert "plan --check" in text


def test_it_says_that_a_correction_is_at_its_bound_while_the_target_is_missed(tmp_path):
    world = LiveWorld(path=tmp_path / "j", target_itl_ms=50.0)
    plain = world.load.collect

    def slow(*asked):
        metrics, window_s = plain(*asked)
        values = {**metrics.values, "itl_ms_mean": 400.0, "duration_s_mean": 9.0}
        return dataclasses.replace(metrics, values=values), window_s

    world.load.collect = slow
    world.loop.start()
    world.ticks(4)
    world.loop.finish()
    text = explained(tmp_path / "j")
    assert "latency above its target, the correction at its bound" in text
    assert "correction_bounds" in text


def test_it_says_why_the_pools_turn_round(tmp_path):
    world = LiveWorld(path=tmp_path / "j", adjustment_interval_sec=30)
    world.loop.start()
    for number in range(1, 20):
        world.load.requests = 300.0 if number % 2 else 1500.0
        world.ticks(1, start=number)
    world.loop.finish()
    text = explained(tmp_path / "j")
    assert "interval too short" in text
    assert "moving_average" in text


def test_quiet_pools_are_no_problem(tmp_path):
    written(tmp_path / "j", requests=600.0)
    text = explained(tmp_path / "j")
    assert "nothing held it back" in text
    assert "it does not" in text


def test_one_tick_is_explained_with_what_came_of_it(tmp_path):
    written(tmp_path / "j")
    ticks, events = read_journal(tmp_path / "j")
    text = explain_tick(next(ticks), events)
    assert "WHAT CAME OF IT" in text
    assert "order: prefill 2 -> " in text


def test_times_are_read_in_three_ways(tmp_path):
    assert parse_time("-10m", 1000.0) == 400.0
    assert parse_time("123.5", 0.0) == 123.5
    assert parse_time("1970-01-01T00:01:00+00:00", 0.0) == 60.0
    with pytest.raises(InputError, match="--at yesterday"):
        parse_time("yesterday", 0.0)
    written(tmp_path / "j")
    ticks = list(read_journal(tmp_path / "j")[0])
    assert tick_at(ticks, ticks[2].time_s + 1) == 2
    assert tick_at(ticks, 0.0) == 0


def test_labels_cannot_command_the_terminal(tmp_path):
    world = LiveWorld(path=tmp_path / "j")
    world.loop.start()
    world.load.broken = "evil \x1b[2J\x07 name"
    world.ticks(1)
    assert "\x1b" not in tick_text(world.log.records[0])


def test_a_journal_in_use_can_be_read(tmp_path):
    world = LiveWorld(path=tmp_path / "j")
    world.loop.start()
    world.ticks(2)
    assert len(list(read_journal(tmp_path / "j")[0])) == 2
    assert sqlite3.connect(tmp_path / "j").execute("PRAGMA journal_mode").fetchone() == ("wal",)
