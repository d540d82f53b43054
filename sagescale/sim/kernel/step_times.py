"""How long batches and decode steps last; the closed form that spares stepping one token at a time.

Between a join and the next completion a decode instance takes k steps with the same n running requests, each
adding n tokens to the K held. While step time is linear in K, ``a + c*K``, those k steps last

    R(k) = k*(a + c*K) + c*n*k*(k-1)/2

(piecewise: one such term a segment of the profile). What unequal lengths add to a step stays the same while
nobody joins or leaves, since all grow by a token: it belongs to ``a``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.state import State


@inlined
def batch_s(s: State, pool: int, tokens: int, squares: float) -> float:
    """Seconds of a prefill batch of so many prompt tokens, with the sum of the prompts' squares."""
    p = s.pools[pool]
    top = p.prefill_top
    alone_s = s.tables_s[p.prefill_table + min(tokens, top)] + p.prefill_slope_s * max(0, tokens - top)
    across = float(tokens) * float(tokens) - squares
    return max(alone_s - p.quadratic_s * across, p.prefill_floor_s)


@inlined
def segment_at(table: Any, segment: int, held: float) -> int:
    """The segment in which so many tokens lie, from this one on."""
    while held >= table[segment].edge:
        segment += 1
    return segment


@compiled
def steps_s(table: Any, segment: int, n: int, kv: int, k: int, spread_s: float) -> float:
    """R(k): seconds that k steps of n running requests last when they hold ``kv`` tokens at the start.

    ``segment`` of the table is the one in which ``kv`` lies.
    """
    seconds = 0.0
    held = float(kv)
    while True:
        edge = table[segment].edge
        a = table[segment].base_s + spread_s
        c = table[segment].slope_s
        if held + float(n) * (k - 1) < edge:
            return seconds + (k * (a + c * held) + c * n * (0.5 * k * (k - 1)))
        inside = int(math.ceil((edge - held) / n))
        seconds += inside * (a + c * held) + c * n * (0.5 * inside * (inside - 1))
        held += float(n) * inside
        k -= inside
        segment = segment_at(table, segment, held)


@compiled
def _boundary(
    table: Any,
    first: int,
    n: int,
    kv: int,
    start_s: float,
    join_s: float,
    spread_s: float,
    limit: int,
    t: float,
) -> tuple[int, float]:
    """The smallest k in 1..limit whose step ends at or after t, and that end: R inverted, then compared."""
    rest = t - start_s - join_s
    segment = first
    held = float(kv)
    done = 0
    k = 1
    while rest > 0.0:
        a = table[segment].base_s + spread_s + table[segment].slope_s * held
        cn = table[segment].slope_s * n
        b = a - 0.5 * cn
        guess = rest / a if cn == 0.0 else 2.0 * rest / (b + math.sqrt(max(b * b + 2.0 * cn * rest, 0.0)))
        inside = np.ceil((table[segment].edge - held) / n)  # math.ceil would make an integer of inf
        if guess <= inside:
            k = done + int(math.ceil(guess))
            break
        if done + inside >= limit:
            k = limit
            break
        count = int(inside)
        rest -= count * a + cn * (0.5 * count * (count - 1))
        held += float(n) * count
        done += count
        k = done
        segment = segment_at(table, segment, held)
    k = min(max(k, 1), limit)
    end_s = start_s + (join_s + steps_s(table, first, n, kv, k, spread_s))
    while k < limit and end_s < t:
        k += 1
        end_s = start_s + (join_s + steps_s(table, first, n, kv, k, spread_s))
    while k > 1:
        earlier_s = start_s + (join_s + steps_s(table, first, n, kv, k - 1, spread_s))
        if earlier_s < t:
            break
        k -= 1
        end_s = earlier_s
    return k, end_s


@inlined
def spread_s(s: State, pool: int, running: int, kv: int, longest: int) -> float:
    """What unequal lengths add to each step of so many requests that hold ``kv`` tokens (ENGINES.md 8)."""
    p = s.pools[pool]
    return float(s.tables_s[p.spread + running] * float(running * longest - kv) / running)


@inlined
def begin_run(s: State, slot: int) -> float:
    """Note where a decode instance's run begins in its step times; return its seconds, joins included."""
    d = s.instances[slot]
    pool = s.pools[d.pool]
    row = pool.step_table + d.running * pool.step_segments
    d.segment = segment_at(s.steps, row, float(d.kv))
    return d.run_join_s + steps_s(s.steps, d.segment, d.running, d.kv, d.run_steps, d.run_spread_s)


@inlined
def run_boundary(s: State, slot: int, t: float) -> tuple[int, float]:
    """At or after t, the next step boundary of the run in progress: after how many steps, and when."""
    d = s.instances[slot]
    return _boundary(
        s.steps, d.segment, d.running, d.kv, d.run_start_s, d.run_join_s, d.run_spread_s, d.run_steps, t
    )


@inlined
def step_now_s(s: State, slot: int, k: int) -> float:
    """Seconds of the k-th step of the run, joins included."""
    d = s.instances[slot]
    held = float(d.kv + d.running * (k - 1))
    segment = segment_at(s.steps, d.segment, held)
    seconds = float(s.steps[segment].base_s + d.run_spread_s + s.steps[segment].slope_s * held)
    if k == 1:
        seconds += d.run_join_s
    return seconds


@compiled
def steps_by(s: State, slot: int, t: float) -> int:
    """Steps of a decode instance's run in progress, with requests in it, that have ended by t."""
    if s.slots[slot].event_s == np.inf:
        return 0
    k, end_s = run_boundary(s, slot, t)
    return k if end_s <= t else k - 1
