"""Mixed steps from measurements to a profile: what is known comes back, what is impossible is refused."""

from __future__ import annotations

import json
import random

import pytest
from sagescale.cli.profile import profile_app
from sagescale.errors import InputError
from sagescale.perf import ImportOptions, ProfileModel, build_profile, read_profile, read_sources
from typer.testing import CliRunner


def decode_ms(n: int, kv: int) -> float:
    return 6.0 + 0.02 * n + 5e-5 * kv


def mixed_ms(n: int, kv: int, longest: int, chunks: list[tuple[int, int]]) -> float:
    tokens = n + sum(c for c, _ in chunks)
    reach = max(longest, *(c + p for c, p in chunks))
    pairs = sum(1e-6 * c * p + 1.5e-6 * c * c / 2 for c, p in chunks)
    return max(9.0, 3.0 + 0.03 * tokens) + 0.04 * n + 2e-4 * kv + pairs + 6e-4 * reach


def row(n: int, contexts: list[int], chunks: list[tuple[int, int]], ms: float) -> dict:
    return {
        "kind": "step",
        "decode": n,
        "kv_tokens": sum(contexts),
        "longest": max(contexts, default=0),
        "chunks": [{"prefix": p, "tokens": c} for c, p in chunks],
        "ms": [ms, ms, ms],
    }


def rows(seed: int = 1) -> list[dict]:
    """Steps of an engine that is exactly of the form, unequal contexts costing 0.001 ms a token from 8 on."""
    draw = random.Random(seed)
    found = [
        row(n, [context] * n, [], decode_ms(n, n * context))
        for n in (1, 8, 32, 64)
        for context in (64, 512, 2048)
    ]
    for n in (4, 8, 32, 64):
        for _ in range(4):
            contexts = [draw.randint(50, 3000) for _ in range(n)]
            spread = 0.001 if n >= 8 else 0.0
            extra = spread * (n * max(contexts) - sum(contexts)) / n
            found.append(row(n, contexts, [], decode_ms(n, sum(contexts)) + extra))
    found += [row(0, [], [(c, 0)], mixed_ms(0, 0, 0, [(c, 0)])) for c in (16, 128, 200, 512, 1024, 2048)]
    for _ in range(300):
        n = draw.choice([0, 1, 8, 32, 64])
        contexts = [draw.randint(50, 3000) for _ in range(n)]
        sizes = [
            draw.choice([16, 64, 128, 200, 256, 400, 512, 1024, 2048]) for _ in range(draw.randint(1, 3))
        ]
        chunks = [(c, draw.choice([0, 512, 4096])) for c in sizes]
        found.append(row(n, contexts, chunks, mixed_ms(n, sum(contexts), max(contexts, default=0), chunks)))
    return found


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "steps.json"
    path.write_text(json.dumps(rows()))
    return path


def made(path, **options):
    return build_profile(read_sources([path]), ImportOptions(**options))


def test_an_engine_of_the_form_is_found_again(source):
    profile = made(source, max_num_seqs=64)
    steps = ProfileModel(profile).step_model()
    assert not steps.estimated
    assert steps.kv_ms == pytest.approx(2e-4, rel=0.02)
    assert steps.cross_ms == pytest.approx(1e-6, rel=0.05)
    assert steps.longest_ms == pytest.approx(6e-4, rel=0.1)
    for n, contexts, chunks in ((0, [], [(700, 0)]), (16, [800] * 16, [(300, 1000), (100, 0)])):
        expected = mixed_ms(n, sum(contexts), max(contexts, default=0), chunks)
        found = steps.step_ms(n, sum(contexts), max(contexts, default=0), chunks)
        assert found == pytest.approx(expected, rel=0.03)
    assert steps.step_ms(32, 32 * 700, 700) == pytest.approx(decode_ms(32, 32 * 700), rel=0.01)


def test_unequal_contexts_cost_what_was_measured(source):
    profile = made(source, max_num_seqs=64)
    for pool in (profile.decode, profile.aggregated):
        assert pool.spread_requests == (4.0, 8.0, 32.0, 64.0)
        assert pool.spread_ms == pytest.approx((0.0, 0.001, 0.001, 0.001), abs=3e-5)


def test_errors_are_told_by_kind_and_for_points_left_out(source):
    errors = {each.kind: each for each in made(source, max_num_seqs=64).aggregated.step_errors}
    assert {"one chunk alone", "several chunks and decodes", "all with chunks"} < errors.keys()
    assert errors["all with chunks"].fitted.n == 299
    assert errors["all with chunks"].left_out.n == 75
    assert errors["all with chunks"].left_out.median < 0.02
    assert errors["the same, taken as equal"].left_out is None


