"""Prefix ids in files: read from every format that has them, written, and refused where they cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from sagescale.cli.trace import trace_app
from sagescale.errors import InputError
from sagescale.trace import (
    LogSpec,
    Prefixes,
    Trace,
    TransformSpec,
    apply_transforms,
    describe,
    parse_columns,
    parse_shared_ids,
    parse_where,
    read_trace,
    write_trace,
)
from sagescale.trace.prefix_builder import PrefixBuilder
from trace_strategies import id_lists, same_columns, traces
from typer.testing import CliRunner


def lists(trace: Trace) -> list[list[int]]:
    return [trace.prefixes.lists(row, row + 1).tolist() for row in range(len(trace))]


def written(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def mooncake(path, ids, block=512, **more) -> str:
    rows = [
        {"timestamp": 10 * at, "input_length": max(1, len(one) * block), "output_length": 2, "hash_ids": one}
        for at, one in enumerate(ids)
    ]
    return written(path, [row | more for row in rows])


@given(id_lists(max_size=40), st.integers(1, 39))
def test_a_tree_grown_in_parts_is_the_tree_of_all(ids, cut):
    builder = PrefixBuilder(16, "x.jsonl")
    leaves = []
    for part in (ids[:cut], ids[cut:]):
        offsets = np.cumsum([0, *map(len, part)]).astype(np.int64)
        leaves.append(builder.add(offsets, np.array([name for one in part for name in one], np.int64)))
    found, plain = builder.finish(np.concatenate(leaves)), Prefixes.of(ids, 16)
    for name in ("leaf", "parent", "unit", "depth", "ids"):
        assert np.array_equal(getattr(found, name), getattr(plain, name))
    assert found.lists(0, len(ids)).tolist() == [name for one in ids for name in one]


def test_it_grows_beyond_its_first_room():
    rng = np.random.default_rng(0)
    ids = [rng.integers(-(2**63), 2**63 - 1, 700).tolist() for _ in range(20)]
    builder = PrefixBuilder(16, "x.jsonl")
    offsets = np.arange(0, 14_001, 700)
    found = builder.finish(builder.add(offsets, np.array(ids, np.int64).ravel()))
    assert found.lists(0, 20).tolist() == [name for one in ids for name in one]
    assert np.array_equal(found.parent, Prefixes.of(ids, 16).parent)


@given(trace=traces(hashed=True))
def test_a_parquet_file_gives_back_its_prefix_ids(tmp_path_factory, trace):
    path = tmp_path_factory.mktemp("ids") / "trace.parquet"
    write_trace(trace, path)
    assert same_columns(read_trace(path), trace)


def test_mooncake_has_blocks_of_512_and_qwen_of_16(tmp_path):
    ids = [[7, 8], [7, 9, 10], []]
    found = read_trace(mooncake(tmp_path / "a.jsonl", ids))
    assert (lists(found), found.prefixes.block_tokens) == (ids, 512)
    chat = {"chat_id": 1, "parent_chat_id": -1, "type": "text", "turn": 1}
    found = read_trace(mooncake(tmp_path / "b.jsonl", ids, 16, **chat))
    assert (lists(found), found.prefixes.block_tokens) == (ids, 16)


def test_blocks_of_another_size_are_said(tmp_path):
    path = mooncake(tmp_path / "a.jsonl", [[1, 2], [1, 2, 3]] * 50, 64)
    with pytest.raises(
        InputError, match=r"line 1, column 'hash_ids': found 2 ids for 128 .*at most 1 of 512"
    ):
        read_trace(path)
    found = read_trace(path, log=LogSpec(hash_block_tokens=64))
    assert found.prefixes.block_tokens == 64
    said = read_trace(path, log=LogSpec(hash_block_tokens=32)).warnings
    assert not any("cover" in line for line in said)
    warned = read_trace(mooncake(tmp_path / "b.jsonl", [[1, 2], [1, 2, 3]] * 50, 1024)).warnings
    assert any("cover 50% of their prompts' tokens" in line for line in warned)


def test_token_ids_become_ids_of_full_blocks(tmp_path):
    prompts = [list(range(40)), [*range(32), 99, 98], [*range(16), *range(16)], list(range(15))]
    rows = [
        {"arrival_time_ns": at, "input_toks": len(one), "output_toks": 3, "input_tok_ids": one}
        for at, one in enumerate(prompts)
    ]
    path = written(tmp_path / "sim.jsonl", rows)
    found = read_trace(path)
    assert found.prefixes.counts.tolist() == [2, 2, 2, 0]
    unit = {name: number for number, name in enumerate(found.prefixes.ids.tolist())}
    units = [[unit[name] for name in names] for names in lists(found)]
    # The second block of the third prompt has the tokens of the first, and is another.
    assert units == [[0, 1], [0, 1], [0, 2], []]
    chosen = read_trace(path, log=LogSpec(where=parse_where(["output_toks=3"])))
    assert same_columns(chosen, found)


def test_a_log_names_its_column_of_ids(tmp_path):
    ids = [[5, 6], [5, 7], [8]]
    rows = [{"at": at / 10, "p": 32, "c": 1, "blocks": one} for at, one in enumerate(ids)]
    path = written(tmp_path / "log.jsonl", rows)
    columns = parse_columns(["arrival=at,isl=p,osl=c,hash_ids=blocks"])
    with pytest.raises(InputError, match="--hash-block-tokens N"):
        read_trace(path, log=LogSpec(columns))
    assert lists(read_trace(path, log=LogSpec(columns, hash_block_tokens=16))) == ids
    text = "at,p,c,blocks\n" + "".join(f'{at},32,1,"{one}"\n' for at, one in enumerate(ids))
    (tmp_path / "log.csv").write_text(text)
    spec = LogSpec(columns, time_unit="s", hash_block_tokens=16)
    assert lists(read_trace(tmp_path / "log.csv", log=spec)) == ids
    with pytest.raises(InputError, match="have more blocks than blocks of 32 tokens"):
        read_trace(path, log=LogSpec(columns, hash_block_tokens=32))


def test_rows_chosen_from_a_known_format_keep_their_ids(tmp_path):
    path = mooncake(tmp_path / "a.jsonl", [[1, 2], [3]], model="a")
    chosen = read_trace(path, log=LogSpec(where=parse_where(["model=a"])))
    assert lists(chosen) == [[1, 2], [3]]
    assert chosen.prefixes.block_tokens == 512
    (tmp_path / "own.csv").write_text("arrival_s,isl,osl\n0,5,5\n1,6,6\n")
    assert len(read_trace(tmp_path / "own.csv", log=LogSpec(where=parse_where(["isl=5"])))) == 1


def test_ids_of_several_files_are_one_set(tmp_path):
    first, second = mooncake(tmp_path / "1.jsonl", [[1, 2]]), mooncake(tmp_path / "2.jsonl", [[1, 3]])
    found = read_trace([first, second])
    assert len(found.prefixes.ids) == 3
    assert found.prefixes.hits().tolist() == [0, 1]


def test_a_column_says_the_block_where_the_schema_does_not(tmp_path):
    path = tmp_path / "own.parquet"
    columns = {"arrival_s": [0.0, 1.0], "isl": [64, 64], "osl": [1, 1], "hash_ids": [[1, 2], None]}
    parquet.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match="does not say how many tokens"):
        read_trace(path)
    parquet.write_table(pa.table(columns | {"hash_block_tokens": [32, 32]}), path)
    found = read_trace(path)
    assert lists(found) == [[1, 2], []]
    assert found.warnings == ()
    with pytest.raises(InputError, match="of 32 tokens, and --hash-block-tokens 16; expected one"):
        read_trace(path, log=LogSpec(hash_block_tokens=16))
    parquet.write_table(pa.table(columns | {"hash_block_tokens": [32, 16]}), path)
    with pytest.raises(InputError, match="row 2, column 'hash_block_tokens': found 16"):
        read_trace(path)


@pytest.mark.parametrize("bad", ["x", [1, "x"], [1.5], [None], [2**63], {"a": 1}, [[1]]])
def test_what_are_no_ids_is_refused_by_line(tmp_path, bad):
    path = mooncake(tmp_path / "a.jsonl", [[1], [2]])
    row = {"timestamp": 20, "input_length": 9, "output_length": 2, "hash_ids": bad}
    Path(path).write_text(Path(path).read_text() + json.dumps(row) + "\n")
    with pytest.raises(
        InputError, match=r"line 3, column 'hash_ids': found .* expected a list of whole numbers"
    ):
        read_trace(path)


def test_large_unsigned_ids_in_parquet_are_refused_by_row(tmp_path):
    path = tmp_path / "own.parquet"
    ids = pa.array([[1], [2**63]], pa.list_(pa.uint64()))
    columns = {"arrival_s": [0.0, 1.0], "isl": [64, 64], "osl": [1, 1], "hash_ids": ids}
    parquet.write_table(pa.table(columns).replace_schema_metadata({"hash_block_tokens": "64"}), path)
    with pytest.raises(InputError, match="row 2, column 'hash_ids'"):
        read_trace(path)


def test_block_tokens_of_a_trace_without_ids_are_refused(tmp_path):
    (tmp_path / "own.csv").write_text("arrival_s,isl,osl\n0,5,5\n1,6,6\n")
    with pytest.raises(InputError, match=r"--hash-block-tokens 16: .* no prefix ids"):
        read_trace(tmp_path / "own.csv", log=LogSpec(hash_block_tokens=16))


def test_shared_ids_stay_the_same_in_copies_of_copies(tmp_path):
    trace = Trace.from_arrays([0, 1], [64, 64], [1, 1], prefixes=Prefixes.of([[0, 1], [0, 2]], 32))
    # A range wider than the ids: names that copies get later are not among them.
    spec = TransformSpec(rate_scale=2, tile=2, jitter_s=0, shared_ids=parse_shared_ids("0:1"))
    found = lists(apply_transforms(trace, spec))
    assert [one[0] for one in found] == [0] * 8
    assert len({one[1] for one in found}) == 8
    (tmp_path / "ids").write_text("0\n5, 6 7\n")
    assert parse_shared_ids(str(tmp_path / "ids")) == ((0, 1), (5, 8))
    wide = TransformSpec(rate_scale=2, tile=2, jitter_s=0, shared_ids=((0, 1), (2, 100)))
    found = lists(apply_transforms(trace, wide))
    assert len({one[1] for one in found}) == 1 + 4


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TransformSpec(tile=2, shared_ids=((9, 10),)), "none of them is in the trace"),
        (TransformSpec(shared_ids=((0, 1),)), "nothing is copied"),
    ],
)
def test_shared_ids_that_change_nothing_are_refused(spec, words):
    trace = Trace.from_arrays([0, 1], [64, 64], [1, 1], prefixes=Prefixes.of([[0, 1], [0, 2]], 32))
    with pytest.raises(InputError, match=words):
        apply_transforms(trace, spec)
    plain = Trace.from_arrays([0, 1], [64, 64], [1, 1])
    with pytest.raises(InputError, match="no prefix ids"):
        apply_transforms(plain, spec)


@pytest.mark.parametrize("text", ["5:5", "7:3", "nowhere", ":"])
def test_what_names_no_ids_is_refused(text):
    with pytest.raises(InputError, match="--shared-ids"):
        parse_shared_ids(text)


def test_a_file_of_ids_holds_numbers(tmp_path):
    (tmp_path / "ids").write_text("1\nx\n")
    with pytest.raises(InputError, match="line 2: found 'x'"):
        parse_shared_ids(str(tmp_path / "ids"))


def test_the_share_that_a_cache_without_end_finds_is_that_of_the_plain_rule(shared):
    path = shared / "traces" / "mooncake_synthetic.jsonl"
    trace = read_trace(path)
    seen: set[int] = set()
    hit = total = 0
    for row in map(json.loads, path.read_text().splitlines()):
        leading = next(
            (n for n, name in enumerate(row["hash_ids"]) if name not in seen), len(row["hash_ids"])
        )
        seen.update(row["hash_ids"])
        hit += min(leading * 512, (row["input_length"] - 1) // 16 * 16)
        total += row["input_length"]
    found = describe(trace).prefixes
    assert found.hit_share == hit / total
    assert round(found.hit_share, 5) == 0.65121
    assert found.distinct_ids == len(seen)


def run(*words: str):
    result = CliRunner().invoke(trace_app, words[1:])
    assert result.exit_code == 0, result.output
    return result


def test_csv_says_that_it_loses_them(tmp_path):
    path = mooncake(tmp_path / "a.jsonl", [[1], [2]])
    done = run("trace", "convert", path, "--out", str(tmp_path / "a.csv"))
    assert "without prefix ids" in done.stderr
    done = run("trace", "convert", path, "--out", str(tmp_path / "a.parquet"))
    assert done.stderr == ""
    done = run("trace", "info", str(tmp_path / "a.parquet"), "--json")
    assert json.loads(done.stdout)["prefixes"]["hit_share"] == 0


def test_beginnings_are_made_into_parquet_only(tmp_path):
    line = [
        "synth",
        "--pattern",
        "steady",
        "--duration-s",
        "100",
        "--rps",
        "5",
        "--isl",
        "constant:99",
        "--osl",
        "constant:5",
    ]
    made = tmp_path / "made.parquet"
    assert (
        run("trace", *line, "--prefix-groups", "3", "--prefix-tokens", "64", "--out", str(made)).stderr == ""
    )
    assert len(read_trace(made).prefixes.ids) == 12
    for options in (["--prefix-groups", "3"], ["--prefix-tokens", "64"]):
        result = CliRunner().invoke(trace_app, [*line, *options, "--out", str(made)])
        assert "needs --prefix-" in str(result.exception)
    both = ["--prefix-groups", "3", "--prefix-tokens", "64"]
    result = CliRunner().invoke(trace_app, [*line, *both, "--out", str(tmp_path / "made.csv")])
    assert "expected a name ending in .parquet" in str(result.exception)


def test_more_blocks_than_memory_is_meant_for_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("sagescale.trace.prefix_builder.MOST_NODES", 4096)
    path = mooncake(tmp_path / "a.jsonl", [list(range(3000)), list(range(3000, 6000))])
    with pytest.raises(InputError, match=r"a\.jsonl: more than 4096 blocks of 512 tokens"):
        read_trace(path)
