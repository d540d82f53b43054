"""The kernel as a planner's twin of aggregated engines: one pool, which does both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.planner.policy.twin import Lengths
from sagescale.sim.engine import Cluster, EnginePool, ServiceLoad
from sagescale.sim.twin import KernelTwin, repeated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.perf import ProfileModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.twin import Sample

_USUAL_TOKENS = 1024.0
"""Of a prompt, and of a context, at which work is compared until lengths are known."""

_FAR = 1.5
"""What prompt tokens count as stays while it is no further off: forecasts' errors are remembered in it."""

_MOST_INSTANCES = 16
"""Pooling more changes little: at twice as many, a request in a thousand."""

_FEWEST = 1500
"""Requests measured."""

_NO_LIMIT_RPS = 1e9
"""Of prefill, which aggregated instances have none of beside what is tried as decode."""


class AggregatedTwin(KernelTwin):
    """Tries sizes of an aggregated pool; a request misses there if it misses either target.

    What is said of decode is said of the pool, with prompts computed as they come; of prefill, that it is
    never in the way. The prefix cache is in the lengths: what is computed of a prompt.
    """

    def __init__(self, perf: ProfileModel, simulator: SimulatorConfig, config: AutoscalerConfig) -> None:
        super().__init__(perf, simulator, config)
        self.prompt_token_work = self._prompt_token_work(_USUAL_TOKENS, _USUAL_TOKENS)

    def weigh(self, lengths: Lengths) -> bool:
        """Count prompt tokens as they are to answers' at such lengths if that is far from now; tell if so.

        At long contexts an answer's token takes many times as long, as fewer share a step that reads more.
        """
        answers, prompts = lengths.osl.astype(np.float64), lengths.computed.astype(np.float64)
        context = float(answers @ (lengths.isl + answers / 2.0) / answers.sum())
        work = self._prompt_token_work(float(prompts @ prompts / prompts.sum()), context)
        is_far = not 1.0 / _FAR < work / self.prompt_token_work < _FAR
        if is_far:
            self.prompt_token_work = work
        return is_far

    def _prompt_token_work(self, prompt: float, context: float) -> float:
        """What a token of such a prompt takes, over what one of an answer does at such a context."""
        running = self.perf.max_num_seqs / 2.0
        if self.perf.max_kv_tokens is not None:
            running = min(running, self.perf.max_kv_tokens / context)
        running = max(1.0, running)
        token_ms = self.perf.itl_ms(running, context) / running
        return float(self.perf.ttft_ms(prompt) / prompt / token_ms)

    def decode_misses(self, instances: int, requests_per_s: float, lengths: Lengths) -> float:
        """Share that misses either target; requests are counted by their work."""
        rate = requests_per_s / self.work(lengths)
        return self._tried(self._try_decode, instances, _MOST_INSTANCES, rate, lengths)

    def decode_limit_rps(self, lengths: Lengths) -> float:
        """Requests a second that one instance gets through, counted by their work."""
        return super().decode_limit_rps(lengths) * self.work(lengths)

    def _try_decode(self, pool: int, rate: float, sample: Sample) -> float:
        """Measure the same requests at every size and rate, each of the sample as often as the others.

        A few long prompts are most of what misses: which ones are measured decides. What goes before, until
        the pool is as full as it will be, are others.
        """
        lengths = sample.lengths
        before, warm_up = self._before(pool, rate, sample)
        each = len(lengths.isl)
        count = each * -(-_FEWEST // each)
        warm_up = min(warm_up, len(self._unit_gaps) - count)
        gaps = np.concatenate([self._unit_gaps[count : count + warm_up] / before, self._unit_gaps[:count]])
        gaps[warm_up:] *= count / rate / gaps[warm_up:].sum()
        asked = np.arange(-warm_up, count) % each
        tried = Lengths(lengths.isl[asked], lengths.computed[asked], lengths.osl[asked])
        missed = self._run_decode(pool, np.cumsum(gaps), tried) & ~sample.slow_alone[asked]
        return float(sample.slow_alone.mean() + missed[warm_up:].mean())

    def work(self, lengths: Lengths) -> float:
        """How many requests whose work is all answer a request is worth."""
        return 1.0 + self.prompt_token_work * float(lengths.computed_tokens / lengths.osl.mean())

    def prefill_misses(self, instances: int, requests_per_s: float, lengths: Lengths) -> float:
        """Return nothing."""
        del instances, requests_per_s, lengths
        return 0.0

    def prefill_misses_alone(self, lengths: Lengths) -> float:
        """Return nothing."""
        del lengths
        return 0.0

    def prefill_limit_rps(self, lengths: Lengths) -> float:
        """Return no limit."""
        del lengths
        return _NO_LIMIT_RPS

    def _run_prefill(
        self, pool: int, arrival_s: NDArray[np.float64], lengths: Lengths
    ) -> NDArray[np.float64]:
        """Return that no prompt waits for anything but the pool itself."""
        del pool, lengths
        return np.full(len(arrival_s), -1.0)

    def _run_decode(self, pool: int, arrival_s: NDArray[np.float64], lengths: Lengths) -> NDArray[np.bool_]:
        """Which requests miss a target."""
        world, count = self._decode_world, len(arrival_s)
        load = ServiceLoad(
            "service",
            (EnginePool("aggregated", "aggregated", world, 1),),
            (pool,),
            arrival_s,
            repeated(lengths.isl, count),
            repeated(lengths.computed, count),
            repeated(lengths.osl, count),
        )
        cluster = Cluster.alone(load)
        cluster.advance(np.inf)
        missed = cluster.itl_misses()
        missed |= ~(cluster.requests["first_token_s"] - arrival_s <= world.target_ttft_s)
        return missed

    def _steps(self, lengths: Lengths) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Mean step times of 1, 2, ... running requests, with the prompts of those that follow them."""
        n, step_s = super()._steps(lengths)
        prompt_s = self.perf.ttft_ms(lengths.computed_tokens) / 1000.0
        return n, step_s + n * (prompt_s / float(lengths.osl.mean()))
