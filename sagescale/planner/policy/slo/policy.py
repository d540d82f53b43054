"""The slo policy: the fewest GPUs that keep requests within their targets, tried on simulated engines."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from sagescale.fleet import Sizes
from sagescale.planner.decision import Reason, ReasonCode, at_limit
from sagescale.planner.policy.protocol import Sizing
from sagescale.planner.policy.slo.budget import Budget
from sagescale.planner.policy.slo.caution import Missed
from sagescale.planner.policy.slo.decode_work import DecodeWork
from sagescale.planner.policy.slo.demand import SURPRISE, certain
from sagescale.planner.policy.slo.lengths import LengthMemory
from sagescale.planner.policy.slo.misses import MissCurves
from sagescale.planner.policy.slo.pool import Pool
from sagescale.planner.policy.slo.promise import Promise

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from sagescale.perf import PerfModel
    from sagescale.planner.config import AutoscalerConfig
    from sagescale.planner.forecast import Forecast
    from sagescale.planner.observation import Observation
    from sagescale.planner.policy.protocol import Situation
    from sagescale.planner.policy.slo.demand import Scenarios
    from sagescale.planner.policy.slo.uses import Uses
    from sagescale.planner.policy.twin import EngineTwin, Lengths

__all__ = ["SloPolicy"]

_REST = 0.02
"""More instances of a pool that misses this part of what may be missed leave the other no more to miss."""

_LEAST_PART = 0.1
"""Of what may be missed, a pool's part is no smaller, however few GPUs it has."""

_NOTHING = 0.5
"""Fewer requests forecast for a window are none: with none, pools that may go entirely do."""

_ABSURD = 1e12
"""So many requests wait nowhere: such a count is taken as unknown."""


