"""A bad file gives one line: where, what was found, what was expected."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from sagescale.errors import InputError
from sagescale.trace import read_trace

if TYPE_CHECKING:
    import random

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,4808,10\r\n"
OURS = "arrival_s,isl,osl\n0,10,5\n"
MOONCAKE = '{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [1]}\n'

BAD_FILES = {
    "empty": ("", ["is empty"]),
    "blank lines only": ("\n\n  \n", ["only blank lines"]),
    "header only": ("arrival_s,isl,osl\n", ["a header and no requests"]),
    "columns of no format": (
        "time,in,out\n0,1,1\n",
        ["time,in,out", "no known", "--columns arrival=time,isl=COLUMN,osl=COLUMN", "sagescale (", "azure,"],
    ),
    "a column short": ("arrival_s,isl\n0,1\n", ["arrival_s,isl:", "expected sagescale", "arrival_s,isl,osl"]),
    "a column twice": ("arrival_s,isl,isl,osl\n0,1,1,1\n", ["line 1", "'isl' occurs twice"]),
    "negative tokens": (OURS + "\n1,-3,5\n", ["line 4", "column 'isl'", "'-3'", "whole number"]),
    "negative time": (OURS + "-1,3,5\n", ["line 3", "column 'arrival_s'", "'-1'", "0 or more"]),
    "time not a number": (OURS + "nan,3,5\n", ["line 3", "'arrival_s'", "'nan'", "finite"]),
    "infinite time": (OURS + "inf,3,5\n", ["line 3", "'arrival_s'", "'inf'", "finite"]),
    "text for a number": (OURS + "1,many,5\n", ["line 3", "'isl'", "'many'"]),
    "fraction of a token": (OURS + "1,3,5.5\n", ["line 3", "'osl'", "'5.5'", "whole"]),
    "Python's notation": (OURS + "1,1_000,5\n", ["line 3", "'isl'", "'1_000'"]),
    "missing value": (OURS + "1,,5\n", ["line 3", "'isl'", "''"]),
    "beyond int32": (OURS + "1,2147483648,5\n", ["line 3", "'isl'", "'2147483648'", "2147483647"]),
    "beyond int64": (OURS + "1,99999999999999999999,5\n", ["line 3", "'isl'", "99999999999999999999"]),
    "a field short": (OURS + "1,5\n", ["line 3", "found 2 fields, expected 3"]),
    "a field too many": (OURS + "1,5,5,5\n", ["line 3", "found 4 fields, expected 3"]),
    "more cached than prompt": (
        "arrival_s,isl,osl,cached_tokens\n0,5,5,4\n1,5,5,5\n",
        ["line 3", "'cached_tokens'", "found 5", "less than isl (5)"],
    ),
    "priority not a whole number": (
        "arrival_s,isl,osl,priority\n0,5,5,-1\n1,5,5,high\n",
        ["line 3", "'priority'", "'high'", "the lowest the most urgent"],
    ),
    "bad month": (
        AZURE + "2023-13-16 18:17:04,1,1\r\n",
        ["line 3", "'TIMESTAMP'", "2023-13-16", "2023-11-16"],
    ),
    "number for a date": (AZURE + "17.5,1,1\r\n", ["line 3", "'TIMESTAMP'", "'17.5'"]),
    "zones in some rows": (AZURE + "2023-11-16 18:17:04+00:00,1,1\r\n", ["'TIMESTAMP'", "without a zone"]),
    "batches": (
        "arrival_timestamp,batch_size,prompt_size,token_size\n0,1,5,5\n1,2,5,5\n",
        ["line 3", "'batch_size'", "'2'", "one request a row"],
    ),
    "JSON cut short": (MOONCAKE + '{"timestamp": 5, "inp', ["line 2", "not valid JSON"]),
    "first line not JSON": ("{timestamp}\n", ["line 1", "not valid JSON"]),
    "JSON array": ("[" + MOONCAKE + "]", ["a JSON array", "JSON lines"]),
    "JSON line not an object": (MOONCAKE + "5\n", ["line 2", "int", "an object"]),
    "JSON key missing": (
        MOONCAKE + '{"timestamp": 5, "input_length": 5}\n',
        ["line 2", "'output_length' is missing", "timestamp,input_length"],
    ),
    "JSON text for a number": (MOONCAKE + MOONCAKE.replace("0,", '"0",'), ["line 2", "'timestamp'", "'0'"]),
    "JSON null": (MOONCAKE + MOONCAKE.replace("0,", "null,"), ["line 2", "'timestamp'", "None"]),
    "JSON true": (MOONCAKE + MOONCAKE.replace("5,", "true,", 1), ["line 2", "'input_length'", "True"]),
    "JSON NaN": (MOONCAKE + MOONCAKE.replace("0,", "NaN,"), ["line 2", "'timestamp'", "nan"]),
    "JSON negative": (MOONCAKE + MOONCAKE.replace("5,", "-5,", 1), ["line 2", "'input_length'", "-5"]),
    "400 digits": (OURS + f"1,{'9' * 400},5\n", ["line 3", "'isl'", "'9999", "whole number"]),
    "5000 digits": (OURS + f"1,{'9' * 5000},5\n", ["line 3", "'isl'", "'9999", "whole number"]),
    "a header cell without end": (
        "arrival_s,isl,osl," + "x" * 140_000 + "\n0,1,1,1\n",
        ["line 1", "field limit"],
    ),
    "a cell without end": (OURS + "1,5," + "5" * 140_000 + "\n", ["line 3", "field limit"]),
    "thousands of columns": ("a," * 5000 + "b\n", ["line 1", "5001 columns"]),
    "a year of centuries": (AZURE + "1066-10-14 09:00:00,1,1\r\n", ["line 3", "'1066", "1678 to 2261"]),
    "a span of centuries": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n1700-01-01 00:00:00,1,1\n2200-01-01 00:00:05,1,1\n",
        ["line 3", "'TIMESTAMP'", "1.57785e+10 s from the first", "at most 31622400 s"],
    ),
    "one arrival far off": (OURS + "\n1,5,5\n1e9,5,5\n", ["line 5", "'arrival_s'", "1e+09 s", "a year"]),
    "the first far off": (
        "arrival_s,isl,osl\n0,5,5\n1e9,5,5\n1e9,5,5\n1e9,5,5\n",
        ["line 2", "from the last arrival"],
    ),
    "an arrival beyond any clock": (OURS + "1e308,5,5\n", ["line 3", "1e+308 s", "a year"]),
    "JSON far off": (MOONCAKE + MOONCAKE.replace("0,", "1e300,"), ["line 2", "'timestamp'", "in ms"]),
    "JSON 20,000 deep": ('{"a":' * 20_000 + "1" + "}" * 20_000, ["line 1", "nested more than 100 deep"]),
    "JSON with 400 digits": (
        MOONCAKE + MOONCAKE.replace("5,", "9" * 400 + ",", 1),
        ["line 2", "an integer of 400 digits"],
    ),
    "JSON with a key twice": (MOONCAKE + MOONCAKE.replace("{", '{"timestamp": 1, '), ["line 2", "twice"]),
    "nothing left": ("arrival_s,isl,osl\n0,5,0\n", ["no request is left", "dropped 1"]),
    "UTF-16": (OURS.encode("utf-16"), ["binary data"]),
    "not UTF-8": (b"\xff\xfe\xfa,isl\n1,2\n", ["binary data"]),
    "half a gzip": (gzip.compress(OURS.encode() * 50)[:-12], ["damaged or truncated gzip"]),
    "gzip of garbage": (b"\x1f\x8b\x08\0garbage garbage garbage", ["damaged or truncated gzip"]),
    "gzip of nothing": (gzip.compress(b""), ["is empty"]),
    "half a Parquet": (b"PAR1" + b"\x15" * 100, ["damaged or truncated Parquet"]),
}


def message_about(file: Path, **options: str) -> str:
    with pytest.raises(InputError) as caught:
        read_trace(file, **options)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    content, fragments = BAD_FILES[case]
    file = tmp_path / "trace.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = message_about(file)
    for fragment in fragments:
        assert fragment in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in message_about(tmp_path / "nope.csv")


def test_a_directory_is_no_trace(tmp_path: Path) -> None:
    assert "is a directory" in message_about(tmp_path)


def test_a_misspelt_shipped_name_gets_a_suggestion() -> None:
    assert "did you mean 'steady'?" in message_about(Path("stedy"))


def test_an_unknown_format_name_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--format azur: unknown.*did you mean 'azure'"):
        read_trace(tmp_path, format="azur")


@pytest.mark.parametrize("form", ["azure", "mooncake", "sagescale"])
def test_a_named_format_must_still_fit(tmp_path: Path, form: str) -> None:
    (tmp_path / "x").write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n")
    assert "expected" in message_about(tmp_path / "x", format=form)


@pytest.mark.parametrize(
    ("column", "values", "fragments"),
    [
        ("isl", [5, -1], ["row 2", "'isl'", "-1"]),
        ("isl", [5, None], ["row 2", "'isl'", "None"]),
        ("isl", [5, 2**31], ["row 2", "'isl'", "2147483648"]),
        ("isl", ["a", "b"], ["'isl'", "type string"]),
        ("osl", [1.0, 2.5], ["row 2", "'osl'", "2.5"]),
        ("arrival_s", [0.0, float("nan")], ["row 2", "'arrival_s'", "nan"]),
        ("cached_tokens", [0, 5], ["row 2", "'cached_tokens'", "less than isl"]),
        ("priority", [0, 2**31], ["row 2", "'priority'", "2147483648"]),
    ],
)
def test_bad_parquet_values_are_found_by_row(
    tmp_path: Path, column: str, values: list, fragments: list[str]
) -> None:
    columns = {"arrival_s": [0.0, 1.0], "isl": [5, 5], "osl": [5, 5], column: values}
    parquet.write_table(pa.table(columns), tmp_path / "x")
    message = message_about(tmp_path / "x")
    for fragment in fragments:
        assert fragment in message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([AZURE, OURS, MOONCAKE]), st.booleans())
def test_damage_is_read_or_refused_but_never_crashes(
    tmp_path: Path, rng: random.Random, text: str, pack: bool
) -> None:
    content = bytearray(text.encode() * 3)
    content = bytearray(gzip.compress(content)) if pack else content
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    file = tmp_path / "damaged"
    file.write_bytes(content[: rng.randint(1, len(content))])
    complaint = str(file)
    try:
        read_trace(file)
    except InputError as error:
        complaint = str(error)
    assert complaint.startswith(str(file))
    assert "\n" not in complaint


def test_a_parquet_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x"
    parquet.write_table(pa.table({"arrival_s": [0.0], "isl": [5], "osl": [5], "abcdef": [1]}), file)
    file.write_bytes(file.read_bytes().replace(b"abcdef", b"abc\xf7ef"))
    assert "damaged or truncated Parquet" in message_about(file)


def test_a_parquet_row_far_off_is_named(tmp_path: Path) -> None:
    columns = {"arrival_s": [0.0, 1.0, 1e12], "isl": [5] * 3, "osl": [5] * 3}
    parquet.write_table(pa.table(columns), tmp_path / "x")
    assert "row 3, column 'arrival_s'" in message_about(tmp_path / "x")


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"0,1,1\n" * 1_000_000, "unpacks to more than"),
        (b"0,1,1000000\n" * 1_000, "unpacks to more than"),
        (b"x" * 3_000_000, "line 1: longer than 33554432 bytes"),
    ],
)
def test_a_gzip_of_gigabytes_is_refused_before_it_is_unpacked(
    tmp_path: Path, member: bytes, message: str
) -> None:
    # Members side by side are one file: a hundred of them cost no more to write than one.
    (tmp_path / "x.gz").write_bytes(gzip.compress(member) * (10_000 if len(member) < 100_000 else 100))
    tracemalloc.start()
    assert message in message_about(tmp_path / "x.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def test_more_rows_than_fit_a_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagescale.trace.source.MAX_ROWS", 10)
    (tmp_path / "x").write_text("arrival_s,isl,osl\n" + "0,1,1\n" * 10)
    assert "more than 10 lines" in message_about(tmp_path / "x")
    monkeypatch.setattr("sagescale.trace.readers.containers.MAX_ROWS", 10)
    parquet.write_table(pa.table(dict.fromkeys(("arrival_s", "isl", "osl"), [1] * 11)), tmp_path / "x")
    assert "11 rows; expected at most 10" in message_about(tmp_path / "x")


def test_text_repeated_in_parquet_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    # 100 GB, packed to 50 kB.
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * (1 << 20)]))
    columns = {"arrival_s": [0.0] * 100_000, "isl": same, "osl": [1] * 100_000}
    parquet.write_table(pa.table(columns), tmp_path / "x", store_schema=False)
    assert "'isl': found type string" in message_about(tmp_path / "x")
    assert pa.total_allocated_bytes() < 32 << 20


def test_a_parquet_column_twice_is_refused(tmp_path: Path) -> None:
    columns = [pa.array([0.0]), pa.array([5]), pa.array([5]), pa.array([5])]
    table = pa.Table.from_arrays(columns, names=["arrival_s", "isl", "osl", "osl"])
    parquet.write_table(table, tmp_path / "column_twice")
    assert "column 'osl' occurs twice" in message_about(tmp_path / "column_twice")
