"""Calibration: factors found again, bad fits refused, logs read strictly."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from experiment_world import asked, calibration, write_log
from sagescale.errors import InputError, SagescaleError
from sagescale.experiment.calibrate import calibrate, padding_candidates
from sagescale.experiment.factors import Factors, apply_factors, profile_prior
from sagescale.experiment.replay import PoolSizes, read_pool_sizes, replay
from sagescale.experiment.served import read_served
from sagescale.perf import load_profile
from sagescale.sim.config import SimulatorConfig
from typer.testing import CliRunner

BASE = load_profile("h200-llama-3.1-8b-bf16")
FEWER = BASE.with_limits(max_num_seqs=48)
"""What is served here fills 31 slots: the same factors are found, with shorter tables."""
ONE_EACH = PoolSizes.fixed(1, 1)
WORLD = SimulatorConfig()
TRUTH = Factors(
    prefill_scale=1.06,
    decode_scale=1.04,
    join_ms_per_1k_tokens=2.0,
    latency_ms=0.5,
    ms_per_1k_tokens=0.5,
    decode_steps=0.4,
    blocks_prefill=True,
    padded_batch_sizes=(),
)


def served(count=700, factors=TRUTH, pools=ONE_EACH, per_s=14.0):
    """A log as an engine with these factors would have written it."""
    empty = asked(count, per_s, 0, (6.8, 0.6, 16, 6000), (4.8, 0.7, 1, 800))
    run = replay(empty, apply_factors(BASE, factors), pools, WORLD)
    return dataclasses.replace(empty, first_token_s=run.first_token_s, done_s=run.done_s)


@pytest.fixture(autouse=True, scope="module")
def equal_replays_are_one():
    """A replay depends on when requests came and on lengths: searches on logs alike in both do the same."""
    made = {}

    def once(log, *given, part=slice(None), **more):
        came = log.arrival_s, log.isl, log.osl
        key = (*map(id, came), *given, part.start, part.stop, *more.items())
        if key not in made:
            made[key] = came, replay(log, *given, part=part, **more)
        return made[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sagescale.experiment.calibrate.replay", once)
        yield


@pytest.fixture(scope="module")
def log():
    return served()


def test_known_factors_are_found_again(log):
    result = calibrate(FEWER, log, ONE_EACH, WORLD, paddings=((),))
    found = result.factors
    assert result.good
    assert result.held_out
    assert (result.fitted, result.scored) == (350, 350)
    assert all(abs(error.after) < 0.05 for error in result.errors)
    assert max(abs(error.before) for error in result.errors) > 0.1
    assert found.prefill_scale == pytest.approx(1.06, abs=0.04)
    # A step's loss to joins and its loss always trade against each other; together they are determined.
    assert found.decode_scale == pytest.approx(1.04, abs=0.04)
    assert found.join_ms_per_1k_tokens == pytest.approx(2.0, abs=1.5)


def test_another_log_of_the_same_engine_is_predicted(log):
    other = served(count=400, per_s=11.0)
    result = calibrate(FEWER, log, ONE_EACH, WORLD, fit_part=(0.0, 1.0), unseen=other, paddings=((),))
    assert result.good
    assert result.held_out
    assert (result.fitted, result.scored) == (700, 400)
    assert all(abs(error.after) < 0.05 for error in result.errors)
    slow = dataclasses.replace(other, done_s=2 * other.done_s - other.first_token_s)
    assert not calibrate(FEWER, log, ONE_EACH, WORLD, unseen=slow, paddings=((),)).good


def test_a_profile_that_cannot_explain_the_log_is_not_called_good(log):
    # Twice as slow in the part held out: no factors of the first part predict it.
    later = np.arange(len(log)) >= 350
    odd = dataclasses.replace(
        log, done_s=np.where(later, log.first_token_s + 2 * (log.done_s - log.first_token_s), log.done_s)
    )
    result = calibrate(FEWER, odd, ONE_EACH, WORLD, paddings=((),))
    assert not result.good
    assert {error.latency for error in result.errors if not error.good} == {"itl"}


def test_factors_go_to_a_point_and_back():
    prior = profile_prior(BASE)
    again = prior.factors(prior.point(TRUTH), blocks=True, padded=())
    for name in Factors.__slots__:
        assert getattr(again, name) == pytest.approx(getattr(TRUTH, name))


def test_factors_of_nothing_leave_the_profile_as_it_is():
    prior = profile_prior(BASE)
    same = apply_factors(BASE, prior.factors(np.zeros(6), blocks=True, padded=()))
    assert same.prefill.ttft_ms == BASE.prefill.ttft_ms
    assert same.decode.itl_ms == BASE.decode.itl_ms
    assert dataclasses.replace(same.kv_transfer, ms_per_1k_tokens=0) == dataclasses.replace(
        BASE.kv_transfer, ms_per_1k_tokens=0
    )
    assert same.kv_transfer.ms_per_1k_tokens == pytest.approx(BASE.kv_transfer.ms_per_1k_tokens)


def test_a_replay_tells_the_mean_hand_off_of_its_part(log):
    flat = dataclasses.replace(TRUTH, latency_ms=7.0, ms_per_1k_tokens=0.0, decode_steps=0.0)
    assert replay(log, apply_factors(BASE, flat), ONE_EACH, WORLD).handoff_ms == pytest.approx(7.0)
    by_length = dataclasses.replace(TRUTH, latency_ms=0.0, ms_per_1k_tokens=3.0, decode_steps=0.0)
    part = slice(200, 500)
    sent = log.isl[part][log.osl[part] > 1]  # a single token needs no decode instance
    seen = replay(log, apply_factors(BASE, by_length), ONE_EACH, WORLD, part=part).handoff_ms
    assert seen == pytest.approx(3e-3 * sent.mean(), rel=0.01)


def test_padding_tries_the_measured_batches():
    assert padding_candidates(BASE) == ((), (1, 2, 4, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128))


def test_pools_that_changed_are_replayed_as_they_changed(log, tmp_path):
    sizes = tmp_path / "pools.csv"
    sizes.write_text("time_s,prefill,decode\n90,1,1\n110,2,1\n130,1,1\n")
    pools = read_pool_sizes(sizes, 100.0)
    assert pools == PoolSizes((-10.0, 10.0, 30.0), (1, 2, 1), (1, 1, 1))
    grown, alone = replay(log, BASE, pools, WORLD), replay(log, BASE, ONE_EACH, WORLD)
    before, during = log.arrival_s < 9, (log.arrival_s > 10) & (log.arrival_s < 30)
    assert np.array_equal(grown.first_token_s[before], alone.first_token_s[before])
    assert grown.first_token_s[during].mean() < alone.first_token_s[during].mean()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time_s,prefill\n0,1\n", "expected time_s,prefill,decode"),
        ("time_s,prefill,decode\n0,1,1\n5,x,1\n", "line 3: 5,x,1"),
        ("time_s,prefill,decode\n5,1,1\n", "no row at or before"),
        ("time_s,prefill,decode\n0,1,1\n9,1,1\n5,1,1\n", "line 4"),
        ("time_s,prefill,decode\n0,0,1\n", "no instances"),
    ],
)
def test_pool_sizes_that_make_no_sense_are_refused(tmp_path, text, message):
    path = tmp_path / "pools.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_pool_sizes(path, 0.0)


def test_a_log_is_read_from_csv_and_parquet_under_other_names(log, tmp_path):
    import pyarrow.csv
    import pyarrow.parquet

    names = ("t_in", "isl", "osl", "t_first", "t_out")
    path = write_log(log, tmp_path / "log.csv", names, shift_s=1000.0)
    other = tmp_path / "log.parquet"
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(path), other)
    columns = {"arrival_s": "t_in", "first_token_s": "t_first", "done_s": "t_out"}
    for file in (path, other):
        read = read_served(file, columns)
        assert read.start_s == 1000.0
        assert read.ttft_ms == pytest.approx(log.ttft_ms, abs=1e-6)
        assert np.array_equal(read.osl, log.osl)
        assert read.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("osl", "0", "row 3: osl is 0"),
        ("isl", "1.5", "row 3: isl is 1.5"),
        ("isl", "many", "column 'isl' holds string"),
        ("done_s", "-5", "row 3: done_s is -5"),
        ("first_token_s", "-1", "row 3: first_token_s is -1"),
        ("arrival_s", "nan", "row 3: arrival_s is None"),
        ("done_s", "", "row 3: done_s is None"),
    ],
)
def test_impossible_rows_are_named(log, tmp_path, column, value, message):
    path = write_log(log, tmp_path / "log.csv")
    lines = path.read_text().splitlines()
    cells = lines[3].split(",")
    cells[lines[0].split(",").index(column)] = value
    lines[3] = ",".join(cells)
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        read_served(path)


def test_a_log_that_is_none_is_refused(log, tmp_path):
    path = tmp_path / "log.csv"
    with pytest.raises(InputError, match="cannot be read"):
        read_served(path)
    path.write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(InputError, match="expected CSV"):
        read_served(path)
    write_log(log, path, ("arrival", "isl", "osl", "first_token_s", "done_s"))
    with pytest.raises(InputError, match="no column 'arrival_s' for arrival_s; did you mean 'arrival'"):
        read_served(path)
    with pytest.raises(InputError, match="--columns arival_s: unknown"):
        read_served(path, {"arival_s": "x"})
    path.write_text("\n".join(write_log(log, path).read_text().splitlines()[:50]))
    with pytest.raises(InputError, match="49 requests"):
        read_served(path)


def test_a_log_that_is_no_file_or_would_fill_memory_is_refused(tmp_path):
    import os

    import pyarrow as pa
    from pyarrow import parquet

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a regular file"):
            read_served(path)
        with pytest.raises(InputError, match="not a regular file"):
            read_pool_sizes(path, 0.0)
    with (tmp_path / "sparse.csv").open("wb") as stream:
        stream.truncate(10 << 30)
    with pytest.raises(InputError, match="10737418240 bytes"):
        read_served(tmp_path / "sparse.csv")
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(21_000_000, np.int8)), [1.0])
    parquet.write_table(pa.table({"arrival_s": same}), tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 1 << 20
    with pytest.raises(InputError, match="21000000 rows"):
        read_served(tmp_path / "bomb.parquet")


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_a_log_in_another_unit_is_refused(log, tmp_path, factor):
    times = ("arrival_s", "first_token_s", "done_s")
    odd = dataclasses.replace(log, **{name: factor * getattr(log, name) for name in times})
    with pytest.raises(InputError, match="are the times in seconds"):
        read_served(write_log(odd, tmp_path / "log.csv"))


def test_the_command_writes_only_a_good_fit_and_says_where_it_comes_from(log, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_log(log, tmp_path / "log.csv")
    out = tmp_path / "new.yaml"
    words = [BASE.name, "--requests", "log.csv", "--padding", "none", "--out", "new.yaml"]
    shown = CliRunner().invoke(calibration(), words)
    assert shown.exit_code == 0, shown.output
    assert "TTFT p99" in shown.output
    assert "good: written to new.yaml" in shown.output
    profile = load_profile(str(out))
    assert profile.name == "new"
    assert profile.source.files[-1].path == "log.csv"
    assert profile.source.command.startswith(f"sagescale profile calibrate {BASE.name} --requests log.csv")
    assert any(note.startswith("calibration: join cost") for note in profile.notes)
    assert any("before" in note and "after" in note for note in profile.notes)
    out.unlink()
    refused = CliRunner().invoke(calibration(), [*words, "--prefill", "3"])
    assert isinstance(refused.exception, SagescaleError)
    assert refused.exception.exit_code == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--fit", "0.5"], "--fit 0.5: expected two shares"),
        (["--fit", "0:0.01"], "expected at least 50"),
        (["--padding", "8,4"], "--padding 8,4"),
        (["--score", "nowhere.csv"], "nowhere.csv: cannot be read"),
        (["--columns", "arrival_s"], "--columns arrival_s: expected NAME=COLUMN"),
        (["--set", "max_batch=1"], "unknown key 'max_batch'"),
    ],
)
def test_options_that_make_no_sense_are_refused(log, tmp_path, option, message):
    path = write_log(log, tmp_path / "log.csv")
    words = [BASE.name, "--requests", str(path), "--out", str(tmp_path / "new.yaml"), *option]
    result = CliRunner().invoke(calibration(), words)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_the_measured_engine_is_reproduced(shared):
    log = read_served(shared / "profiles" / "h200_pd_measured" / "conv5x_requests.csv")
    result = calibrate(BASE, log, ONE_EACH, WORLD, paddings=(padding_candidates(BASE)[1],))
    errors = {(error.latency, error.percentile): error for error in result.errors}
    assert result.good
    assert result.factors.blocks_prefill
    assert abs(errors["itl", 50].after) < 0.05
    assert abs(errors["itl", 90].after) < 0.05
    for error in result.errors:
        assert abs(error.after) < 0.45 * abs(error.before)
    # What the log times itself: hand-offs of a batch end together, each request's share is the mean.
    part = slice(0, len(log) // 2)
    batch_ends = np.unique(np.stack([log.first_token_s[part], log.kv_ready_s[part]]), axis=1)
    measured_ms = 1e3 * float((batch_ends[1] - batch_ends[0]).sum()) / int((log.osl[part] > 1).sum())
    assert replay(log, result.profile, ONE_EACH, WORLD, part=part).handoff_ms == pytest.approx(
        measured_ms, rel=0.03
    )


def test_text_repeated_in_parquet_is_not_unpacked(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    at_s = [float(i) for i in range(100_000)]
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * (1 << 20)]))
    columns = {"arrival_s": at_s, "isl": [9] * 100_000, "osl": [2] * 100_000, "first_token_s": at_s}
    columns["done_s"] = [at + 0.05 for at in at_s]
    parquet.write_table(pa.table(columns | {"note": same}), tmp_path / "x", store_schema=False)
    assert len(read_served(tmp_path / "x").isl) == 100_000
    parquet.write_table(pa.table(columns | {"isl": same}), tmp_path / "x", store_schema=False)
    with pytest.raises(InputError, match=r"column 'isl' holds string .expected numbers"):
        read_served(tmp_path / "x")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_column_given_twice_is_refused(tmp_path, ending):
    import pyarrow as pa
    from pyarrow import csv, parquet

    names = ["arrival_s", "isl", "osl", "osl", "first_token_s", "done_s"]
    table = pa.Table.from_arrays([pa.array([5.0] * 100)] * 6, names=names)
    (csv.write_csv if ending == "csv" else parquet.write_table)(table, tmp_path / "x")
    with pytest.raises(InputError, match="column 'osl' occurs twice"):
        read_served(tmp_path / "x")
