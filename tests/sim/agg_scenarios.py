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
from strategies import sampled

TICK = 2.0**-6  # grain of arrivals and durations, s
FINE = 2.0**-14  # grain of what a token adds, s
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
    contexts = sorted(draw(st.sets(st.integers(2, 60), max_size=2)))
    edges = [[0, *(max(n, 1) * context for context in contexts)] for n in range(MOST_SLOTS + 1)]

    def table(least: int, most: int, grain: float) -> list[list[float]]:
        values = cycle(draw(st.lists(st.integers(least, most), min_size=1, max_size=7)))
        return [[grain * next(values) for _ in range(len(contexts) + 1)] for _ in range(MOST_SLOTS + 1)]

    rises = draw(st.lists(st.integers(0, 2), min_size=1, max_size=8))
    token_rises = [TICK * rises[i % len(rises)] for i in range(budget)]
    spread = FINE * draw(sampled(0, 0, 1, 5))

    def coefficient(grain: float) -> float:
        return grain * draw(sampled(0, 1, 3, 8))

    return Numbers(
        edges=edges,
        base_s=table(1, 4, TICK),
        slope_s=table(0, 8, FINE),
        spread_s=[spread * n for n in range(MOST_SLOTS + 1)],
        tokens_s=list(accumulate(token_rises, initial=TICK * draw(st.integers(1, 3)))),
        running_s=coefficient(FINE),
        kv_s=coefficient(FINE),
        cross_s=coefficient(TINY),
        square_s=coefficient(TINY),
        longest_s=coefficient(FINE),
    )


@st.composite
def engines(draw: st.DrawFn, pool: str, times: Numbers, budget: int, slots: int, *, caches: bool) -> Engine:
    block = draw(sampled(4, 4, 2, 1, 8))
    tokens = draw(sampled(48, 64, 48, 32, 24, 80, None))
    return Engine(
        scheduler=draw(sampled("vllm", "vllm", "sglang")),
        step_s=times.step_times,
        max_num_seqs=slots,
        max_batched_tokens=budget,
        max_kv_tokens=None if tokens is None else tokens + draw(st.integers(0, block - 1)),
        block_tokens=block,
        long_prefill_token_threshold=draw(sampled(0, 0, 0, 3, 7)),
        chunked_prefill=draw(sampled(True, True, True, False)),
        mixed_chunk=draw(st.booleans()),
        # A prompt that is computed in vain, again and again, while hand-offs never end, would do so for ever.
        reserve_full_isl=draw(st.booleans()) or (pool == "prefill" and tokens is not None),
        prefix_cache=caches and draw(sampled(True, True, True, False)),
    )