class SloPolicy:
    """Sizes both pools for ``target_attainment`` of the requests, by looking ahead in a simulation.

    1. The load of each pool in tokens/s, in the window that capacity ordered now will serve, is forecast as a
       set of scenarios from the forecast's own recent errors (``demand``); decode's is what will be in
       service then (``in_service``).
    2. What pools of each size would miss at such loads is found by running the simulator's kernel on
       requests with the lengths seen lately (``misses``, ``lengths``).
    3. The sizes are those with the fewest GPUs that miss no more than may be missed, which is what was
       promised less what was missed lately (``promise``), and no more than would have kept the last day
       (``day``); under a tight GPU budget, the pair that misses least (``budget``).
    4. What is missed beyond what may be, and beyond what the simulation explains, raises a factor on the load
       of the pool that missed (``caution``). A pool's part of what may be missed is that of its GPUs.
    5. What waits beyond what can be served in time is load as well, drained in as long as a start takes.
    6. Down goes only what was not wanted for as long as two launches take, six minutes at least, to a size
       that would have kept what came lately (``recording``) and was not too small before (``given_up``).
    7. Between ticks, every ``fast_interval_sec``, load that is plainly above the plan adds instances at once.

    docs/slo.md argues each.

    Args:
        config: targets, limits and headroom.
        perf_model: the engines as they are believed to be; where they have been learned to be slower than
            those the twin simulates, the load counts as so much higher.
        twin: simulated engines.
        uses: where decode follows the load at one use (:class:`~sagescale.planner.policy.slo.uses.Uses`).
        work: what each request of a sample counts as in decode, in tokens produced, where decode computes
            prompts as well; None where that is another pool's.
    """

    name = "slo"
    keys = ("target_attainment", "fast_interval_sec")
    needs_twin = True
    default_predictor = "auto"

    def __init__(
        self,
        config: AutoscalerConfig,
        perf_model: PerfModel,
        twin: EngineTwin,
        uses: Uses | None = None,
        work: Callable[[Lengths], NDArray[np.float64]] | None = None,
    ) -> None:
        self._config = config
        self._perf = perf_model
        self._twin = twin
        interval_s = float(config.adjustment_interval_sec)
        self._allowed = 1.0 - config.target_attainment
        self._prefill, self._decode = (
            Pool(pool, interval_s, twin.startup_s, self._allowed, in_time_s, uses_of)
            for pool, in_time_s, uses_of in zip(
                config.pools, (config.target_ttft_ms / 1000.0, None), (None, uses), strict=True
            )
        )
        self._budget = Budget(config.fleet, interval_s, self._allowed, self._prefill, self._decode)
        self._promise = Promise(config.target_attainment)
        self._horizon = self._ahead
        self._worked = work
        self._lengths = LengthMemory(hits_by_window=work is not None)
        self._decode_work: DecodeWork | None = None
        self._version = 0
        self._isl: float | None = None
        self._osl: float | None = None
        self._seen = (-math.inf, 0.0, 0.0)

    def size(self, situation: Situation) -> Sizing:
        """Ask for sizes; hold both pools where this window's traffic, or any request's length, is unknown."""
        seen, window = situation.observation, situation.window
        self._prefill.startup.observe(seen.pools.prefill)
        self._decode.startup.observe(seen.pools.decode)
        self._lengths.observe(seen, window)
        self._isl = self._isl if window.isl is None else window.isl
        self._osl = self._osl if window.osl is None else window.osl
        requests = situation.predictors.requests.forecast(self._looked_ahead())
        if window.requests is None or requests is None:
            return self._hold(seen, _UNKNOWN_TRAFFIC)
        if self._isl is None or self._osl is None or self._lengths.sample is None:
            if window.requests == 0 and self._lengths.sample is None:
                return self._idle(seen)
            return self._hold(seen, _UNKNOWN_LENGTHS)
        sample = self._lengths.sample
        self._try_anew(sample)
        self._share_out(seen)
        self._count(seen)
        self._plan(situation, window.requests, requests, sample)
        self._learn(seen, sample, window.duration_s or 0.0)
        self._promise.learn(seen, self._start_s)

        surprise = self._seen if self._seen[0] == seen.time_s else (0.0, 0.0, 0.0)
        to_come = (
            self._to_come(self._prefill, surprise[1]),
            self._to_come(self._decode, surprise[2]),
        )
        scenarios = (
            self._with_backlog(self._prefill, to_come[0], seen, surprise[1]),
            self._with_backlog(self._decode, to_come[1], seen, surprise[2]),
        )
        for pool in (self._prefill, self._decode):
            pool.ticked(seen.time_s, seen.window_s, pool.load)
        if (
            not seen.work_waits
            and max(requests.mean) < _NOTHING
            and 0 in (self._prefill.limits.least, self._decode.limits.least)
        ):
            # For a pool without instances any load misses all: it would never go.
            return self._idle(seen)
        careful = self._fewest(scenarios)
        enough = (
            self._enough(self._prefill, careful[0], scenarios[0].mean - to_come[0].mean + surprise[1]),
            self._enough(self._decode, careful[1], scenarios[1].mean - to_come[1].mean + surprise[2]),
        )
        wanted = self._budget.share(enough, seen.pools.asked, to_come)
        short = wanted != enough
        if short:
            self._promise.fell_short(self._ahead + 1)
        may_miss = self._promise.allowed, self._allowed
        stay = self._stay(wanted, seen)
        # Nothing idles that the other pool has to do without.
        sizes = wanted if short else self._budget.kept(wanted, stay, seen.pools.asked)
        reasons = [self._too_dear(enough, wanted)] if short else []
        for pool, size, more, stays, ordered, what in zip(
            (self._prefill, self._decode), wanted, careful, stay, sizes, scenarios, strict=True
        ):
            reasons.append(_sized(pool, (size, more, ordered), what, may_miss, held=ordered > stays))
            if size == pool.limits.most and pool.missed(size, what) > self._allowed:
                reasons.append(_at_most(pool, what))
        for pool in (self._prefill, self._decode):
            self._try_uses(pool, seen.time_s)  # for the next tick: this one's loads are those of one way
        return Sizing.exactly(Sizes(*sizes), tuple(reasons))

    def _idle(self, seen: Observation) -> Sizing:
        """Ask for nothing; the planner raises it to the minima."""
        asked = seen.pools.asked
        sizes = self._prefill.after_idling(0, asked.prefill), self._decode.after_idling(0, asked.decode)
        return Sizing.exactly(Sizes(*sizes), (_NO_TRAFFIC,))

    def _fewest(self, scenarios: tuple[Scenarios, Scenarios]) -> tuple[int, int]:
        """The sizes with the fewest GPUs that together miss no more than may be missed."""
        allowed = self._promise.allowed
        mine, other = self._prefill, self._decode
        best: tuple[float, float, int, int] | None = None
        least = mine.smallest(scenarios[0], allowed)
        size = least
        while True:
            missed = mine.missed(size, scenarios[0])
            rest = other.smallest(scenarios[1], max(allowed - missed, 0.0))
            gpus = size * mine.limits.gpus + rest * other.limits.gpus
            both = missed + other.missed(rest, scenarios[1])
            if best is None or (gpus, both) < best[:2]:
                best = (gpus, both, size, rest)
            if size >= mine.limits.most or missed <= _REST * allowed or size > least + 32:
                sizes = zip((mine, other), best[2:], scenarios, strict=True)
                mine_size, other_size = (
                    pool.worth_it(few, what, self._promise.worth) for pool, few, what in sizes
                )
                return mine_size, other_size
            size += 1

    def _too_dear(self, wanted: tuple[int, int], got: tuple[int, int]) -> Reason:
        """Say that the budget allows less than is wanted."""
        budget = self._budget.gpus
        text = f"{Sizes(*wanted)} would be wanted and do not fit max_gpu_budget {budget}: {Sizes(*got)}"
        return Reason(ReasonCode.GPU_BUDGET, text)

    @staticmethod
    def _enough(pool: Pool, careful: int, unplanned: float) -> int:
        """The careful size, or what keeps days like the last where that is less and no load is unplanned."""
        most = pool.enough
        return careful if most is None or unplanned > 0.0 else min(careful, most)

    def _stay(self, wanted: tuple[int, int], seen: Observation) -> tuple[int, int]:
        """What is wanted, or as much of the present sizes as it took lately, unless both do not fit."""
        pools, current = (self._prefill, self._decode), seen.pools.asked
        prefill, decode = (
            pool.kept(size, asked, self._promise.allowed)
            for pool, size, asked in zip(pools, wanted, current, strict=True)
        )
        fewest = (prefill, decode) if self._budget.fits(prefill, decode) else wanted
        try_again = self._promise.hardly_used(self._start_s)
        prefill, decode = (
            pool.after_idling(size, asked, try_again=try_again)
            for pool, size, asked in zip(pools, fewest, current, strict=True)
        )
        return prefill, decode

    @property
    def sample(self) -> Lengths | None:
        """Requests as they have lately been; None until one was seen."""
        return self._lengths.sample

    def forget_tried(self) -> None:
        """Forget what sizes were found to miss: what load is counted in has changed."""
        self._version = -1

    def follow_no_more(self) -> None:
        """Size for scenarios from now on: where caches hit, what a use misses depends on how sizes moved."""
        self._decode.uses = None

    def check(self, seen: Observation) -> Sizing | None:
        """Look at a short window between ticks; ask for more where load is plainly above the plan."""
        self._seen = (seen.time_s, 0.0, 0.0)
        sample = self._lengths.sample
        if (
            not seen.requests
            or seen.requests < 1.0
            or seen.window_s <= 0.0
            or not self._prefill.demand.expected
            or sample is None
        ):
            return None
        rate = seen.requests / seen.window_s
        isl = (self._isl if seen.isl_mean is None else seen.isl_mean) or 0.0
        self._count(seen)
        loads = []
        sizes = list(seen.pools.asked)
        for at, pool in enumerate((self._prefill, self._decode)):
            chance = (1.0 + pool.variation**2) / seen.requests
            load = rate * self._tokens(pool, isl, self._osl or 0.0) * self._work(pool, sample)
            highest = pool.recording.highest if pool.holds(seen.pools[at]) else 0.0
            pool.looked(seen.time_s, seen.window_s, load)
            plain = load > highest and load > pool.demand.coming[0] * math.exp(SURPRISE * math.sqrt(chance))
            # What will be in service, if it goes on, when what is ordered now serves.
            load = pool.demand.after(load, pool.startup.ahead)
            loads.append(load if plain else 0.0)
            if plain:
                self._try_uses(pool, seen.time_s, load)
                what = self._with_backlog(pool, self._to_come(pool, load), seen, load)
                wanted = pool.smallest(what, self._promise.allowed / 2.0)
                wanted = pool.worth_it(wanted, what, self._promise.worth)
                pool.remember(wanted)
                sizes[at] = max(sizes[at], wanted)
        self._seen = (seen.time_s, loads[0], loads[1])
        if Sizes(*sizes) == seen.pools.asked:
            return None
        return Sizing.exactly(Sizes(*sizes), (_SURGE,))

    @property
    def _ahead(self) -> int:
        return max(self._prefill.startup.ahead, self._decode.startup.ahead)

    @property
    def _start_s(self) -> float:
        return max(self._prefill.start_s, self._decode.start_s)

    def _looked_ahead(self) -> int:
        self._horizon = max(self._horizon, self._ahead)
        return self._horizon

    def _hold(self, seen: Observation, reason: Reason) -> Sizing:
        for pool in (self._prefill, self._decode):
            pool.demand.observe(None, 0.0)
            pool.ticked(seen.time_s, seen.window_s, None)
        return Sizing.hold(seen.pools, reason)

    def _learn(self, seen: Observation, sample: Lengths, lasts_s: float) -> None:
        """Set what each pool missed in this window beside what might have been missed."""
        weight = self._weight(seen, sample)
        lasts = math.ceil(lasts_s / self._config.adjustment_interval_sec)
        full = sum(self._gpus(seen))
        for pool, other, counts, share in (
            (self._prefill, self._decode, seen.pools.prefill, seen.ttft_attainment),
            (
                self._decode,
                self._prefill,
                seen.pools.decode,
                seen.itl_attained(self._config.target_attainment),
            ),
        ):
            if share is None or not 0.0 <= share <= 1.0 or pool.load is None:
                pool.caution.skip()
                continue
            pool.caution.learn(
                Missed(
                    share=1.0 - share,
                    late=self._late(pool, seen) / max(seen.requests or 1.0, 1.0),
                    explained=pool.explained(counts.ready, pool.demand.in_service.load),
                    windows=lasts + 2,
                    weight=weight,
                    other=other.caution.recent,
                    ahead=pool.startup.ahead,
                    start_s=pool.start_s,
                    starting=counts.starting + counts.waiting > 0,
                    part=pool.part,
                    # What is in service is sized for as it is: nothing beyond need to be found out.
                    left=0.0 if pool.demand.in_service.to_go_s else self._promise.allowed / self._allowed,
                    full=counts.asked >= pool.limits.most or full + pool.limits.gpus > self._budget.gpus,
                )
            )

    def _gpus(self, seen: Observation) -> list[int]:
        """GPUs of each pool's present size."""
        pools = (self._prefill, self._decode)
        return [pool.limits.gpus * counts.asked for pool, counts in zip(pools, seen.pools, strict=True)]

    def _share_out(self, seen: Observation) -> None:
        """Let each pool miss as large a part of what may be missed as its part of the GPUs is.

        Where misses fall exponentially with relative headroom, the fewest GPUs are needed when what another
        percent of a pool saves is in proportion to what it costs. Parts follow the present sizes, so the part
        of a pool that grows grows with it. Looks between ticks, which only add, go by half for each.
        """
        gpus = self._gpus(seen)
        if self._worked is not None or not any(gpus):  # all is the one pool's, or nobody's
            return
        for pool, mine in zip((self._prefill, self._decode), gpus, strict=True):
            pool.part = min(max(mine / sum(gpus), _LEAST_PART), 1.0 - _LEAST_PART)

    def _late(self, pool: Pool, seen: Observation) -> float:
        """Requests that wait and can no longer be served in time."""
        assert pool.curves is not None
        prefill = pool is self._prefill
        waiting = seen.queued_prefill if prefill else seen.queued_decode
        counts = seen.pools.prefill if prefill else seen.pools.decode
        if waiting is None or not 0.0 < waiting < _ABSURD:
            return 0.0
        in_time_s = self._config.target_ttft_ms / 1000.0
        if not prefill:
            in_time_s = self._config.target_itl_ms / 1000.0 * pool.curves.tokens
        return max(0.0, waiting - counts.ready * pool.curves.limit / pool.curves.tokens * in_time_s)

    def _weight(self, seen: Observation, sample: Lengths) -> float:
        """This window's load over the usual one: planned misses are in shares of that."""
        usual = self._prefill.demand.usual
        if not seen.requests or usual <= 0.0 or self._isl is None or seen.window_s <= 0.0:
            return 0.0
        load = seen.requests * self._isl / seen.window_s * self._work(self._prefill, sample)
        return min(load / usual, 3.0)

    def _try_anew(self, sample: Lengths) -> None:
        """Forget what was tried with other lengths."""
        if self._lengths.version == self._version:
            return
        self._version = self._lengths.version
        twin = self._twin
        self._decode_work = DecodeWork(sample, twin.perf, self._config.target_itl_ms)
        for pool, tried, alone, limit_rps, tokens in (
            (
                self._prefill,
                twin.prefill_misses,
                twin.prefill_misses_alone,
                twin.prefill_limit_rps,
                sample.computed,
            ),
            (
                self._decode,
                twin.decode_misses,
                twin.decode_misses_alone,
                twin.decode_limit_rps,
                sample.osl,
            ),
        ):
            mean = float(tokens.mean())
            work = self._worked(sample) if self._worked is not None and pool is self._decode else tokens
            pool.variation = float(work.std()) / float(work.mean())
            if pool is self._decode and self._worked is None:
                pool.in_service.to_go_s = self._decode_work.to_go_s(self._decode_work.full)
            elif pool is self._decode:  # as when the uses to follow were chosen
                pool.in_service.to_go_s = mean * self._config.target_itl_ms / 1000.0
            pool.curves = MissCurves(partial(tried, lengths=sample), limit_rps(sample), mean, alone(sample))

    def _plan(self, situation: Situation, arrived: float, requests: Forecast, sample: Lengths) -> None:
        """Show each pool's demand the window's load and the forecast."""
        interval_s = situation.window.interval_s
        horizon = requests.horizon
        assert self._isl is not None
        assert self._osl is not None
        isl, osl = (
            (last,) * horizon if length is None else length.mean
            for last, length in (
                (self._isl, situation.predictors.isl.forecast(horizon)),
                (self._osl, situation.predictors.osl.forecast(horizon)),
            )
        )
        for pool in (self._prefill, self._decode):
            work = self._work(pool, sample) / interval_s
            # Of a short window chance does more than of the interval that its requests are scaled to.
            counted = arrived * situation.observation.window_s / situation.window.interval_s
            last = self._tokens(pool, self._isl, self._osl) * work
            pool.load = arrived * last
            pool.demand.observe(pool.load, (1.0 + pool.variation**2) / max(counted, 1.0), pool.counted)
            each = [
                self._tokens(pool, max(prompt, 1.0), max(answer, 1.0)) * work
                for prompt, answer in zip(isl, osl, strict=True)
            ]
            pool.demand.plan(
                [count * load for count, load in zip(requests.mean, each, strict=True)],
                [deviation * last for deviation in requests.std],
            )

    def _count(self, seen: Observation) -> None:
        """Take in what runs in decode: how fast that goes says how long it stays."""
        if self._worked is not None:
            return
        decode, work, running = self._decode, self._decode_work, seen.running_decode
        assert work is not None
        assert self._isl is not None
        assert self._osl is not None
        instances = seen.pools.decode.ready + seen.pools.decode.draining
        decode.counted = None
        decode.demand.in_service.to_go_s = work.to_go_s(work.full)
        if running is None or not 0.0 < running <= self._perf.max_num_seqs * instances:
            return
        decode.demand.in_service.to_go_s = work.to_go_s(running / instances)
        made = work.made(running, running / instances, self._isl, self._osl)
        # What waits has yet to run, or may: few that do are then no sign that there is little to do.
        waits = (
            seen.queued_decode != 0.0 or seen.queued_prefill is None or self._late(self._prefill, seen) > 0.0
        )
        if made > decode.demand.in_service.load or not waits:
            decode.counted = made

    def _tokens(self, pool: Pool, isl: float, osl: float) -> float:
        """What a request of such mean lengths is to a pool, in tokens of the sample."""
        if pool is self._prefill or osl <= 0.0 or isl <= 0.0:
            return isl if pool is self._prefill else osl
        assert self._decode_work is not None
        return self._decode_work.tokens(isl, osl)

    def _work(self, pool: Pool, sample: Lengths) -> float:
        """What a token of ISL or OSL counts as load, in tokens that simulated engines work off.

        Prompt tokens from the prefix cache are not computed. Loads are compared in this unit alone.
        """
        slowdown = self._slowdown(pool, sample)
        return sample.computed_share * slowdown if pool is self._prefill else slowdown

    def _slowdown(self, pool: Pool, sample: Lengths) -> float:
        """How much slower engines are believed to be than those simulated: each token counts as so many."""
        if pool is self._prefill:
            isl = sample.computed_tokens
            return self._perf.ttft_ms(isl) / self._twin.perf.ttft_ms(isl)
        running = self._perf.max_num_seqs / 2.0
        context_tokens = sample.context_tokens
        return self._perf.itl_ms(running, context_tokens) / self._twin.perf.itl_ms(running, context_tokens)

    def _with_backlog(self, pool: Pool, to_come: Scenarios, seen: Observation, surprise: float) -> Scenarios:
        """The load to size for: what is to come, and what waits."""
        return to_come.scaled(1.0, self._config.load_headroom * self._backlog(pool, seen, surprise))

    def _to_come(self, pool: Pool, surprise: float) -> Scenarios:
        """The load to size for, but for what waits."""
        if pool.followed is not None:
            return certain(self._planned(pool, surprise))
        return self._scenarios(pool, surprise)

    def _scenarios(self, pool: Pool, surprise: float) -> Scenarios:
        """The load when what is ordered now will serve, or the next window's if that is more."""
        expected = pool.demand.expected
        # In unknown windows nothing is planned, but starts may be seen to take longer than the last plan
        # reaches: its last window stands for what lies beyond.
        ahead = min(pool.startup.ahead, len(expected))
        if expected[0] > expected[ahead - 1]:
            ahead = 1
        return pool.demand.scenarios(ahead, surprise).scaled(self._config.load_headroom * pool.caution.factor)

    def _planned(self, pool: Pool, surprise: float) -> float:
        """The load to follow: the next window's, or that when what is ordered now serves if it is more."""
        expected = pool.demand.expected
        ahead = min(pool.startup.ahead, len(expected))
        load = max(expected[0], expected[ahead - 1], surprise)
        return load * self._config.load_headroom * max(1.0, pool.caution.factor)

    def _try_uses(self, pool: Pool, now_s: float, surprise: float | None = None) -> None:
        """Let pools of every use follow the load of a tick, or a surprise between two."""
        if pool.uses is None:
            return
        assert pool.curves is not None
        load = self._planned(pool, surprise or 0.0)
        careful = pool.careful(self._scenarios(pool, surprise or 0.0), self._allowed)
        step = pool.uses.ticked if surprise is None else pool.uses.surge
        step(now_s, load, careful, pool.startup.ahead, pool.limits, pool.curves)

    def _backlog(self, pool: Pool, seen: Observation, surprise: float) -> float:
        """What will still wait when ordered capacity is there, as load that clears it in that time."""
        assert pool.curves is not None
        sample = self._lengths.sample
        assert sample is not None
        prefill = pool is self._prefill
        waiting = seen.queued_prefill if prefill else seen.queued_decode
        counts = seen.pools.prefill if prefill else seen.pools.decode
        if waiting is None or not 0.0 < waiting < _ABSURD or not pool.demand.expected:
            return 0.0
        interval_s = self._config.adjustment_interval_sec
        capacity = counts.ready * pool.curves.limit
        in_time = capacity * self._config.target_ttft_ms / 1000.0
        late = waiting * pool.curves.tokens * self._slowdown(pool, sample) - in_time
        if late <= 0.0:
            return 0.0
        until_s = pool.start_s
        late += (max(pool.demand.expected[0], surprise) - capacity) * until_s
        return max(0.0, late) / max(interval_s, until_s)


