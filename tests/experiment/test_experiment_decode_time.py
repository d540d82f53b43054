"""What decode steps took, read off a log: factors of an engine stepped one token at a time come back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sagescale.experiment.decode_time import fit_decode_time
from sagescale.experiment.served import ServedLog
from sagescale.perf import load_profile
from sagescale.perf.surfaces import compile_decode

SLOTS = 64
BASE = load_profile("h200-llama-3.1-8b-bf16").with_limits(max_num_seqs=SLOTS)
KNOTS, SPREAD = (8.0, 16.0, 17.0, 32.0, 33.0, 64.0), (0.0, 0.0, 0.0008, 0.0008, 0.0012, 0.0012)


def stepped(scale: float, join_ms: float, spread: tuple[float, ...], count: int = 1200, per_s: float = 9.0):
    """A log of one decode instance, one step after the other; hand-offs take no time."""
    rng = np.random.default_rng(3)
    arrival = np.cumsum(rng.exponential(1 / per_s, count))
    isl = np.clip(rng.lognormal(6.8, 0.8, count), 16, 6000).astype(np.int32)
    osl = np.clip(rng.lognormal(5.3, 0.9, count), 2, 900).astype(np.int32)
    table = compile_decode(dataclasses.replace(BASE.decode, spread_requests=KNOTS, spread_ms=tuple(spread)))
    admitted, done = np.zeros(count), np.zeros(count)
    running: dict[int, int] = {}
    now, head = 0.0, 0
    while head < count or running:
        if not running:
            now = max(now, float(arrival[head]))
        joined = 0
        while head < count and arrival[head] <= now and len(running) < SLOTS:
            admitted[head], running[head] = now, 0
            joined += int(isl[head])
            head += 1
        held = [int(isl[i]) + made for i, made in running.items()]
        n, kv, longest = len(held), sum(held), max(held)
        step_ms = scale * table.step_ms(n, kv) + table.spread_ms[n] * (n * longest - kv) / n
        now += (step_ms + join_ms * joined / 1000.0) / 1000.0
        for i in list(running):
            running[i] += 1
            if running[i] == osl[i] - 1:
                done[i] = now
                del running[i]
    log = ServedLog(arrival, isl, osl, arrival.copy(), done, None, arrival.copy(), 0.0, "made.csv", "0" * 64)
    return dataclasses.replace(log, admitted_s=admitted)


@pytest.fixture(scope="module")
def log():
    return stepped(1.03, 0.8, SPREAD)


def test_known_factors_are_read_off(log):
    found = fit_decode_time(log, BASE, slice(None))
    assert found.scale == pytest.approx(1.03, abs=0.015)
    assert found.join_ms_per_1k_tokens == pytest.approx(0.8, abs=0.5)
    assert found.before > 0.08
    assert found.after < 0.01
    assert found.requests == len(log)
    at = np.array([24.0, 40.0, 56.0])
    assert np.interp(at, found.spread_requests, found.spread_ms) == pytest.approx(
        np.interp(at, KNOTS, SPREAD), abs=2.5e-4
    )


def test_without_the_time_of_joining_a_slot_is_waited_for(log):
    """The KV cache is there at once; whoever finds 64 running joins when one of them is done."""
    known, guessed = (
        fit_decode_time(each, BASE, slice(None)) for each in (log, dataclasses.replace(log, admitted_s=None))
    )
    assert guessed.scale == pytest.approx(known.scale, abs=0.01)
    assert guessed.after < 0.015


def test_an_engine_that_does_not_mind_unequal_contexts_gets_no_cost_of_them():
    found = fit_decode_time(stepped(1.0, 0.0, (0.0,) * 6), BASE, slice(None))
    assert found.scale == pytest.approx(1.0, abs=0.01)
    assert max(found.spread_ms[3:]) < 2e-4


def test_a_curve_that_was_measured_keeps_its_knots(log):
    known = dataclasses.replace(
        BASE, decode=dataclasses.replace(BASE.decode, spread_requests=(16.0, 48.0), spread_ms=(0.0, 0.001))
    )
    found = fit_decode_time(log, known, slice(None))
    assert found.spread_requests == (16.0, 48.0)
    assert found.spread_ms[0] == 0.0
    assert found.spread_ms[1] == pytest.approx(0.0011, abs=2e-4)


def test_later_requests_are_not_looked_at(log):
    half = len(log) // 2
    slow = np.arange(len(log)) >= half
    other = dataclasses.replace(
        log, done_s=np.where(slow, log.done_s + 2 * (log.done_s - log.admitted_s), log.done_s)
    )
    assert fit_decode_time(other, BASE, slice(0, half)) == fit_decode_time(log, BASE, slice(0, half))


def test_a_few_requests_say_nothing(log):
    assert fit_decode_time(log, BASE, slice(0, 40)) is None