def test_pools_of_their_own_are_what_the_instance_did_alone(source):
    model = ProfileModel(made(source, max_num_seqs=64))
    assert model.ttft_ms(1024) == pytest.approx(mixed_ms(0, 0, 0, [(1024, 0)]), rel=1e-3)
    assert model.itl_ms(8, 512) == pytest.approx(decode_ms(8, 8 * 512), rel=1e-3)


def test_the_command_shows_the_errors_and_writes_v2(source, tmp_path):
    out = tmp_path / "p.yaml"
    words = ["import", str(source), "--max-num-seqs", "64", "--max-batched-tokens", "1024", "--out", str(out)]
    shown = CliRunner().invoke(profile_app, words, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "steps (all with chunks) error over 299 points: median" in shown.output
    assert "steps (all with chunks) error over 75 points left out of a fit: median" in shown.output
    profile = read_profile(out)
    assert profile.aggregated.max_batched_tokens == 1024
    assert "--max-batched-tokens 1024" in profile.source.command
    for words in (["show", str(out)], ["validate", str(out)]):
        shown = CliRunner().invoke(profile_app, words, catch_exceptions=False)
        assert shown.exit_code == 0
        assert "steps with chunks" in shown.output or "step with chunks" in shown.output


def test_few_steps_with_chunks_are_refused(tmp_path):
    few = tmp_path / "few.json"
    few.write_text(json.dumps(rows()[:40]))
    with pytest.raises(InputError, match=r"few.json: 12 steps with prompt chunks \(expected at least 20\)"):
        made(few)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"kv_tokens": 5000},
            "kv_tokens: 5000 (expected 2 decoding requests' tokens, of which the longest has 90",
        ),
        ({"longest": -1}, "longest: -1 (expected a whole number from 0 to"),
        ({"decode": 1.5}, "decode: 1.5 (expected a whole number from 0"),
        ({"chunks": None}, "chunks: missing (expected a list of chunks"),
        ({"chunks": [{"tokens": 0, "prefix": 3}]}, "chunks[0].tokens: 0 (expected a whole number >= 1)"),
        ({"chunks": [{"tokens": 5}]}, "chunks[0].prefix: missing (expected a whole number from 0"),
        (
            {"chunks": [{"tokens": 5, "prefix": 0, "size": 1}]},
            "chunks[0].size: 1 (expected only prefix, tokens",
        ),
        ({"chunk": 1}, "chunk: 1 (expected only decode, kv_tokens, longest, chunks, ms in a step row)"),
        ({"decode": 0, "kv_tokens": 0, "longest": 0, "chunks": []}, "chunks: [] (expected a list of chunks"),
    ],
)
def test_an_impossible_step_is_refused_with_its_row(tmp_path, change, expected):
    path = tmp_path / "bad.json"
    good = row(2, [80, 90], [(16, 0)], 9.0)
    path.write_text(json.dumps([good, good | change]))
    with pytest.raises(InputError) as error:
        read_sources([path])
    assert f"{path}: row 1: {expected}" in str(error.value)


def test_aggregated_serving_is_estimated_from_a_profile_of_pools(tmp_path):
    out = tmp_path / "e.yaml"
    words = ["estimate", "--aggregated-from", "h200-llama-3.1-8b-bf16", "--out", str(out)]
    shown = CliRunner().invoke(profile_app, words, catch_exceptions=False)
    assert "aggregated: estimated from prefill and decode, not measured" in shown.output
    assert read_profile(out).aggregated.estimated
    checked = CliRunner().invoke(profile_app, ["validate", str(out), "--serving", "aggregated"])
    assert checked.exit_code == 0
    assert "estimated from" in checked.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--gpu", "h200"], "--model: missing (expected --model and --gpu, or --aggregated-from PROFILE)"),
        (["--aggregated-from", "h200-llama-3.1-8b-fp8", "--gpu", "h200"], "leave out --gpu"),
        (["--aggregated-from", "h100-llama-3.1-8b-bf16-agg"], "has a measured aggregated section"),
    ],
)
def test_an_estimate_of_nothing_or_two_things_is_refused(tmp_path, words, expected):
    with pytest.raises(InputError) as error:
        CliRunner().invoke(
            profile_app, ["estimate", *words, "--out", str(tmp_path / "x.yaml")], catch_exceptions=False
        )
    assert expected in str(error.value)
