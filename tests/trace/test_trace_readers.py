"""Every format is recognised by its content and read in its own unit."""

from __future__ import annotations

import gzip
import io
import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sagescale.errors import InputError
from sagescale.trace import LogSpec, format_names, read_trace, speed_up, write_trace
from sagescale.trace.read import read_lengths
from sagescale.trace.readers import containers
from sagescale.trace.readers.answers import GAPS
from sagescale.trace.source import Source, arrow_reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAMPLES = {
    "azure": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-11-16 18:17:03.9799600,4808,10\r\n"
        "2023-11-16 18:17:04.4799601,3180,8"
    ),
    "azure-lmm": (
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
        "2025-01-01 23:59:59.5,0,4808,10\n"
        "2025-01-02 00:00:00.0000001,0,3180,8\n"
    ),
    "burstgpt": (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,1,2.5,ChatGPT,4808,10,4818,Conversation log\n"
        "5.5000001,,,GPT-4,3180,8,3188,API log\n"
    ),
    "mooncake": (
        '{"timestamp": 27000, "input_length": 4808, "output_length": 10, "hash_ids": [1, 2]}\n'
        '{"timestamp": 27500.0001, "input_length": 3180, "output_length": 8, "hash_ids": [1]}\n'
    ),
    "qwen": (
        '{"chat_id": 1, "parent_chat_id": -1, "timestamp": 61.0, "input_length": 4808, "output_length": 10, '
        '"type": "text", "turn": 1, "hash_ids": [9]}\n'
        '{"chat_id": 2, "parent_chat_id": 1, "timestamp": 61.5000001, "input_length": 3180, '
        '"output_length": 8, "type": "text", "turn": 2, "hash_ids": []}\n'
    ),
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.25,4808,10\n0.7500001,3180,8\n",
    "splitwise-sim": (
        "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
        "0,2,0,0.25,1,4808,10\n1,2,0,0.7500001,1,3180,8\n"
    ),
    "apex": (
        '{"StartTimeOffset": 1000000000, "ContextTokens": 4808, "GeneratedTokens": 10}\n'
        '{"StartTimeOffset": 1500000100, "ContextTokens": 3180, "GeneratedTokens": 8}\n'
    ),
    "llmservingsim": (
        '{"input_toks": 4808, "output_toks": 10, "arrival_time_ns": 40000000, "input_tok_ids": [1, 2]}\n'
        '{"input_toks": 3180, "output_toks": 8, "arrival_time_ns": 540000100, "input_tok_ids": [1]}\n'
    ),
    "aibrix": (
        '{"timestamp": 7000, "requests": [{"Prompt Length": 4808, "Output Length": 10, "prompt": "a"}]}\n'
        '{"timestamp": 7500.0001, "requests": [{"prompt_length": 3180, "output_length": 8, "prompt": "b"}]}\n'
    ),
    "blis": (
        "request_id,prefix_group,prefix_length,input_tokens,output_tokens,server_input_tokens,"
        "arrival_time_us,status\n"
        "0,shared,800,4008,10,0,1000000,ok\n1,,0,3100,8,3180,1500000.1,ok\n"
    ),
    "sagescale": "arrival_s,isl,osl\n0,4808,10\n0.5000001,3180,8\n",
}


def written(folder: Path, text: str, name: str = "trace") -> Path:
    file = folder / name
    file.write_bytes(text.encode())
    return file


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_each_format_is_told_by_content_and_read_in_its_unit(tmp_path: Path, name: str, packed: bool) -> None:
    data = SAMPLES[name].encode()
    file = tmp_path / "misleading.parquet"
    file.write_bytes(gzip.compress(data) if packed else data)
    trace = read_trace(file)
    assert trace.format == name
    expected_s = 0.5000001
    assert trace.arrival_s[0] == 0
    assert trace.arrival_s[1] == pytest.approx(expected_s, abs=2e-12)
    assert trace.isl.tolist() == [4808, 3180]
    assert trace.osl.tolist() == [10, 8]
    assert trace.cached_tokens is None
    assert trace.warnings == ((GAPS,) if name == "qwen" else ())


