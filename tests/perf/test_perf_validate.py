"""A profile is fit or unfit for stated reasons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from perf_builders import built
from sagescale.perf import list_profiles, load_profile
from sagescale.perf.catalogue import GPUS, MODELS
from sagescale.perf.profile import FitError
from sagescale.perf.roofline import estimate_profile
from sagescale.perf.validate import Traffic, Verdict, validate_profile


def good(**options):
    return built(lambda n: 10 + 0.02 * n, lambda n, c: 5 + 0.1 * n + 1e-5 * n * c, **options)


def traffic(isl, osl, cached=0):
    isl, osl = np.array(isl, dtype=np.int32), np.array(osl, dtype=np.int32)
    return Traffic(isl, isl - np.int32(cached), osl)


def verdicts(profile, seen=None):
    return {check.what: check.verdict for check in validate_profile(profile, seen)}


def unfit(profile, seen=None):
    return [check for check in validate_profile(profile, seen) if check.verdict is Verdict.UNFIT]


def test_noiseless_measurements_are_fit():
    assert unfit(good()) == []


@pytest.mark.parametrize("name", list_profiles())
def test_every_shipped_profile_is_fit(name):
    assert unfit(load_profile(name)) == []


def test_an_estimate_is_unfit_because_nothing_was_measured():
    found = unfit(estimate_profile(MODELS["Llama-3.1-8B"], GPUS["h200"]))
    assert "prompt lengths measured alone" in {check.what for check in found}


def test_a_bad_fit_is_unfit():
    profile = good()
    bad = FitError(n=9, median=0.02, p90=0.2, max=0.5)
    assert (
        verdicts(replace(profile, decode=replace(profile.decode, fit_error=bad)))["decode fit error"]
        == "unfit"
    )
    bad = FitError(n=9, median=0.12, p90=0.2, max=0.5)
    changed = replace(profile, prefill=replace(profile.prefill, batch_error=bad))
    (check,) = unfit(changed)
    assert check.found == "median 12.0% over 9"
    assert check.needed == "at most 10%"


def test_measurements_that_fall_with_load_are_unfit():
    noise = {1: 1.0, 8: 0.6, 40: 1.3, 128: 0.5}
    profile = built(lambda n: 10 + 0.02 * n, lambda n, c: (5 + 0.1 * n) * noise[n])
    assert verdicts(profile)["ITL over concurrency never falls"] is Verdict.UNFIT


def test_repeats_that_disagree_are_unfit():
    profile = good()
    rows = profile.prefill.measured
    twice = replace(
        rows,
        isl_tokens=rows.isl_tokens * 2,
        batch=rows.batch * 2,
        ttft_ms=rows.ttft_ms + tuple(1.3 * ms for ms in rows.ttft_ms),
    )
    noisy = replace(profile, prefill=replace(profile.prefill, measured=twice))
    assert verdicts(noisy)["spread of repeated points"] is Verdict.UNFIT
    assert verdicts(profile)["spread of repeated points"] is Verdict.NOTE


def test_assumed_limits_are_notes():
    assert verdicts(good())["limit assumed"] is Verdict.NOTE


class TestCoverage:
    """Measured are prompts of 100 to 7000 tokens and contexts of 300 to 4000."""

    def test_traffic_inside_is_fit(self):
        assert unfit(good(), traffic([500, 1500], [100, 200])) == []

    def test_prompts_outside_count_by_the_time_they_take(self):
        # 50 of 1000 prompts are short, and hardly any of the time.
        short = traffic([50] * 50 + [3000] * 950, [10] * 1000)
        assert unfit(good(), short) == []
        long_ = traffic([3000] * 950 + [20_000] * 50, [1] * 1000)
        (check,) = unfit(good(), long_)
        assert check.what == "prefill time of prompts outside 100..7000 tokens"
        assert check.found == "23.6% (5.0% of requests)"

    def test_cached_tokens_are_not_prefilled(self):
        seen = traffic([8000] * 10, [1] * 10, cached=6000)
        assert "prefill" not in " ".join(check.what for check in unfit(good(), seen))

    def test_output_tokens_are_counted_one_by_one(self):
        # Contexts run from 101 to 500: 199 of 400 lie below 300.
        (check,) = unfit(good(), traffic([100], [400]))
        assert check.found == "49.8% below, 0.0% above"

    def test_the_average_context_must_have_been_measured(self):
        found = {check.what: check.found for check in unfit(good(), traffic([5000], [100]))}
        assert found["context of the average output token"] == "5050"

    def test_a_request_larger_than_the_memory_is_never_served(self):
        profile = good().with_limits(max_kv_tokens=2000)
        found = {check.what for check in unfit(profile, traffic([1900, 500], [200, 100]))}
        assert found == {"KV tokens of the longest request"}
