"""What a run says of its prefix caches: by window, by instances' age, and what scale-downs cost."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sagescale.errors import InputError
from sagescale.live.setup import configured
from sagescale.perf import ProfileModel
from sagescale.report.facts import engines
from sagescale.sim.engine import EnginePool, FleetCluster, ServiceLoad, no_delay
from sagescale.sim.result import run_document
from sagescale.sim.simulate import simulate
from sagescale.sim.world import build_world
from sagescale.trace import Prefixes, Trace

KEYS = ["serving=aggregated", "gpus_per_instance=1", "prefix_cache=true", "routing_strategy=kv_aware"]
PROMPT = 256


def trace(count: int, apart_s: float) -> Trace:
    """Everybody asks one of four things."""
    ids = [(kind, 100 + number) for number, kind in enumerate(np.arange(count) % 4)]
    made = Trace.from_arrays(apart_s * np.arange(count), np.full(count, PROMPT), np.full(count, 8))
    return dataclasses.replace(made, prefixes=Prefixes.of(ids, PROMPT // 2))


def test_hits_are_reported_by_window_and_age():
    setup = configured(None, [], [*KEYS, "min_instances=1", "max_instances=1"])
    run = simulate(trace(400, 1.0), setup.profile, setup.config, setup.simulator)
    document = run_document(run, "run")
    prefix = document.engines.prefix
    assert prefix.hit_rate == pytest.approx(0.495)  # all but the first of each kind find half of their prompt
    assert sum(age.asked_tokens for age in prefix.by_age) == prefix.asked_tokens == 400 * PROMPT
    assert sum(age.hit_tokens for age in prefix.by_age) == prefix.hit_tokens
    assert prefix.by_age[0].until_s == 10.0
    assert prefix.by_age[0].hit_rate == pytest.approx(0.3)
    assert prefix.scale_downs is None
    rates = document.timeline.prefix_hit_rate
    assert rates[0] < 0.5
    assert set(rates[1:]) <= {0.5, None}
    assert document.timeline.full_memory_s == [0.0] * len(run.ticks)
    assert any("on instances ready for less than" in line for line in engines(document))


@pytest.mark.parametrize(("choice", "drained"), [("least_outstanding", 1), ("least_cache_hits", 0)])
def test_a_scale_down_may_keep_what_hits(choice, drained):
    """Sessions a and b stay on instances 0 and 1; b is asked for three times as often."""
    setup = configured(None, [], [*KEYS, f"scale_down_choice={choice}"])
    engine = dataclasses.replace(
        build_world(ProfileModel(setup.profile), setup.simulator, setup.config),
        routing_strategy="session_affinity",
        affinity_max_load=1000.0,
    )
    kinds = np.array([0, 1, 1, 1] * 25, np.int32)
    load = ServiceLoad(
        "service",
        (EnginePool("aggregated", "aggregated", engine, 1),),
        (2,),
        np.concatenate([[0.0, 0.0], 10.0 * np.arange(1, 99)]),
        np.full(100, PROMPT, np.int32),
        np.full(100, PROMPT, np.int32),
        np.full(100, 4, np.int32),
        no_delay,
        prefixes=Prefixes.of([(kind, 100 + n) for n, kind in enumerate(kinds)], PROMPT // 2),
        session=kinds,
    )
    cluster = FleetCluster([load], {"gpu": 2}).services[0]
    cluster.advance(505.0)
    cluster.scale(1)
    cluster.advance(np.inf)
    life = cluster.lifetimes(1e9)
    assert life["number"][~np.isnan(life["drain_s"])].tolist() == [drained]
    done = cluster.stepped()
    assert done.drained_tokens > 0
    assert done.asked_again_tokens == PROMPT // 2


def test_without_caches_the_choice_is_refused():
    with pytest.raises(InputError, match="scale_down_choice is least_cache_hits but prefix_cache is false"):
        configured(None, [], ["scale_down_choice=least_cache_hits"])


def test_the_planner_sees_the_hit_rate_of_prompts_that_were_admitted_however_long_they_waited():
    """Arrivals stop for minutes while the queue is worked off: hits then belong to prompts of before."""
    setup = configured(None, [], [*KEYS, "min_instances=1", "max_instances=1", "max_num_seqs=4"])
    waves = trace(4000, 0.005)
    waves = dataclasses.replace(waves, arrival_s=np.where(np.arange(4000) < 3990, waves.arrival_s, 150.0))
    run = simulate(waves, setup.profile, setup.config, setup.simulator)
    seen = [tick.observation for tick in run.ticks]
    assert max(one.queued_prefill for one in seen) > 100
    known = [one.prefix_hit_rate for one in seen if one.prefix_hit_rate is not None]
    assert max(known[1:]) == 0.5
    assert not any(reason.code == "invalid_metric" for tick in run.ticks for reason in tick.decision.reasons)