def test_every_format_has_a_sample() -> None:
    assert {*SAMPLES, "aiperf", "kv-cache-tester", "rebuilt", "rebuilt-undated"} == set(format_names())


def test_a_trace_rebuilt_from_metrics_says_so_wherever_it_goes(tmp_path: Path) -> None:
    text = "rebuilt_arrival,isl,osl\n2026-11-21 08:00:00.250000Z,4808,10\n"
    text += "2026-11-21 08:00:01.750000Z,3180,8\n"
    trace = read_trace(written(tmp_path, text))
    assert trace.format == "rebuilt"
    assert trace.arrival_s.tolist() == [0.0, 1.5]
    assert trace.warnings[0].startswith("rebuilt from metrics")
    again = tmp_path / "again.csv"
    for changed in (trace, speed_up(trace, 3.0)):
        found = read_trace(write_trace(changed, again))
        assert found.format.startswith("rebuilt")
        assert found.warnings == trace.warnings
        assert found.started_at == changed.started_at
        assert found.duration_s == changed.duration_s


SESSION = """{
  "id": "f64a", "models": ["m"], "block_size": 64, "tool_tokens": 100,
  "requests": [
    {"t": 0.0, "type": "s", "in": 25259, "out": 86, "hash_ids": [1, 2]},
    {"type": "subagent", "requests": [{"t": 3.5, "type": "n", "in": 900, "out": 12, "hash_ids": []}]},
    {"t": 9.25, "type": "s", "in": 25900, "out": 40, "hash_ids": [1, 2, 3]}
  ]
}"""


@pytest.mark.parametrize("one_line", [False, True])
def test_a_recorded_session_is_flattened_with_its_sub_agents(tmp_path: Path, one_line: bool) -> None:
    text = json.dumps(json.loads(SESSION)) if one_line else SESSION
    trace = read_trace(written(tmp_path, text))
    assert trace.format == "kv-cache-tester"
    assert trace.arrival_s.tolist() == [0.0, 3.5, 9.25]
    assert trace.isl.tolist() == [25259, 900, 25900]
    assert trace.turns.lists(0, 3) == [[], [0], [0, 1]]
    assert "when sessions began is not recorded" in trace.warnings[-1]


def test_requests_that_failed_are_left_out_of_blis(tmp_path: Path) -> None:
    failed = SAMPLES["blis"] + "2,,0,10,10,0,1600000,timeout\n"
    trace = read_trace(written(tmp_path, failed))
    assert len(trace) == 2
    assert trace.warnings == ("left out 1 requests whose status is not ok",)


def test_an_assembled_format_names_the_request_that_is_wrong(tmp_path: Path) -> None:
    bad = SAMPLES["aibrix"].replace('"Output Length": 10', '"Output Length": null')
    with pytest.raises(InputError, match="line 1, request 1, generated tokens: found None"):
        read_trace(written(tmp_path, bad))


def test_public_formats_are_read_in_the_unit_of_each(shared: Path) -> None:
    formats = shared / "repro/14-missing-formats"
    aibrix, simulator = (
        read_trace(formats / "aibrix-workload.jsonl"),
        read_trace(formats / "llmservingsim.jsonl"),
    )
    assert aibrix.arrival_s.tolist() == [0.0, 0.0, 1.5, 6.0]
    assert aibrix.isl.tolist() == [180, 90, 400, 55]
    assert simulator.arrival_s.tolist() == [0.0, 2.0]
    assert simulator.osl.tolist() == [30, 64]


