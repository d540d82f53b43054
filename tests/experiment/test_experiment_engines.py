"""A comparison of engines: each variant on its own, one ranking, and the answer says which."""

from __future__ import annotations

import pytest
import sagescale
from experiment_world import wave
from sagescale.errors import InputError

SLOWER, FASTER = "h200-llama-3.1-8b-bf16", "h200-llama-3.1-8b-fp8"
KEYS = {"target_ttft_ms": 300.0, "target_itl_ms": 30.0, "policy": "classic"}


@pytest.fixture(scope="module")
def document():
    configs = [{**KEYS, "profile": name} for name in (SLOWER, FASTER)]
    return sagescale.compare(wave(1500), configs=configs, predictors=["constant"], jobs=1).document


def test_each_run_says_its_engines_where_they_are_not_the_first(document):
    assert document.profile.name == SLOWER
    for run in document.runs:
        of = run.config["profile"]
        assert (run.profile is None) == (of == SLOWER)
        assert run.profile is None or run.profile.name == FASTER


def test_a_run_is_what_it_is_alone(document):
    alone = sagescale.simulate(wave(1500), profile=FASTER, config=KEYS).document.runs[0]
    [run] = [one for one in document.runs if one.name == f"classic/constant profile={FASTER}"]
    assert run.sla == alone.sla
    assert run.gpu_hours == alone.gpu_hours


def test_the_answer_names_the_engines_of_its_choices_and_what_the_others_take(document):
    answer = document.answer
    assert [way.profile for way in answer.ways] == [FASTER, SLOWER]
    best, other = answer.ways
    assert best.fixed.engines == answer.fixed.engines == f"on {FASTER}"
    assert f"on {FASTER}, at most {answer.fixed.gpus} GPUs" in answer.text
    assert best.fixed.gpu_hours <= other.fixed.gpu_hours


def test_engines_named_twice_are_refused():
    with pytest.raises(InputError, match=f"profile is {FASTER} but the engines given are {SLOWER}"):
        sagescale.simulate(wave(10), profile=SLOWER, config={"profile": FASTER})
