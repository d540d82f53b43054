"""A service's own log: its columns are named, its rows chosen, and what cannot be used is counted."""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from sagescale.errors import InputError
from sagescale.trace import LogSpec, parse_columns, parse_where, read_trace

if TYPE_CHECKING:
    from pathlib import Path

    from sagescale.trace import Trace

COLUMNS = "arrival=start_time,isl=prompt_tokens,osl=completion_tokens"
HEADER = "start_time,prompt_tokens,completion_tokens\n"
TWO = HEADER + "2026-11-24T09:00:00.25+01:00,800,20\n2026-11-24T09:00:01+01:00,400,10\n"


def spec(columns: str = COLUMNS, *where: str, **others: object) -> LogSpec:
    return LogSpec(parse_columns([columns]), parse_where(where), **others)  # type: ignore[arg-type]


def read(folder: Path, text: str, log: LogSpec | None = None) -> Trace:
    file = folder / "log"
    file.write_text(text)
    return read_trace(file, log=log or spec())


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of 80,000 requests in three gzip files: two models, failures, missing counts, disorder."""
    folder, rng = tmp_path_factory.mktemp("days"), random.Random(13)
    begin = datetime(2026, 11, 23, tzinfo=timezone(timedelta(hours=1)))
    rows = []
    for second in sorted(rng.uniform(0, 3 * 86400) for _ in range(80_000)):
        at = (begin + timedelta(seconds=second)).isoformat(timespec="milliseconds")
        failed, lost = rng.random() < 0.03, rng.random() < 0.01
        tokens = "" if failed or lost else rng.randint(1, 400)
        rows.append((at, rng.choice(("llama", "qwen")), 503 if failed else 200, rng.randint(1, 4000), tokens))
    for row in range(0, len(rows) - 50, 37):
        rows[row], rows[row + 40] = rows[row + 40], rows[row]
    for part in range(3):
        with gzip.open(folder / f"log-{part}.csv.gz", "wt", newline="", compresslevel=1) as file:
            out = csv.writer(file)
            out.writerow(("start_time", "model", "status_code", "prompt_tokens", "completion_tokens"))
            out.writerows(rows[part::3])
    return folder


def test_three_days_of_two_models_in_three_files_are_one_trace(days: Path) -> None:
    trace = read_trace(days / "log-*.csv.gz", log=spec(COLUMNS, "model=llama", "status_code=200"))
    assert 37_600 < len(trace) < 39_200
    assert trace.duration_s == pytest.approx(3 * 86400, abs=60)
    assert trace.started_at is not None
    assert trace.started_at.isoformat().startswith("2026-11-23T00:00:0")
    assert trace.started_at.utcoffset() == timedelta(hours=1)
    said = "\n".join(trace.warnings)
    assert "of 80,000 rows by --where model=llama" in said
    assert "lack completion_tokens (first: " in said
    assert "out of order" in said


def test_every_row_is_in_the_trace_or_accounted_for(days: Path) -> None:
    everything = read_trace(days / "log-*.csv.gz", log=spec())
    halves = [
        len(read_trace(days / "log-*.csv.gz", log=spec(COLUMNS, f"model={name}")))
        for name in ("llama", "qwen")
    ]
    assert sum(halves) == len(everything)
    assert any("column 'model' holds 2 values, all taken" in line for line in everything.warnings)


def test_unknown_columns_are_answered_with_the_command_that_names_them(days: Path) -> None:
    file = days / "log-0.csv.gz"
    with pytest.raises(InputError, match=re.escape(f"sagescale trace info {file} --columns {COLUMNS};")):
        read_trace(file)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("ts,in_tok,output_tokens\n1,2,3\n", "arrival=ts,isl=COLUMN,osl=output_tokens"),
        ("Timestamp;Prompt Tokens;Completion Tokens\n1;2;3\n", "arrival=Timestamp,isl=Prompt Tokens,osl="),
        ('{"created": 1, "usage": {"prompt_tokens": 2, "completion_tokens": 3}}\n',
         "arrival=created,isl=usage.prompt_tokens,osl=usage.completion_tokens"),
        ("startTime,promptTokens,completionTokens,cached_tokens\n1,2,3,0\n",
         "arrival=startTime,isl=promptTokens,osl=completionTokens,cached_tokens=cached_tokens"),
    ],
)  # fmt: skip
def test_names_are_filled_in_as_far_as_they_tell(tmp_path: Path, text: str, pairs: str) -> None:
    file = tmp_path / "log"
    file.write_text(text)
    with pytest.raises(InputError) as refused:
        read_trace(file)
    assert pairs in str(refused.value)


def test_nested_json_and_times_in_a_log_of_json_lines(tmp_path: Path) -> None:
    rows = [
        {"created": 1764000000 + at, "usage": {"prompt_tokens": 5, "completion_tokens": 7}, "ok": at != 1}
        for at in range(3)
    ]
    log = spec("arrival=created,isl=usage.prompt_tokens,osl=usage.completion_tokens", "ok=true")
    trace = read(tmp_path, "\n".join(map(json.dumps, rows)), log)
    assert trace.arrival_s.tolist() == [0.0, 2.0]
    assert trace.started_at == datetime.fromtimestamp(1764000000, UTC)


@pytest.mark.parametrize(("unit", "per_s"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_the_unit_of_times_since_1970_is_found_and_stated(tmp_path: Path, unit: str, per_s: int) -> None:
    first = 1_764_000_000 * per_s
    trace = read(tmp_path, f"{HEADER}{first},5,5\n{first + 2 * per_s},5,5\n")
    assert trace.arrival_s.tolist() == [0.0, 2.0]
    words = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}[unit]
    assert trace.warnings[0].startswith(
        f"arrival 'start_time' read as {words} since 1970, 2025-11-24 16:00:00"
    )


def test_a_name_that_contradicts_the_size_is_asked_about(tmp_path: Path) -> None:
    log = spec("arrival=time_ms,isl=i,osl=o")
    text = "time_ms,i,o\n1764000000,5,5\n1764000002,5,5\n"
    with pytest.raises(
        InputError, match=r"is named ms.*this century in s; say which with --time-unit ms or s"
    ):
        read(tmp_path, text, log)
    assert read(tmp_path, text, spec("arrival=time_ms,isl=i,osl=o", time_unit="ms")).duration_s == 0.002


def test_offsets_that_are_hardly_seconds_need_their_unit(tmp_path: Path) -> None:
    text = "t,i,o\n" + "".join(f"{at},5,5\n" for at in range(0, 3000, 3))
    trace = read(tmp_path, text, spec("arrival=t,isl=i,osl=o"))
    assert "read as seconds since some start" in trace.warnings[0]
    fast = "t,i,o\n" + "".join(f"{at / 1000},5,5\n" for at in range(0, 3000, 3))
    with pytest.raises(InputError, match="hardly seconds; say which unit with --time-unit ms"):
        read(tmp_path, fast, spec("arrival=t,isl=i,osl=o"))


def test_times_without_a_zone_are_of_the_one_that_is_named(tmp_path: Path) -> None:
    text = HEADER + "2026-11-24 09:00:00,5,5\n2026-11-24 09:00:05,5,5\n"
    assert any("states no zone: taken as UTC" in line for line in read(tmp_path, text).warnings)
    berlin = read(tmp_path, text, spec(time_zone="Europe/Berlin"))
    assert berlin.started_at == datetime(2026, 11, 24, 8, tzinfo=UTC)
    with pytest.raises(InputError, match=r"no such zone.*did you mean 'Europe/Berlin'"):
        read(tmp_path, text, spec(time_zone="Europe/Berlim"))


def test_clocks_that_go_forward_leave_no_gap_in_the_trace(tmp_path: Path) -> None:
    text = HEADER + "2026-03-29 01:59:59,5,5\n2026-03-29 03:00:01,5,5\n"
    assert read(tmp_path, text, spec(time_zone="Europe/Berlin")).duration_s == 2.0


def test_the_hour_that_occurs_twice_is_said(tmp_path: Path) -> None:
    text = HEADER + "2026-10-25 01:30:00,5,5\n2026-10-25 02:30:00,5,5\n"
    trace = read(tmp_path, text, spec(time_zone="Europe/Berlin"))
    assert any("1 rows are in an hour that occurs twice" in line for line in trace.warnings)


BAD_ROWS = [
    ("x,5,5", "have a start_time that is no time"),
    (",5,5", "lack start_time"),
    ("2026-11-24T09:00:02+01:00,,5", "lack prompt_tokens"),
    ("2026-11-24T09:00:02+01:00,5,0", "have completion_tokens 0"),
    ("2026-11-24T09:00:02+01:00,5.5,1", "have a prompt_tokens that is no number of tokens"),
    ("2026-11-24T09:00:02+01:00,5,-1", "have a completion_tokens that is no number of tokens"),
    ("2026-11-24T09:00:02+01:00,5", "are 2 fields where the header has 3"),
    ("1970-01-01T00:00:00Z,5,5", "have an arrival more than a year from most others"),
    ("1764000000,5,5", "unlike most"),
    ("9999-12-31T23:59:59-05:00,5,5", "have a start_time that is no time"),
    ("11/24/2026 09:00:00,5,5", "have a start_time that is no time"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
def test_a_row_that_cannot_be_used_is_dropped_counted_and_placed(
    tmp_path: Path, row: str, reason: str
) -> None:
    trace = read(tmp_path, TWO + row + "\n", spec(max_dropped=0.4))
    assert trace.arrival_s.tolist() == [0.0, 0.75]
    (said,) = [line for line in trace.warnings if line.startswith("dropped")]
    assert "dropped 1 of 3 rows (33.33%)" in said
    assert reason in said
    assert "line 4" in said


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
def test_strict_refuses_it(tmp_path: Path, row: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"line 4: .*{reason}.*--strict"):
        read(tmp_path, TWO + row + "\n", spec(strict=True))


def test_more_than_a_twentieth_dropped_is_refused_with_what_to_do(tmp_path: Path) -> None:
    good = "".join(f"2026-11-24T09:00:{at:02}+01:00,5,5\n" for at in range(18))
    with pytest.raises(
        InputError, match=r"2 of 20 rows \(10.0%\) cannot be used.*expected at most 0.05.*--max-dropped"
    ):
        read(tmp_path, HEADER + good + ",5,5\n,5,5\n")
    assert len(read(tmp_path, HEADER + good + ",5,5\n,5,5\n", spec(max_dropped=0.1))) == 18


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("", "has a header and no requests"),
        (
            "11/24/2026 09:00:00,5,5\n",
            "no row can be used: 1 have a start_time that is no time.*expected times such",
        ),
    ],
)
def test_a_log_without_one_row_to_use_is_refused(tmp_path: Path, rows: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read(tmp_path, HEADER + rows)


def test_a_condition_that_nothing_meets_says_what_there_is(tmp_path: Path) -> None:
    text = "start_time,prompt_tokens,completion_tokens,model\n2026-11-24T09:00:00Z,5,5,llama\n"
    with pytest.raises(
        InputError, match=r"model=lama: no row is left of 1; model holds llama \(1\); did you mean"
    ):
        read(tmp_path, text, spec(COLUMNS, "model=lama"))


def test_where_chooses_rows_of_a_known_format_too(tmp_path: Path) -> None:
    file = tmp_path / "burst.csv"
    file.write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "0,ChatGPT,5,5,10,API log\n1,GPT-4,7,7,14,API log\n4,GPT-4,8,8,16,API log\n"
    )
    trace = read_trace(file, log=LogSpec(where=parse_where(["Model!=ChatGPT"])))
    assert (trace.format, trace.arrival_s.tolist(), trace.isl.tolist()) == ("burstgpt", [0.0, 3.0], [7, 8])


def test_cached_tokens_and_priorities_of_a_log(tmp_path: Path) -> None:
    text = "t,i,o,c,p,s\n0,10,5,10,2,a\n1,10,5,,1,b\n2,10,5,4,,a\n"
    trace = read(tmp_path, text, spec("arrival=t,isl=i,osl=o,cached_tokens=c,priority=p,session_id=s"))
    assert trace.cached_tokens is not None
    assert trace.priority is not None
    assert (trace.cached_tokens.tolist(), trace.priority.tolist()) == ([9, 0, 4], [2, 1, 0])
    said = "\n".join(trace.warnings)
    assert "c is blank in 1 rows: taken as 0" in said
    assert "1 prompts are cached whole" in said
    assert "2 sessions" in said


def test_parquet_with_times_of_a_zone(tmp_path: Path) -> None:
    at = pa.array([1_764_000_000_000_000, 1_764_000_000_500_000], pa.timestamp("us", "Europe/Berlin"))
    file = tmp_path / "log.parquet"
    parquet.write_table(
        pa.table({"start_time": at, "prompt_tokens": [5, 6], "completion_tokens": [7.0, 8.0]}), file
    )
    trace = read_trace(file, log=spec())
    assert trace.arrival_s.tolist() == [0.0, 0.5]
    assert trace.started_at is not None
    assert trace.started_at.hour == 17


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ("arrival=a,isl=b", "osl is missing; add osl=NAME"),
        ("arival=a,isl=b,osl=c", "'arival' is none of .*did you mean 'arrival'"),
        ("arrival=a,arrival=d,isl=b,osl=c", "arrival is given twice"),
        ("arrival", "is no OURS=THEIRS"),
    ],
)
def test_columns_that_make_no_sense_are_refused(columns: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_columns([columns])


def test_a_misspelt_column_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no column 'startime'; found start_time,.*did you mean 'start_time'"
    ):
        read(tmp_path, TWO, spec(COLUMNS.replace("start_time", "startime")))


def test_a_file_named_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text(TWO)
    with pytest.raises(InputError, match="given twice; its requests would count twice"):
        read_trace([file, tmp_path / "*.csv"], log=spec())
    with pytest.raises(InputError, match="no file matches"):
        read_trace(tmp_path / "*.gz", log=spec())


def test_several_files_of_a_known_format_are_joined_and_must_be_alike(tmp_path: Path) -> None:
    one, two, odd = tmp_path / "1.csv", tmp_path / "2.csv", tmp_path / "3.csv"
    one.write_text("arrival_s,isl,osl\n10,1,1\n")
    two.write_text("arrival_s,isl,osl\n7,2,2\n")
    odd.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n")
    joined = read_trace([one, two])
    assert (joined.arrival_s.tolist(), joined.isl.tolist()) == ([0.0, 3.0], [2, 1])
    assert joined.path == f"{one} and 1 more"
    with pytest.raises(InputError, match=r"is vidur, and .* is sagescale; expected files of one format"):
        read_trace([one, odd])


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
def test_a_log_in_any_order_and_spelling_is_the_same_trace(offsets: list[int]) -> None:
    from sagescale.trace.log.times import parse_stamp

    begin = datetime(2026, 3, 1, tzinfo=UTC)
    for offset in offsets:
        at = begin + timedelta(milliseconds=offset)
        spelt = (
            at.isoformat(),
            at.isoformat().replace("+00:00", "Z"),
            at.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat(sep=" "),
            at.strftime("%Y-%m-%d %H:%M:%S.%f UTC"),
        )
        assert {stamp.value for text in spelt if (stamp := parse_stamp(text))} == {
            int(at.timestamp() * 1000) * 1_000_000
        }