def test_seconds_under_the_keys_of_milliseconds_are_refused_until_said(shared: Path) -> None:
    file = shared / "repro/13-mooncake-seconds/seconds.jsonl"
    with pytest.raises(InputError, match=r"has fractions.*0\.642 s.*as milliseconds, 642 s.*--time-unit s"):
        read_trace(file)
    assert read_trace(file, log=LogSpec(time_unit="s")).duration_s == pytest.approx(641.7, abs=1)
    assert read_trace(file, log=LogSpec(time_unit="ms")).duration_s == pytest.approx(0.6417, abs=1e-3)


def test_whole_milliseconds_that_come_too_fast_are_doubted(tmp_path: Path) -> None:
    lines = (
        json.dumps({"timestamp": 3 * at, "input_length": 5, "output_length": 5, "hash_ids": []}) + "\n"
        for at in range(100)
    )
    (doubt,) = read_trace(written(tmp_path, "".join(lines))).warnings
    assert "comes very fast, read as milliseconds" in doubt


def test_lengths_may_come_without_arrivals(shared: Path) -> None:
    ours = read_lengths(shared / "repro/15-lengths-without-arrivals/lengths.csv")
    assert (ours.isl.tolist(), ours.osl.tolist()) == ([100, 200], [20, 30])
    vidur = read_lengths(shared / "repro/15-lengths-without-arrivals/vidur-lengths.csv")
    assert vidur.isl.tolist() == [3000, 2000, 900]


def test_lengths_under_usual_names_are_found(tmp_path: Path) -> None:
    found = read_lengths(written(tmp_path, "id,prompt_tokens,completion_tokens\n1,5,7\n2,9,0\n"))
    assert (found.isl.tolist(), found.osl.tolist()) == ([5], [7])
    with pytest.raises(InputError, match="no lengths to draw from"):
        read_lengths(written(tmp_path, "id,a,b\n1,5,7\n"))


def test_ticks_of_100_ns_are_subtracted_exactly(tmp_path: Path) -> None:
    # 1.7e9 s since 1970 in a double is 2.4e-7 s off; the difference of whole ticks is not.
    trace = read_trace(written(tmp_path, SAMPLES["azure"]))
    assert trace.arrival_s[1] == 0.5000001


def test_azure_2024_carries_a_zone_and_leaves_out_zero_fractions(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.009930+00:00,2162,5\n"
        "2024-05-10 00:00:05+00:00,2399,6\n"
    )
    assert read_trace(written(tmp_path, text)).arrival_s.tolist() == [0, 4.99007]


def test_first_release_of_burstgpt_has_fewer_columns(tmp_path: Path) -> None:
    text = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,1,2,3,API log\n"
    assert read_trace(written(tmp_path, text)).format == "burstgpt"


def test_failed_burstgpt_requests_are_dropped_and_counted(tmp_path: Path) -> None:
    text = (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "1,,,GPT-4,7,0,7,API log\n2,,,GPT-4,7,5,12,API log\n"
        "3,,,GPT-4,7,0,7,API log\n4,,,GPT-4,8,6,14,API log\n"
    )
    trace = read_trace(written(tmp_path, text))
    assert trace.arrival_s.tolist() == [0, 2]
    assert trace.warnings == ("dropped 2 failed requests (0 response tokens) of 4 rows",)


def test_requests_without_prompt_or_output_are_dropped_and_counted(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "arrival_s,isl,osl\n0,0,5\n1,5,0\n2,0,0\n3,5,5\n"))
    assert len(trace) == 1
    assert trace.warnings == (
        "dropped 2 requests that generated nothing of 4 rows",
        "dropped 1 requests with an empty prompt of 4 rows",
    )


def test_images_are_left_out_and_counted(tmp_path: Path) -> None:
    text = SAMPLES["azure-lmm"].replace(".5,0,", ".5,3,")
    assert read_trace(written(tmp_path, text)).warnings == (
        "1 requests carry 3 images: encoding them is not modelled",
    )


