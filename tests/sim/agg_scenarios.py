"""Scenarios of engines that go step by step, for Hypothesis: tiny memories, caches that evict, all routers.

Every time is a multiple of a power of two, so no sum rounds and equality means equality. Numbers are kept
beside the world that the reference takes, for who has to build the same engines from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import accumulate, cycle
from typing import get_args

from hypothesis import strategies as st
from reference_records import Engine, Request, RoutingStrategy, World
from reference_step_times import StepTimes
from strategies import FINE, SHARED, TICK, each_of, sampled, so_many

TINY = 2.0**-18  # grain of what a token adds for each other token, s
MOST_SLOTS = 5

_STEPPING: list[tuple[str, ...]] = [("prefill",), ("decode",), ("prefill", "decode")]
STRATEGIES: tuple[RoutingStrategy, ...] = get_args(RoutingStrategy)


@dataclass(frozen=True)
class Numbers:
    """What an engine takes for a step, s.

    A decode step of n holding K tokens takes ``base_s[n][i] + slope_s[n][i] * K``, by the last ``i`` for
    which ``edges[n][i]`` is at most K; the first is 0.
    """

    edges: list[list[int]]
    base_s: list[list[float]]
    slope_s: list[list[float]]
    spread_s: list[float]  # by n
    tokens_s: list[float]  # by tokens of the step, up to the budget
    running_s: float
    kv_s: float
    cross_s: float
    square_s: float
    longest_s: float

    def decode_s(self, n: int, kv: int) -> float:
        i = max(i for i, edge in enumerate(self.edges[n]) if edge <= kv)
        return self.base_s[n][i] + self.slope_s[n][i] * kv

    @property
    def step_times(self) -> StepTimes:
        return StepTimes(
            itl_s=self.decode_s,
            tokens_s=tuple(enumerate(self.tokens_s)),
            spread_s=lambda n: self.spread_s[n],
            **{
                name: getattr(self, name)
                for name in ("running_s", "kv_s", "cross_s", "square_s", "longest_s")
            },
        )


@dataclass(frozen=True)
class Scenario:
    """Arguments of ``reference.simulate``, and the numbers behind them."""

    requests: list[Request]
    world: World
    initial: tuple[int, ...]
    script: list[tuple[float, ...]]
    until_s: float
    snapshots: list[float]
    crashes: list[tuple[float, str, int]]
    cold_s: float
    numbers: dict[str, Numbers] = field(repr=False)  # by pool
    prefill_token_s: float = 0.0  # of a ``batch`` prefill pool
    prefill_floor_s: float = 0.0


@st.composite
def numbers(draw: st.DrawFn, budget: int) -> Numbers:
    contexts = sorted({2 + byte % 59 for byte in draw(so_many(0, 2))})
    edges = [[0, *(max(n, 1) * context for context in contexts)] for n in range(MOST_SLOTS + 1)]

    def table(least: int, most: int, grain: float) -> list[list[float]]:
        values = cycle([least + byte % (most - least + 1) for byte in draw(so_many(1, 7))])
        return [[grain * next(values) for _ in range(len(contexts) + 1)] for _ in range(MOST_SLOTS + 1)]

    rises = [byte % 3 for byte in draw(so_many(1, 8))]
    token_rises = [TICK * rises[i % len(rises)] for i in range(budget)]
    few = (0, 1, 3, 8)
    first, spread, running, kv, cross, square, longest = each_of(
        draw(so_many(7)), (1, 2, 3), (0, 0, 1, 5), few, few, few, few, few
    )
    return Numbers(
        edges=edges,
        base_s=table(1, 4, TICK),
        slope_s=table(0, 8, FINE),
        spread_s=[FINE * spread * n for n in range(MOST_SLOTS + 1)],
        tokens_s=list(accumulate(token_rises, initial=TICK * first)),
        running_s=FINE * running,
        kv_s=FINE * kv,
        cross_s=TINY * cross,
        square_s=TINY * square,
        longest_s=FINE * longest,
    )


@st.composite
def engines(draw: st.DrawFn, pool: str, times: Numbers, budget: int, slots: int, *, caches: bool) -> Engine:
    block, tokens, beyond, scheduler, threshold, chunked, mixed, reserves, cached = each_of(
        draw(so_many(9)),
        (4, 4, 2, 1, 8), (48, 64, 48, 32, 24, 80, None), range(256), ("vllm", "vllm", "sglang"),
        (0, 0, 0, 3, 7), (True, True, True, False), (False, True), (False, True), (True, True, True, False),
    )  # fmt: skip
    return Engine(
        scheduler=scheduler,
        step_s=times.step_times,
        max_num_seqs=slots,
        max_batched_tokens=budget,
        max_kv_tokens=None if tokens is None else tokens + beyond % block,
        block_tokens=block,
        long_prefill_token_threshold=threshold,
        chunked_prefill=chunked,
        mixed_chunk=mixed,
        # A prompt that is computed in vain, again and again, while hand-offs never end, would do so for ever.
        reserve_full_isl=reserves or (pool == "prefill" and tokens is not None),
        prefix_cache=caches and cached,
    )


def prompts(drawn: list[bytes], hash_block: int) -> list[tuple[int, tuple[int, ...]]]:
    """Prompt lengths and ids: some lead with what others do; equal ids cover equal tokens."""
    names: dict[tuple, int] = {}
    made = []
    for three in drawn:
        isl, stem, shared = each_of(three, (12, 20, 8, 7, 16, 4, 33, 3, 2, 1), range(3), (99, 99, 3, 2, 1, 0))
        path: tuple = ()
        ids = []
        for number in range(-(-isl // hash_block)):
            covered = min(hash_block, isl - number * hash_block)
            path = (*path, (stem if number < shared else len(made) + 100, covered))
            ids.append(names.setdefault(path, len(names)))
        made.append((isl, tuple(ids)))
    return made


def joined(drawn: list[bytes], requests: list[Request]) -> list[Request]:
    """The requests as turns of few sessions: most wait for the one before, some for several or for none."""
    of_session: dict[int, list[int]] = {}
    made = []
    for number, (three, request) in enumerate(zip(drawn, requests, strict=True)):
        session, which, think = each_of(three, range(5), range(6), (0, 0, 1, 3, 20))
        before = of_session.setdefault(session, [])
        waits = [before[-1:], before[-1:], before[-1:], before[-2:], before[:2], []]
        after = tuple(waits[which])
        before.append(number)
        made.append(replace(request, session_id=session, after=after, think_s=TICK * think if after else 0.0))
    return made


@st.composite
def scenarios(
    draw: st.DrawFn,
    serving: str | None = None,
    policies: tuple[str, ...] = ("fifo", "priority", "slo_aware", "adaptive"),
    strategies: tuple[RoutingStrategy, ...] = STRATEGIES,
    most_crashes: int = 3,
    caches: bool = True,
    stale: bool = False,
    sessions: bool = False,
) -> Scenario:
    """``serving`` is aggregated or disaggregated, any if not given; ``stale`` routers see the past.

    With ``sessions`` turns wait for answers, joins for several, and all pools may be ``batch`` ones.
    """
    serving = serving or draw(sampled("aggregated", "disaggregated"))
    stepping = draw(sampled(*_STEPPING, *[()] * sessions))
    pools = ("aggregated",) if serving == "aggregated" else ("prefill", "decode")
    stepped = pools if serving == "aggregated" else stepping
    made_numbers, made_engines = {}, {}
    slots, cached, policy, strategy, multiple, *budgets = each_of(
        draw(so_many(7)),
        (5, 4, 3, 2, 1), (True, True, False), policies, strategies, (1, 1, 2, 4), *[(16, 8, 40, 8, 3, 1)] * 2,
    )  # fmt: skip
    caches = caches and cached
    for pool, tokens in zip(pools, budgets, strict=False):
        budget = max(slots, tokens)
        made_numbers[pool] = draw(numbers(budget))
        if pool in stepped:
            made_engines[pool] = draw(
                engines(pool, made_numbers[pool], budget, slots, caches=caches and pool != "decode")
            )
    hash_block = multiple * max((engine.block_tokens for engine in made_engines.values()), default=1)
    token, floor, seed, until, cold = each_of(
        draw(so_many(5)), range(1, 65), range(1, 4), range(4), (0, 0, 300), (0, 0, 7)
    )
    prefill_token_s, prefill_floor_s = FINE * token, TICK * floor
    batch = made_numbers[pools[-1]]
    (
        batch_tokens, aggregated_gpus, credit, scale, temperature, staleness, scale_down_choice, affinity,
        concurrent,
    ) = each_of(
        draw(so_many(9)),
        (1, 10, 40), (1, 2), (1.0, 1.0, 0.0, 0.5, 2.0), (1.0, 1.0, 0.5, 4.0), (0.0, 0.0, 0.0, 0.5),
        (0, 0, 0, 8, 50), ("least_outstanding", "least_cache_hits"), (1.0, 1.5), (None, None, 1, 2, 3),
    )  # fmt: skip
    world = World(
        prefill_batch_s=lambda tokens: prefill_floor_s + prefill_token_s * sum(tokens),
        step_s=batch.decode_s,
        spread_s=lambda n: batch.spread_s[n],
        max_batch_tokens=batch_tokens,
        max_num_seqs=slots,
        startup_delays_s=[TICK * (byte % 31) for byte in draw(so_many(1, 4))],
        prefill_gpus=1,
        aggregated_gpus=aggregated_gpus,
        scheduling_policy=policy,
        routing_strategy=strategy,
        engines=made_engines,
        hash_block_tokens=hash_block,
        overlap_credit=credit,
        prefill_load_scale=scale,
        router_temperature=temperature,
        router_staleness_s=TICK * staleness if stale else 0.0,
        scale_down_choice=scale_down_choice,
        affinity_max_load=affinity,
        seed=seed,
        service="only",
        closed_loop=sessions,
        concurrent_sessions=concurrent if sessions else None,
        **draw(SHARED),
    )
    fewest = draw(sampled(6, 12, 18) if sessions else sampled(1, 6, 12))
    drawn = draw(st.lists(so_many(11), min_size=fewest, max_size=25))
    made = prompts([one[:3] for one in drawn], hash_block)
    has_hashes = caches and any(engine.prefix_cache for engine in made_engines.values())
    arrival_s, requests = 0.0, []
    for (isl, ids), one in zip(made, drawn, strict=True):
        gap, osl, cached_tokens, priority, session = each_of(
            one[3:8],
            (0, 1, 0, 2, 5, 40), (8, 12, 5, 3, 2, 1), (0, 0, isl - 1, isl // 2), (-1, 0, 0, 2), range(5),
        )  # fmt: skip
        arrival_s += TICK * gap if requests else 0.0
        requests.append(
            Request(
                arrival_s=arrival_s,
                isl=isl,
                osl=osl,
                cached_tokens=0 if has_hashes else cached_tokens,
                priority=0 if policy in ("fifo", "slo_aware") else priority,
                hash_ids=ids if has_hashes else (),
                session_id=session if strategy == "session_affinity" else None,
            )
        )
    if sessions:
        requests = joined([one[8:] for one in drawn], requests)
    free, initial = world.max_gpus, []
    for pool, wanted in zip(pools, each_of(draw(so_many(2)), *[(1, 1, 2, 3, 0)] * 2), strict=False):
        gpus = getattr(world, f"{pool}_gpus")
        initial.append(min(wanted, free // gpus))
        free -= gpus * initial[-1]
    script, crashes = (
        [each_of(one, *options) for one in draw(st.lists(so_many(3), max_size=most))]
        for most, options in (
            (5, (range(1, 201), range(5), range(5))),
            (most_crashes, (range(91), pools, (0, 0, 1, 1, 2, 3))),
        )
    )
    return Scenario(
        requests=requests,
        world=world,
        initial=tuple(initial),
        script=[
            (TICK * t, *sizes[: len(pools)])
            for t, *sizes in sorted({t: [t, *sizes] for t, *sizes in script}.values())
        ],
        until_s=TICK * until,
        snapshots=sorted({TICK * (byte % 201) for byte in draw(so_many(0, 4))}),
        crashes=sorted((TICK * t, pool, number) for t, pool, number in crashes),
        cold_s=TICK * cold if most_crashes else 0.0,
        numbers=made_numbers,
        prefill_token_s=prefill_token_s,
        prefill_floor_s=prefill_floor_s,
    )
