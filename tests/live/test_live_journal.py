"""The journal keeps every decision, through restarts and full disks, and ``explain`` reads it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import sys
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from live_world import LiveWorld
from sagescale.cli.app import main
from sagescale.errors import InputError, SagescaleError
from sagescale.live.explain import explain_all, explain_tick, parse_time, tick_at
from sagescale.live.journal import Journal, read_journal
from sagescale.live.lock import TargetLock
from sagescale.live.records import Event, Note
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


# --- damage, locks and full disks -------------------------------------------------------------------


PROFILE = "h100-llama-3.3-70b-fp8-tp4"


def command(monkeypatch, *words):
    """Run the command line; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["sagescale", *words])
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    return 0


def damaged_rows(path, change):
    """Change every record's columns with a function; the file stays sound."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for row in db.execute("SELECT id, time_s, prefill, decode, acted, record FROM ticks").fetchall():
            db.execute("UPDATE ticks SET record = ? WHERE id = ?", (change(row), row[0]))


RECORDS = {
    "an empty object": lambda text: "{}",
    "nothing": lambda text: "",
    "null": lambda text: "null",
    "a list": lambda text: "[]",
    "bytes": lambda text: b"\xff\xfe\x00",
    "a number": lambda text: 7,
    "cut": lambda text: text[: len(text) // 2],
    "a digit more": lambda text: text.replace('"requests":2', '"requests":92', 1),
    "a bit": lambda text: text.replace("completed", "complet%d", 1),
    "nested": lambda text: "[" * 100_000,
    "no reasons": lambda text: without_crc(text, lambda kept: kept["decision"].pop("reasons")),
    "odd reasons": lambda text: without_crc(text, lambda kept: kept["decision"].update(reasons=[1])),
    "no corrections": lambda text: without_crc(text, lambda kept: kept["decision"].update(corrections={})),
    "odd forecast": lambda text: without_crc(text, lambda kept: kept["decision"].update(forecast=None)),
    "odd pools": lambda text: without_crc(text, lambda kept: kept["observation"]["pools"].update(prefill={})),
    "huge pools": lambda text: without_crc(
        text, lambda kept: kept["observation"]["pools"].update(decode={"ready": 10**15})
    ),
    "odd settings": lambda text: without_crc(text, lambda kept: kept["settings"].update(target_ttft_ms="x")),
    "odd notes": lambda text: without_crc(text, lambda kept: kept.update(notes=[{"code": 3}])),
    "odd kind": lambda text: without_crc(text, lambda kept: kept.update(kind="glance")),
    "a kind of parts": lambda text: without_crc(text, lambda kept: kept.update(kind={})),
    "a goal of another pool": lambda text: without_crc(text, lambda kept: kept["goal"].update(spare=1)),
    "pools without a goal": lambda text: without_crc(
        text, lambda kept: kept["observation"]["pools"].update(spare={"ready": 1})
    ),
    "endless settings": lambda text: without_crc(
        text, lambda kept: kept["settings"].update(decode_gpus_per_instance=float("inf"))
    ),
    "unset settings": lambda text: without_crc(
        text, lambda kept: kept["settings"].update(adjustment_interval_sec=None)
    ),
    "odd lengths": lambda text: without_crc(text, lambda kept: kept["observation"].update(lengths=[[1]])),
}  # fmt: skip


def without_crc(text, change):
    kept = json.loads(text)
    del kept["crc"]
    change(kept)
    return json.dumps(kept)


def every_reader(path, capsys, monkeypatch, *, kept):
    """Everything that reads a journal goes on, says what is missing, and sees ``kept`` ticks."""
    damage = []
    ticks, _ = read_journal(path, damage)
    assert len(list(ticks)) == kept
    assert damage
    for arguments in ([], ["--at", "-1m"], ["--json"]):
        code = command(monkeypatch, "explain", str(path), *arguments)
        printed = capsys.readouterr()
        assert code == (0 if kept else 2)
        assert "cannot be read and are left out (first: " in printed.err
        assert "Traceback" not in printed.err
    world = LiveWorld(path=path)
    assert len(world.journal.last_ticks(100)) == kept
    world.loop.run(ticks=2)
    assert "journal_damaged" in world.log.kinds()
    assert ("resumed" in world.log.kinds()) == bool(kept)
    assert "loop_failed" not in world.log.kinds()


@pytest.mark.parametrize("change", RECORDS.values(), ids=RECORDS)
def test_damaged_records_cost_only_themselves(tmp_path, capsys, monkeypatch, change):
    path = tmp_path / "j"
    written(path, ticks=6)
    damaged_rows(path, lambda row: change(row[5]) if row[0] % 2 else row[5])
    every_reader(path, capsys, monkeypatch, kept=3)


def test_a_journal_of_damaged_records_alone_is_like_none(tmp_path, capsys, monkeypatch):
    written(tmp_path / "j", ticks=3)
    damaged_rows(tmp_path / "j", lambda _: "{}")
    every_reader(tmp_path / "j", capsys, monkeypatch, kept=0)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("time_s", "soon"),
        ("time_s", 1e300),
        ("time_s", float("-inf")),
        ("prefill", 10**12),
        ("prefill", -3),
        ("prefill", 3),
        ("decode", "many"),
        ("decode", b"\x00"),
        ("acted", 7),
    ],
)
def test_damaged_columns_cost_only_themselves(tmp_path, capsys, monkeypatch, column, value):
    path = tmp_path / "j"
    world = written(path, ticks=6)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE ticks SET {column} = ? WHERE id = 4", (value,))
    journal = Journal(path, world.pools.target, 1e9)
    largest = journal.largest_goal(0.0)
    assert all(size <= 20 for size in largest)
    journal.close()
    every_reader(path, capsys, monkeypatch, kept=5)


def test_a_record_of_a_newer_version_is_read_for_what_is_known(tmp_path):
    """After a rollback."""
    path = tmp_path / "j"
    world = written(path, ticks=4)

    def newer(kept):
        kept["observation"]["of_tomorrow"] = {"a": 1}
        kept["observation"]["pools"]["prefill"]["resting"] = 2
        kept["settings"]["of_tomorrow"] = 3
        kept["of_tomorrow"] = [1]
        kept["notes"].append({"code": "new", "text": "x", "more": 1})

    damaged_rows(path, lambda row: without_crc(row[5], newer))
    damage = []
    ticks = list(read_journal(path, damage)[0])
    assert not damage
    assert [tick.observation for tick in ticks] == [tick.observation for tick in world.log.records]


def test_a_record_of_an_older_version_is_read(tmp_path):
    """It has no checksum, and keeps fewer settings."""
    path = tmp_path / "j"
    written(path, ticks=4)
    damaged_rows(path, lambda row: without_crc(row[5], lambda kept: kept["settings"].pop("policy")))
    assert len(list(read_journal(path)[0])) == 4


def test_a_record_of_before_there_could_be_other_pools_is_read(tmp_path):
    path = tmp_path / "j"
    world = written(path, ticks=4)

    def older(kept):
        kept["observation"] |= kept["observation"].pop("pools")
        del kept["goal"]

    damaged_rows(path, lambda row: without_crc(row[5], older))
    ticks = list(read_journal(path)[0])
    assert [tick.observation for tick in ticks] == [tick.observation for tick in world.log.records]
    assert [tick.goal for tick in ticks] == [tick.goal for tick in world.log.records]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example(flips=[(3976, 1)])  # the name of a column
@given(flips=st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), min_size=1, max_size=20))
def test_flipped_bytes_anywhere_end_nothing(tmp_path_factory, sound_journal, flips):
    path = tmp_path_factory.mktemp("flips") / "j"
    content = bytearray(sound_journal.read_bytes())
    for place, bits in flips:
        content[place % len(content)] ^= bits
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        ticks, events = read_journal(path, [])
        if ticks := list(ticks):
            explain_all(ticks, events)
            explain_tick(ticks[-1], events)
    try:
        world = LiveWorld(path=path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    world.load.requests = 2400.0
    world.loop.run(ticks=2)
    assert "loop_failed" not in world.log.kinds()
    assert world.pools.sizes == world.wanted(2400.0)
    assert world.journal.waiting == world.journal.lost == 0
    sizes = {tick.goal for tick in list(read_journal(path)[0])[-2:]}
    assert world.wanted(2400.0) in sizes


@pytest.fixture(scope="module")
def sound_journal(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "j"
    written(path, ticks=40)
    return path


@pytest.mark.parametrize(
    "spoil",
    [lambda data: data[:16] + bytes(len(data) - 16), lambda data: data[:5000], lambda data: bytes(len(data))],
    ids=["zeros after the magic", "cut", "zeros"],
)
def test_a_file_damaged_all_over_is_moved_aside_and_said_so(tmp_path, spoil):
    path = tmp_path / "j"
    world = written(path, ticks=20)
    spoilt = spoil(path.read_bytes())
    path.write_bytes(spoilt)
    world = LiveWorld(path=path)
    world.loop.run(ticks=2)
    (told,) = [event.text for event in world.log.events if event.kind == "journal_damaged"][:1]
    (aside,) = [
        file
        for file in tmp_path.iterdir()
        if ".damaged-" in file.name and not file.name.endswith(("-wal", "-shm"))
    ]
    assert aside.read_bytes() == spoilt
    assert aside.name in told
    assert len(list(read_journal(path)[0])) >= 2


def test_a_file_damaged_while_in_use_is_moved_aside_with_what_can_be_read(tmp_path):
    path = tmp_path / "j"
    world = LiveWorld(path=path)
    world.loop.start()
    world.ticks(30)
    world.journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as stream:  # the last page of the ticks
        stream.seek(size // 2)
        stream.write(bytes(size - size // 2))
    world.journal._db.execute("PRAGMA cache_size = 0")
    world.ticks(30, start=31)
    world.loop.finish()
    kept = [tick.id for tick in read_journal(path, [])[0]]
    assert kept[-30:] == list(range(31, 61))


def test_a_journal_of_another_version_is_moved_aside(tmp_path):
    path = tmp_path / "j"
    written(path, ticks=3)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE meta SET value = '2' WHERE key = 'version'")
    world = LiveWorld(path=path)
    assert "of version 2; expected 1" in world.journal.notices[0]
    assert len(world.journal.last_ticks(10)) == 3, "what can be read is taken along"
    world.journal.close()


def test_a_file_of_somebody_else_is_left_alone_however_often_it_is_named(tmp_path):
    (tmp_path / "notes").write_text("hello, I am text and longer than a header\n" * 50)
    for _ in range(3):
        with pytest.raises(InputError, match="not a database"):
            Journal(tmp_path / "notes", "x", 1e9)
    assert [file.name for file in tmp_path.iterdir()] == ["notes"]


def test_two_planners_do_not_write_one_journal(tmp_path):
    path = tmp_path / "j"
    world = LiveWorld(path=path)
    with pytest.raises(
        SagescaleError, match=rf"process {os.getpid()}\) is writing the journal .*; stop it first"
    ):
        Journal(path, world.pools.target, 1e9)
    world.loop.run(ticks=3)
    Journal(path, world.pools.target, 1e9).close()
    assert len(list(read_journal(path)[0])) == 3


def test_a_journal_that_somebody_locks_costs_no_tick(tmp_path):
    path = tmp_path / "j"
    world = LiveWorld(path=path, live={"time_scale": 60.0})
    world.loop.start()
    world.ticks(3)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    world.load.requests = 2400.0
    began_s = time.monotonic()
    world.ticks(12, start=4)
    took_s = time.monotonic() - began_s
    assert world.pools.sizes == world.wanted(2400.0)
    assert world.journal.waiting >= 12
    assert world.journal.largest_goal(0.0) == world.wanted(2400.0), "what waits counts"
    assert [tick.id for tick in world.journal.last_ticks(3)] == [13, 14, 15]
    other.execute("ROLLBACK")
    other.close()
    world.ticks(1, start=16)
    assert world.journal.waiting == 0
    world.loop.finish()
    assert [tick.id for tick in read_journal(path)[0]] == list(range(1, 17))
    assert took_s < 30.0, "no tick waits the five seconds that opening a journal may: twelve are a minute"


def test_a_record_that_no_file_takes_holds_up_no_other(tmp_path):
    world = written(tmp_path / "other", ticks=1)
    journal = Journal(tmp_path / "j", "x", 1e9)
    journal.add_event(Event(1.0, 10**30, "order", "x"))
    journal.add_tick(world.log.records[0])
    journal.add_event(Event(1.0, None, "order", "half a character: \ud800"))
    assert journal.waiting == 0
    assert journal.lost == 1
    assert "cannot be written" in journal.notices[0]
    journal.close()
    ticks, events = read_journal(tmp_path / "j")
    assert len(list(ticks)) == len(events) == 1


def test_a_disk_still_full_at_the_end_is_said_with_exit_code_1(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    original = Journal.add_tick

    def full_after_five(journal, record):
        if record.id == 6:
            pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
            journal._db.execute(f"PRAGMA max_page_count = {pages}")
        original(journal, dataclasses.replace(record, notes=(Note("x", "y" * 900),) * 9))

    monkeypatch.setattr(Journal, "add_tick", full_after_five)
    keys = [f"--set={key}" for key in ("adjustment_interval_sec=60", "time_scale=1000", "exporter_port=0")]
    words = ["--profile", PROFILE, "--dry-run", "--ticks", "12", "--log", "plain", *keys]
    code = command(monkeypatch, "plan", *words)
    printed = capsys.readouterr()

    kept = len(list(read_journal(tmp_path / "sagescale-journal.sqlite.dry-run")[0]))
    assert 5 <= kept < 12
    assert code == 1
    assert "records of this run are not in it (database or disk is full): make room" in printed.err