def test_arrivals_out_of_order_are_sorted_stably_with_a_warning(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "arrival_s,isl,osl\n9,1,1\n5,2,2\n9,3,3\n"))
    assert trace.arrival_s.tolist() == [0, 4, 4]
    assert trace.isl.tolist() == [2, 1, 3]
    assert trace.warnings == ("arrivals out of order: 1 rows earlier than the row before; sorted",)


def test_cached_tokens_are_read_from_sagescale_files(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "isl,cached_tokens,arrival_s,osl\n10,9,0,1\n10,0,1,1\n"))
    assert trace.cached_tokens is not None
    assert trace.cached_tokens.tolist() == [9, 0]


def test_priorities_are_read_from_sagescale_files_and_stay_with_their_requests(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "arrival_s,isl,osl,priority\n1,10,1,-3\n0,20,1,2\n0,0,1,7\n"))
    assert trace.priority is not None
    assert list(zip(trace.isl.tolist(), trace.priority.tolist(), strict=True)) == [(20, 2), (10, -3)]


def test_columns_not_used_are_named(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "arrival_s,isl,osl,cached_token\n0,10,1,5\n"))
    assert trace.warnings == ("column 'cached_token' is not used",)


def test_byte_order_mark_blank_lines_quotes_and_blanks_do_no_harm(tmp_path: Path) -> None:
    text = '\ufeff\n"arrival_s", isl ,osl\n\n 0 ,"10", 5\n\n1.5,20.0,6\n\n'
    trace = read_trace(written(tmp_path, text))
    assert trace.arrival_s.tolist() == [0, 1.5]
    assert trace.isl.tolist() == [10, 20]


@pytest.mark.parametrize(
    "keys",
    ["", ', "chat_id": 1', ', "hash_ids": [1], "turn": 1'],
    ids=["no hashes", "one chat key", "hashes and a chat key"],
)
def test_ms_or_s_is_never_guessed(tmp_path: Path, keys: str) -> None:
    file = written(tmp_path, '{"timestamp": 1, "input_length": 2, "output_length": 3' + keys + "}\n")
    with pytest.raises(InputError, match=r"ambiguous, could be mooncake .*ms.* or qwen .*s.*--format"):
        read_trace(file)


@pytest.mark.parametrize(("name", "seconds"), [("mooncake", 0.5), ("qwen", 500.0)])
def test_naming_the_format_settles_an_ambiguity(tmp_path: Path, name: str, seconds: float) -> None:
    rows = (f'{{"timestamp": {t}, "input_length": 2, "output_length": 3}}\n' for t in (100, 600))
    assert read_trace(written(tmp_path, "".join(rows)), format=name).duration_s == seconds


def test_a_file_with_the_columns_of_two_formats_is_ambiguous(tmp_path: Path) -> None:
    file = written(
        tmp_path, "arrival_s,isl,osl,arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1,0,1,1\n"
    )
    with pytest.raises(InputError, match=r"ambiguous, could be sagescale .* or vidur"):
        read_trace(file)


@pytest.mark.parametrize("token_type", [pa.int16(), pa.int64(), pa.float64()], ids=str)
@pytest.mark.parametrize("time_type", [pa.int32(), pa.float32(), pa.float64()], ids=str)
def test_parquet_of_any_numeric_type(tmp_path: Path, token_type: pa.DataType, time_type: pa.DataType) -> None:
    tokens = pa.array([5, 6]).cast(token_type)
    table = pa.table({"osl": tokens, "isl": tokens, "arrival_s": pa.array([1, 3]).cast(time_type)})
    parquet.write_table(table, tmp_path / "x")
    trace = read_trace(tmp_path / "x")
    assert trace.arrival_s.tolist() == [0, 2]
    assert trace.isl.tolist() == [5, 6]


def test_long_lines_of_prefix_hashes(tmp_path: Path) -> None:
    hashes = list(range(1_100_000))
    line = f'{{"timestamp": 1, "input_length": 563200000, "output_length": 3, "hash_ids": {hashes}}}\n'
    assert len(read_trace(written(tmp_path, line))) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("block_bytes", [1, 2, 7, 1 << 20])