@st.composite
def prompts(draw: st.DrawFn, hash_block: int, fewest: list[int]) -> list[tuple[int, tuple[int, ...]]]:
    """Prompt lengths and ids: some lead with what others do; equal ids cover equal tokens."""
    names: dict[tuple, int] = {}
    made = []
    one = st.tuples(
        sampled(12, 20, 8, 7, 16, 4, 33, 3, 2, 1),
        st.integers(0, 2),
        sampled(99, 99, 3, 2, 1, 0),
    )
    for isl, stem, shared in draw(st.lists(one, min_size=draw(sampled(*fewest)), max_size=25)):
        path: tuple = ()
        ids = []
        for number in range(-(-isl // hash_block)):
            covered = min(hash_block, isl - number * hash_block)
            path = (*path, (stem if number < shared else len(made) + 100, covered))
            ids.append(names.setdefault(path, len(names)))
        made.append((isl, tuple(ids)))
    return made


@st.composite
def joined(draw: st.DrawFn, requests: list[Request]) -> list[Request]:
    """The requests as turns of few sessions: most wait for the one before, some for several or for none."""
    of_session: dict[int, list[int]] = {}
    made = []
    for number, request in enumerate(requests):
        session = draw(st.integers(0, 4))
        before = of_session.setdefault(session, [])
        waits = [before[-1:], before[-1:], before[-1:], before[-2:], before[:2], []]
        after = tuple(waits[draw(st.integers(0, 5))])
        think_s = TICK * draw(sampled(0, 0, 1, 3, 20)) if after else 0.0
        before.append(number)
        made.append(replace(request, session_id=session, after=after, think_s=think_s))
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
    slots = draw(sampled(5, 4, 3, 2, 1))
    caches = caches and draw(sampled(True, True, False))
    for pool in pools:
        budget = max(slots, draw(sampled(16, 8, 40, 8, 3, 1)))
        made_numbers[pool] = draw(numbers(budget))
        if pool in stepped:
            made_engines[pool] = draw(
                engines(pool, made_numbers[pool], budget, slots, caches=caches and pool != "decode")
            )
    policy = draw(sampled(*policies))
    strategy = draw(sampled(*strategies))
    multiple = draw(sampled(1, 1, 2, 4))
    hash_block = multiple * max((engine.block_tokens for engine in made_engines.values()), default=1)
    prefill_token_s = FINE * draw(st.integers(1, 64))
    prefill_floor_s = TICK * draw(st.integers(1, 3))
    batch = made_numbers[pools[-1]]
    world = World(
        prefill_batch_s=lambda tokens: prefill_floor_s + prefill_token_s * sum(tokens),
        step_s=batch.decode_s,
        spread_s=lambda n: batch.spread_s[n],
        max_batch_tokens=draw(sampled(1, 10, 40)),
        max_num_seqs=slots,
        max_kv_tokens=draw(sampled(None, 30, 60, 150)),
        kv_latency_s=TICK * draw(st.integers(0, 2)),
        kv_s_per_token=FINE * draw(sampled(0, 0, 16, 100)),
        kv_decode_steps=draw(sampled(0.0, 0.0, 0.5, 1.0)),
        kv_blocks_prefill=draw(st.booleans()),
        join_s_per_token=FINE * draw(sampled(0, 0, 4)),
        first_token=draw(sampled("prefill", "decode")),
        request_timeout_s=draw(sampled(None, None, 8 * TICK, 64 * TICK)),
        startup_delays_s=[TICK * t for t in draw(st.lists(st.integers(0, 30), min_size=1, max_size=4))],
        prefill_gpus=1,
        decode_gpus=draw(st.integers(1, 2)),
        aggregated_gpus=draw(st.integers(1, 2)),
        max_gpus=draw(st.integers(2, 10)),
        scheduling_policy=policy,
        routing_strategy=strategy,
        target_ttft_s=TICK * draw(sampled(2, 5, 20, 60)),
        target_itl_s=TICK * draw(sampled(1, 4)),
        engines=made_engines,
        hash_block_tokens=hash_block,
        overlap_credit=draw(sampled(1.0, 1.0, 0.0, 0.5, 2.0)),
        prefill_load_scale=draw(sampled(1.0, 1.0, 0.5, 4.0)),
        router_temperature=draw(sampled(0.0, 0.0, 0.0, 0.5)),
        router_staleness_s=TICK * draw(sampled(0, 0, 0, 8, 50)) if stale else 0.0,
        scale_down_choice=draw(sampled("least_outstanding", "least_cache_hits")),
        affinity_max_load=draw(sampled(1.0, 1.5)),
        seed=draw(st.integers(0, 3)),
        service="only",
        closed_loop=sessions,
        concurrent_sessions=draw(sampled(None, None, 1, 2, 3)) if sessions else None,
    )
    made = draw(prompts(hash_block, [6, 12, 18] if sessions else [1, 6, 12]))
    has_hashes = caches and any(engine.prefix_cache for engine in made_engines.values())
    arrival_s, requests = 0.0, []
    for number, (isl, ids) in enumerate(made):
        arrival_s += TICK * draw(sampled(0, 1, 0, 2, 5, 40)) if number else 0.0
        requests.append(
            Request(
                arrival_s=arrival_s,
                isl=isl,
                osl=draw(sampled(8, 12, 5, 3, 2, 1)),
                cached_tokens=0 if has_hashes else draw(sampled(0, 0, isl - 1, isl // 2)),
                priority=0 if policy in ("fifo", "slo_aware") else draw(sampled(-1, 0, 0, 2)),
                hash_ids=ids if has_hashes else (),
                session_id=draw(st.integers(0, 4)) if strategy == "session_affinity" else None,
            )
        )
    if sessions:
        requests = draw(joined(requests))
    sizes = st.tuples(*(st.integers(0, 4) for _ in pools))
    times = sorted(draw(st.lists(st.integers(1, 200), max_size=5, unique=True)))
    free, initial = world.max_gpus, []
    for pool in pools:
        gpus = getattr(world, f"{pool}_gpus")
        initial.append(min(draw(sampled(1, 1, 2, 3, 0)), free // gpus))
        free -= gpus * initial[-1]
    crash = st.tuples(st.integers(0, 90), sampled(*pools), sampled(0, 0, 1, 1, 2, 3))
    crashes = draw(st.lists(crash, max_size=most_crashes))
    return Scenario(
        requests=requests,
        world=world,
        initial=tuple(initial),
        script=[(TICK * t, *draw(sizes)) for t in times],
        until_s=draw(sampled(0.0, 0.0, TICK * 300)),
        snapshots=sorted({TICK * t for t in draw(st.lists(st.integers(0, 200), max_size=4))}),
        crashes=sorted((TICK * t, pool, number) for t, pool, number in crashes),
        cold_s=TICK * draw(sampled(0, 0, 7)) if most_crashes else 0.0,
        numbers=made_numbers,
        prefill_token_s=prefill_token_s,
        prefill_floor_s=prefill_floor_s,
    )
