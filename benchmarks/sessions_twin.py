"""What slo would take if it tried sizes on turns that wait for answers, and not on Poisson arrivals.

    python benchmarks/sessions_twin.py [--agents TRACE] [--sessions STARTS] [--slice A:B]

The policy's twin is given what no policy can know: the times to think of the whole trace. It tries each size
on as many sessions as make the load asked about, each asking again when it has its answer and has thought,
with the lengths that are tried otherwise. Options are those of ``sessions_day.py``. Nothing is asserted.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from sagescale.perf import ProfileModel
from sagescale.planner import make_policy
from sagescale.sim.config import with_overrides
from sagescale.sim.engine import Cluster, EnginePool, ServiceLoad
from sagescale.sim.measures import score
from sagescale.sim.simulate import simulate
from sagescale.sim.twin import engine_twin
from sagescale.sim.twin_aggregated import AggregatedTwin
from sagescale.trace import Turns

from sessions_day import options, workload_and_variants

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.policy.twin import Lengths
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.twin import Sample

_FEWEST, _WARM_UP = 1500, 300


class SessionTwin(AggregatedTwin):
    """Tries sizes on sessions that go on as they are answered."""

    def __init__(
        self,
        perf: ProfileModel,
        simulator: SimulatorConfig,
        config: AutoscalerConfig,
        think_s: NDArray[np.float64],
    ) -> None:
        super().__init__(perf, simulator, config)
        self._think_s = np.random.default_rng(0).choice(think_s, 1 << 16)

    def _try_decode(self, pool: int, rate: float, sample: Sample) -> float:
        lengths, each = sample.lengths, len(sample.lengths.isl)
        count = _WARM_UP + each * -(-_FEWEST // each)
        asked = (np.arange(count) - _WARM_UP) % each
        alone_s = self._alone_s(lengths)[asked]
        sessions = max(1, round(rate * (self._think_s.mean() + alone_s.mean())))
        scale = max(0.0, sessions / rate - alone_s.mean()) / self._think_s.mean()
        think_s = self._think_s[:count] * scale
        # As it would come if everybody were answered as fast as alone: row by row, who asks next.
        first_s = np.sort(np.random.default_rng(1).uniform(0.0, sessions / rate, sessions))
        due = [(at_s, number) for number, at_s in enumerate(first_s.tolist())]
        last = [-1] * sessions
        at_s, session, after = np.empty(count), np.empty(count, np.int32), np.empty(count, np.int32)
        for row in range(count):
            at_s[row], number = heapq.heappop(due)
            session[row], after[row], last[number] = number, last[number], row
            heapq.heappush(due, (at_s[row] + alone_s[row] + think_s[row], number))
        # Thinking is drawn with the request before it, and is before this one.
        waits = after >= 0
        turns = Turns(
            np.concatenate([[0], np.cumsum(waits)]), after[waits], np.where(waits, think_s[after], 0.0)
        )
        order = np.unique(session, return_index=True)[1]
        renumbered = np.argsort(np.argsort(order)).astype(np.int32)
        session = renumbered[np.searchsorted(np.unique(session), session)]
        world = self._decode_world
        load = ServiceLoad(
            "service",
            (EnginePool("aggregated", "aggregated", world, 1),),
            (pool,),
            at_s,
            lengths.isl[asked],
            lengths.computed[asked],
            lengths.osl[asked],
            session=session,
            turns=turns,
        )
        cluster = Cluster.alone(load)
        cluster.advance(np.inf)
        missed = np.ones(count, bool)
        slow = cluster.itl_misses()
        slow |= ~(cluster.requests["first_token_s"] - cluster.arrival_s <= world.target_ttft_s)
        missed[cluster.rows] = slow
        missed &= ~sample.slow_alone[asked]
        return float(sample.slow_alone.mean() + missed[_WARM_UP:].mean())

    def _alone_s(self, lengths: Lengths) -> NDArray[np.float64]:
        """How long each answer takes by itself, s."""
        prompts = zip(lengths.computed.tolist(), lengths.isl.tolist(), lengths.osl.tolist(), strict=True)
        return np.array(
            [
                (self.perf.ttft_ms(float(new)) + osl * self.perf.itl_ms(1, isl + osl / 2.0)) / 1000.0
                for new, isl, osl in prompts
            ]
        )


def main() -> None:
    given = options(__doc__).parse_args()
    workload, [variant] = workload_and_variants(given, "false")
    trace, simulator = workload.trace(), variant.simulator
    config = replace(variant.config, policy="slo")
    profile = with_overrides(workload.engines(config), simulator, config.serving)
    model = ProfileModel(profile)
    turns = trace.turns
    print(f"{len(trace):,} requests; {'; '.join(trace.transforms)}")
    print("| slo tries sizes on | attainment | GPU-hours |\n|---|---|---|", flush=True)
    for name, twin in (
        ("Poisson arrivals", engine_twin(config, model, simulator)),
        ("turns that wait", SessionTwin(model, simulator, config, turns.think_s[turns.waits])),
    ):
        began = time.process_time()
        found = score(
            simulate(trace, profile, config, simulator, policy=make_policy(config, model, twin=twin))
        )
        spent_s = time.process_time() - began
        print(
            f"| {name} | {found.attainment:.2%} | {found.gpu_hours:.1f} |  <!-- {spent_s:.0f} s -->",
            flush=True,
        )


if __name__ == "__main__":
    main()