def test_where_blocks_of_a_csv_file_end_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, block_bytes: int
) -> None:
    monkeypatch.setattr(containers, "_CSV_BLOCK_BYTES", block_bytes)
    lines = ["", "", "arrival_s,isl,osl", "0,4808,10", "", "0.5,3180,8", "0.75,7,1"]
    trace = read_trace(written(tmp_path, end.join(lines)))
    assert (trace.arrival_s.tolist(), trace.isl.tolist()) == ([0.0, 0.5, 0.75], [4808, 3180, 7])


@pytest.mark.parametrize("name", ["sagescale", "mooncake"], ids=["csv", "jsonl"])
def test_no_thread_of_arrow_reads_a_file_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # A refusal ends the process right after the reading, and Arrow's thread would abort it.
    opened, threads = Source.open, set()

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            threads.add(threading.get_ident())
            return super().read(size)

    @contextmanager
    def watched(source: Source) -> Iterator[io.BytesIO]:
        with opened(source) as stream:
            yield Watched(stream.read())

    monkeypatch.setattr(Source, "open", watched)
    read_trace(written(tmp_path, SAMPLES[name]))
    assert threads == {threading.get_ident()}


def test_arrow_reads_bytes_from_a_copy_of_its_own() -> None:
    data = bytearray(b"0,1,2")
    reader = arrow_reader(data)
    data.clear()  # Python refuses while something else looks at it
    assert reader.read() == b"0,1,2"


def test_a_shipped_trace_is_read_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(read_trace("steady")) > 1000


def test_sha256_is_of_the_file_as_it_lies_on_disk(tmp_path: Path) -> None:
    import hashlib

    packed = gzip.compress(SAMPLES["vidur"].encode())
    (tmp_path / "x").write_bytes(packed)
    assert read_trace(tmp_path / "x").sha256 == hashlib.sha256(packed).hexdigest()


@pytest.mark.parametrize(
    ("file", "form", "requests", "duration_s"),
    [
        ("azure_llm_2023_conv.csv", "azure", 19_366, 3501.721937),
        ("azure_llm_2023_code.csv", "azure", 8_819, 3435.948056),
        ("mooncake_synthetic.jsonl", "mooncake", 3_993, 1022.025),
        ("servegen_m-large_2d.parquet", "sagescale", 1_714_377, 172_799.484),
    ],
)
def test_real_traces(shared: Path, file: str, form: str, requests: int, duration_s: float) -> None:
    trace = read_trace(shared / "traces" / file)
    assert (trace.format, len(trace), trace.warnings) == (form, requests, ())
    assert trace.duration_s == pytest.approx(duration_s, abs=1e-3)


def test_a_million_azure_rows_load_exactly(tmp_path: Path) -> None:
    n = 1_000_000
    ticks = np.sort(np.random.default_rng(0).integers(0, 36_000_000_000, n)) + 17_001_000_000_000_000
    stamps = pa.array(ticks * 100).cast(pa.timestamp("ns")).cast(pa.string()).to_pylist()
    # 100 ns ticks: seven decimals, as Azure writes them.
    rows = "\r\n".join(f"{stamp[:27]},1024,128" for stamp in stamps)
    file = written(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\r\n" + rows)
    trace = read_trace(file)
    assert np.array_equal(trace.arrival_s, (ticks - ticks[0]) / 1e7)


def test_a_csv_file_may_have_cells_of_megabytes_and_of_many_lines(tmp_path):
    path = tmp_path / "log.csv"
    for text in ("x" * 3_000_000, "a\nb" * 700_000):
        path.write_text(f'arrival_s,isl,osl,prompt\n0,5,6,"{text}"\n1,7,8,y\n')
        assert read_trace(path).isl.tolist() == [5, 7]