def _sized(
    pool: Pool,
    sizes: tuple[int, int, int],
    scenarios: Scenarios,
    allowed: tuple[float, float],
    *,
    held: bool,
) -> Reason:
    """Say why, of sizes: wanted, for the scenarios alone, asked for; what may be missed: now, promised.

    What is held stays as the budget was too small lately.
    """
    wanted, careful, size = sizes
    text = (
        f"{pool.name}: {scenarios.mean:,.0f} tokens/s expected in window {pool.startup.ahead}, up to "
        f"{scenarios.highest:,.0f}; {wanted} instances would miss {_share(pool.missed(wanted, scenarios))} "
        f"of the requests expected"
    )
    if wanted > pool.limits.least:
        text += f", {wanted - 1} {_share(pool.missed(wanted - 1, scenarios))}"
    left, promised = allowed
    text += f"; both pools together may miss {_share(left)}"
    if left < promised:
        text += f", as {_share(promised - left)} was missed lately"
    if wanted < careful and wanted == pool.enough:
        text += f"; {careful} would be wanted for that, but {wanted} would have kept the last day"
    if pool.followed is not None:
        text += f"; instances are planned to be {pool.followed:.0%} full"
    if held:
        text += f"; {size} stay, as max_gpu_budget was too small within the last day"
    elif size > wanted:
        text += f"; {size} stay, as so many were wanted lately, or needed at such a load within a day"
    return Reason(ReasonCode.SIZED_FOR_MISSES, text)


def _at_most(pool: Pool, scenarios: Scenarios) -> Reason:
    """Say that a pool's maximum misses more than may be missed."""
    most = pool.limits.most
    text = (
        f"{pool.name}: {most} instances are allowed, which would miss {_share(pool.missed(most, scenarios))}"
    )
    return Reason(at_limit("max", pool.name), text)


def _share(share: float) -> str:
    return "more than all" if share > 1.0 + 1e-9 else f"{share:.2%}"


_UNKNOWN_TRAFFIC = Reason(ReasonCode.HOLD_UNKNOWN_TRAFFIC, "requests are unknown: both pools hold")
_UNKNOWN_LENGTHS = Reason(
    ReasonCode.HOLD_UNKNOWN_LENGTHS, "no request's length has been observed yet: both pools hold"
)
_NO_TRAFFIC = Reason(
    ReasonCode.NO_TRAFFIC,
    "no requests are expected: down to the minimum, once it has been so for as long as a launch takes",
)
_SURGE = Reason(ReasonCode.SURGE, "load between ticks is plainly above the plan: more at once")
