"""An engine that takes one step after the other: what is in a step, and what its end brings (ENGINES.md 1-3).

While only decodes run no step is simulated: a run lasts to the next completion, to the boundary at which
somebody may be admitted, or to the step for which blocks are short, and lasts as ``step_times`` says. A step
with chunks of prompts is a run of its own. The members of an instance, in order of admission, are gone
through only when a token completes a prompt or a request.
"""

from __future__ import annotations

import numpy as np

from sagescale.sim.kernel.compiled import compiled, inlined
from sagescale.sim.kernel.gaps import gap, is_late, leave_steps, note_gap, note_token, run_gaps
from sagescale.sim.kernel.hits import note_hits
from sagescale.sim.kernel.instances import add_load, cold_start_s
from sagescale.sim.kernel.memory import (
    available,
    blocks_of,
    blocks_within,
    decode_phase,
    steps_that_fit,
    take,
)
from sagescale.sim.kernel.prefix_cache import add_scheduled, let_go, look_up, withdraw
from sagescale.sim.kernel.queues import drop_head
from sagescale.sim.kernel.requests import complete, expired, first_token, leave, reserves
from sagescale.sim.kernel.step_times import (
    begin_run,
    spread_s,
    step_now_s,
    steps_by,
)
from sagescale.sim.kernel.waiting import (
    cached,
    enqueue,
    head,
    known,
    leave_waiting,
    next_in_order,
    order,
)
from sagescale.sim.state import (
    AGGREGATED_ROLE,
    DECODE_ROLE,
    NEVER,
    PREFILL_ROLE,
    PRIORITY,
    RUNNING,
    RUNS,
    SGLANG,
    WAITS,
    State,
)


@inlined
def _load_seen(s: State, slot: int) -> int:
    """What the router compares an instance by, as of the step that has just ended."""
    d = s.instances[slot]
    e = s.stepped.engines[slot]
    role = s.pools[d.pool].role
    if role == AGGREGATED_ROLE:
        return WAITS * d.queued + RUNS * e.running
    if role == PREFILL_ROLE:
        return np.int64(e.prompt_tokens)
    return np.int64(d.load)  # reserved when bound


@inlined
def _see(s: State, slot: int) -> None:
    """Let the router see the step that has just ended."""
    d = s.instances[slot]
    e = s.stepped.engines[slot]
    e.seen_prompt_tokens = e.prompt_tokens
    e.seen_decoding = e.decoding
    e.seen_running = e.running
    e.seen_recomputing = e.recomputing
    e.seen_used = e.used
    load = _load_seen(s, slot)
    if load != d.load:
        add_load(s, slot, load - d.load)


# Pre-emption.


@inlined
def _remove_member(s: State, slot: int, index: int) -> None:
    x = s.stepped
    e = x.engines[slot]
    for i in range(e.members + index, e.members + e.running - 1):
        x.members[i] = x.members[i + 1]
    e.running -= 1


@inlined
def _no_longer_decodes(s: State, slot: int, index: int) -> None:
    """Take a decoding member out of what is known of all that decode."""
    x = s.stepped
    e = x.engines[slot]
    m = x.members[e.members + index]
    e.decoding -= 1
    e.base -= m.base
    x.phases[decode_phase(s, slot, m.base)] -= 1
    base, finish = m.base, m.finish
    m.finish = -1
    if base == e.longest or finish == e.next_finish:
        _look_again(s, slot)


@inlined
def _look_again(s: State, slot: int) -> None:
    """Find the first to finish and the longest of those that decode."""
    x = s.stepped
    e = x.engines[slot]
    e.next_finish = NEVER
    e.longest = -NEVER
    for i in range(e.members, e.members + e.running):
        if x.members[i].finish >= 0:
            e.next_finish = min(e.next_finish, x.members[i].finish)
            e.longest = max(e.longest, x.members[i].base)


@compiled
def _preempt(s: State, slot: int, index: int, t: float) -> None:
    """A member loses its blocks, those for the step now formed included, and waits in front."""
    x = s.stepped
    d = s.instances[slot]
    e = x.engines[slot]
    pool = s.pools[d.pool]
    m = x.members[e.members + index]
    request = np.int64(m.request)
    extra = x.requests[request]
    computed = np.int64(m.base)
    tokens = np.int64(m.chunk)
    if m.finish >= 0:
        computed += d.steps
        s.produced[request] = computed + 1 - s.isl[request]
        e.prompt_tokens += 1
        e.recomputing += 1
        leave_steps(s, slot, m)
        s.gaps.requests[request].last_s = t - m.stall_s
        _no_longer_decodes(s, slot, index)
    elif extra.arrived_computed:
        e.prompt_tokens += 1
        e.recomputing += 1
    elif pool.prefix_cache and tokens > 0:
        withdraw(s, slot, e.members + index, computed, tokens)
    e.used -= blocks_of(computed + tokens, pool.block_tokens) + m.ahead - m.shared
    if pool.prefix_cache:
        let_go(s, slot, m, computed, computed)
    extra.preemptions += 1
    extra.preempted = True
    extra.preempted_at = e.number
    extra.arrived_computed = False
    extra.lost = computed
    s.pools[d.pool].preemptions += 1
    there = cached(s, slot, request)
    e.prompt_tokens += computed - there
    e.waiting_tokens += known(s, request) - there
    _remove_member(s, slot, index)
    enqueue(s, slot, request, True)
    if expired(s, pool.service, request, t):
        s.requests[request].chain = e.expired
        e.expired = request


@inlined
def _victim(s: State, slot: int) -> int:
    """Who is pre-empted: the last admitted; by priority, the largest (priority, arrival)."""
    x = s.stepped
    e = x.engines[slot]
    found = np.int64(e.running - 1)
    if s.services[s.pools[s.instances[slot].pool].service].scheduling == PRIORITY:
        for i in range(e.running - 2, -1, -1):
            a = x.members[e.members + i].request
            b = x.members[e.members + found].request
            if s.priority[a] > s.priority[b] or (s.priority[a] == s.priority[b] and a > b):
                found = np.int64(i)
    return found


# A step is formed.


@inlined
def _chunk(s: State, slot: int, left: int, budget: int) -> int:
    """Tokens of a prompt in a step."""
    return min(left, budget, np.int64(s.pools[s.instances[slot].pool].long_prefill_tokens))


@inlined
def _only_decodes(s: State, slot: int, index: int) -> bool:
    """Whether a member has but one token to compute and that is no prompt's: ENGINES 2.3."""
    x = s.stepped
    m = x.members[x.engines[slot].members + index]
    if m.finish >= 0:
        return True
    request = np.int64(m.request)
    return known(s, request) - m.base == 1 and (
        m.base >= s.isl[request] or x.requests[request].arrived_computed
    )


@compiled
def _schedule_in_order(
    s: State, slot: int, budget: int, prompts: bool, decodes: bool, t: float
) -> tuple[int, bool]:
    """ENGINES 2.1 member by member, with pre-emption; what is left of the budget, and whether any was needed.

    Those that are in the step have a ``chunk``, decodes too.
    """
    x = s.stepped
    d = s.instances[slot]
    e = x.engines[slot]
    pool = s.pools[d.pool]
    block = np.int64(pool.block_tokens)
    preempted = False
    e.first_chunk = 0
    e.marked = e.marked or decodes
    i = np.int64(0)
    while i < e.running and budget > 0:
        if not (decodes if _only_decodes(s, slot, i) else prompts):
            i += 1
            continue
        m = x.members[e.members + i]
        computed = m.base + d.steps if m.finish >= 0 else m.base
        tokens = np.int64(1)
        if m.finish < 0:
            tokens = _chunk(s, slot, known(s, np.int64(m.request)) - computed, budget)
        blocks = blocks_of(computed + tokens, block) - blocks_of(computed, block) - m.ahead
        itself = False
        while blocks > available(s, slot) and not itself:
            preempted = True
            victim = _victim(s, slot)
            itself = victim == i
            returned = np.int64(x.members[e.members + victim].chunk)
            _preempt(s, slot, victim, t)
            budget += returned
            if victim < i:
                i -= 1
        if itself:
            break
        take(s, slot, blocks)
        m = x.members[e.members + i]
        m.ahead = 0
        m.chunk = tokens
        if pool.prefix_cache and m.finish < 0:
            add_scheduled(s, slot, e.members + i, computed, tokens)
        budget -= tokens
        i += 1
    return budget, preempted


@compiled
def _admit(s: State, slot: int, budget: int, whole: bool, computed_only: bool, t: float) -> tuple[int, bool]:
    """ENGINES 2.2: who waits joins, first come first served; the budget left, and whether blocks were short.

    ``whole``: blocks for all that is known must be free. ``computed_only``: those that arrived computed join
    a decode pool, without tokens in this step.
    """
    x = s.stepped
    d = s.instances[slot]
    e = x.engines[slot]
    pool = s.pools[d.pool]
    if s.services[pool.service].scheduling > PRIORITY:
        order(s, slot)
    while budget > 0 and e.running < pool.max_num_seqs:
        request = np.int64(next_in_order(s, slot, t))
        if request < 0:
            break
        extra = x.requests[request]
        if computed_only and not extra.arrived_computed:
            break
        all_of_it = known(s, request)
        there = cached(s, slot, request)
        hit = there
        blocks_hit, shared, idle = np.int64(0), np.int64(0), np.int64(0)
        caches = pool.prefix_cache and not extra.arrived_computed
        if caches:
            blocks_hit, shared, idle = look_up(s, slot, request, all_of_it, np.int64(-1))
            hit = max(hit, blocks_hit * pool.block_tokens)
        wanted = min(all_of_it - hit, np.int64(pool.long_prefill_tokens))
        if not pool.chunked_prefill and wanted > budget:
            break
        tokens = min(wanted, budget)
        need = blocks_of(all_of_it if whole else hit + tokens, pool.block_tokens) - blocks_hit + idle
        if need > available(s, slot):
            return budget, True
        drop_head(s, slot)
        d.queued -= 1
        e.waiting_tokens -= all_of_it - there
        e.prompt_tokens -= hit - there
        index = e.members + e.running
        m = x.members[index]
        m.request = request
        m.base = hit
        m.finish = -1
        m.chunk = 0 if computed_only else tokens
        m.hit = 0
        m.units = 0
        m.shared = shared
        m.private = -1
        m.gap_s = 0.0
        m.late = 0
        m.stall_s = 0.0
        m.left_out = False
        m.ahead = 0
        e.running += 1
        s.requests[request].state = RUNNING
        if caches:
            look_up(s, slot, request, all_of_it, index)
        if pool.role != DECODE_ROLE and not extra.admitted:
            extra.admitted = True
            extra.hit_tokens = blocks_hit * pool.block_tokens
            if caches:
                note_hits(s, slot, request, blocks_hit * pool.block_tokens, np.int64(m.units), t)
        take(s, slot, blocks_of(hit + tokens, pool.block_tokens) - shared)
        if pool.prefix_cache:
            add_scheduled(s, slot, index, hit, tokens)
        if extra.arrived_computed:
            e.joined_tokens += all_of_it - (0 if s.services[pool.service].decode_first else 1)
        if extra.preempted:
            extra.preempted = False
            extra.recomputed += max(np.int64(0), np.int64(extra.lost) - hit)
        if computed_only:
            m.ahead = blocks_of(hit + tokens, pool.block_tokens) - blocks_of(hit, pool.block_tokens)
        else:
            budget -= tokens
    return budget, False


@inlined
def _schedule_running(s: State, slot: int, budget: int, t: float) -> tuple[int, bool]:
    """ENGINES 2.1 at once where all have budget and blocks, else member by member."""
    x = s.stepped
    d = s.instances[slot]
    e = x.engines[slot]
    pool = s.pools[d.pool]
    block = np.int64(pool.block_tokens)
    prompts = e.running - e.decoding
    last = e.members + e.running - 1
    if prompts == 0 or (prompts == 1 and x.members[last].finish < 0):
        need = np.int64(0)
        if e.decoding > 0:
            need = np.int64(x.phases[e.phases + (-d.steps) % block])
        chunk = np.int64(0)
        base = np.int64(0)
        if prompts == 1:
            m = x.members[last]
            base = np.int64(m.base)
            chunk = _chunk(s, slot, known(s, np.int64(m.request)) - base, budget - e.decoding)
            need += blocks_of(base + chunk, block) - blocks_of(base, block) - m.ahead
        if need <= available(s, slot):
            take(s, slot, need)
            if prompts == 1:
                x.members[last].chunk = chunk
                x.members[last].ahead = 0
                if pool.prefix_cache:
                    add_scheduled(s, slot, last, base, chunk)
            e.first_chunk = e.running - prompts
            return budget - e.decoding - chunk, False
    return _schedule_in_order(s, slot, budget, True, True, t)


@inlined
def _prompts_left(s: State, slot: int) -> bool:
    """Whether some that run have prompts to compute."""
    e = s.stepped.engines[slot]
    for i in range(e.running):  # noqa: SIM110  # numba
        if not _only_decodes(s, slot, i):
            return True
    return False


@inlined
def _schedule_prefill_first(s: State, slot: int, t: float) -> tuple[int, bool, bool]:
    """``sglang``: prompts while any fit, else decodes; with ``mixed_chunk`` both. The budget left."""
    e = s.stepped.engines[slot]
    pool = s.pools[s.instances[slot].pool]
    budget = np.int64(pool.max_batched_tokens)
    preempted = False
    short = False
    if pool.role == DECODE_ROLE:
        _, short = _admit(s, slot, budget, True, True, t)
    if pool.mixed_chunk:
        budget, preempted = _schedule_in_order(s, slot, budget, False, True, t)
    if e.running > e.decoding and _prompts_left(s, slot):
        budget, again = _schedule_in_order(s, slot, budget, True, False, t)
        preempted = preempted or again
    if not preempted:
        budget, refused = _admit(s, slot, budget, True, False, t)
        short = short or refused
    e.advance = pool.mixed_chunk
    if budget == pool.max_batched_tokens and not preempted and e.running > 0:
        e.advance = True
        budget, preempted = _schedule_running(s, slot, budget, t)
    return budget, preempted, short or preempted


@inlined
def _schedule(s: State, slot: int, t: float) -> bool:
    """Choose what is in the step; whether there was a pre-emption."""
    e = s.stepped.engines[slot]
    pool = s.pools[s.instances[slot].pool]
    while True:
        e.first_chunk = e.running
        e.marked = False
        e.advance = True
        e.joined_tokens = 0
        short = False
        if pool.scheduler == SGLANG:
            budget, preempted, short = _schedule_prefill_first(s, slot, t)
        else:
            budget, preempted = _schedule_running(s, slot, np.int64(pool.max_batched_tokens), t)
            if not preempted and s.instances[slot].head >= 0 and e.running < pool.max_num_seqs:
                budget, short = _admit(s, slot, budget, pool.reserve_full_isl, False, t)
        e.short = preempted or short
        if budget < pool.max_batched_tokens or not preempted:
            return preempted


@compiled
def _let_expire(s: State, slot: int) -> None:
    """Rule 11: those pre-empted without a first token, when they have waited for too long already."""
    e = s.stepped.engines[slot]
    while e.expired >= 0:
        request = np.int64(e.expired)
        e.expired = s.requests[request].chain
        s.requests[request].chain = -1
        if s.stepped.requests[request].preempted:
            leave(s, s.pools[s.instances[slot].pool].service, request)
            leave_waiting(s, slot, request, True)
            if s.pools[s.instances[slot].pool].role == DECODE_ROLE:
                add_load(s, slot, -reserves(s, request))


@inlined
def _order_may_change(s: State, slot: int) -> bool:
    """Whether somebody waits who could be admitted in another order, which by slack changes with time."""
    d = s.instances[slot]
    pool = s.pools[d.pool]
    waits = d.queued > 0 and s.stepped.engines[slot].running < pool.max_num_seqs
    return bool(waits and s.services[pool.service].scheduling > PRIORITY)


@compiled
def begin_step(s: State, slot: int, t: float) -> None:
    """Form the next step, or the run of steps in which only decodes are."""
    x = s.stepped
    d = s.instances[slot]
    e = x.engines[slot]
    pool = s.pools[d.pool]
    if d.busy or (e.running == 0 and head(s, slot) < 0):
        return
    before = np.int64(e.used)
    e.number += 1
    preempted = _schedule(s, slot, t)
    if e.expired >= 0:
        _let_expire(s, slot)
    n = np.int64(e.decoding if e.advance else 0)
    kv = e.base + e.decoding * d.steps if e.advance else np.int64(0)
    longest = e.longest + d.steps if n > 0 else np.int64(0)
    computed = np.int64(0)
    cross = np.int64(0)
    squares = np.int64(0)
    e.first_tokens = 0
    e.prompts = False
    left_out = False
    for i in range(e.members + e.first_chunk, e.members + e.running):
        m = x.members[i]
        if m.finish >= 0:
            if e.marked and m.chunk == 0:
                m.left_out = True
                left_out = True
                n -= 1
                kv -= m.base + d.steps
            m.chunk = 0
        elif m.chunk > 0:
            e.prompts = True
            request = np.int64(m.request)
            left = known(s, request) - m.base
            e.first_tokens += m.chunk == left
            if left == 1 and (m.base >= s.isl[request] or x.requests[request].arrived_computed):
                n += 1
                kv += m.base
                longest = max(longest, m.base)
            else:
                computed += m.chunk
                cross += m.chunk * m.base
                squares += m.chunk * m.chunk
                longest = max(longest, m.base + m.chunk)
    if n == 0 and computed == 0:
        return  # nobody is admitted yet
    if left_out:
        longest = _leave_out(s, slot)
    d.run_start_s = t
    d.running = n
    d.kv = kv
    d.run_join_s = pool.join_s_per_token * e.joined_tokens + cold_start_s(s, slot)
    d.run_spread_s = 0.0
    d.run_steps = 1
    if computed == 0:
        if pool.spread >= 0:
            d.run_spread_s = spread_s(s, d.pool, n, kv, longest)
        if not e.prompts and not preempted and not _order_may_change(s, slot):
            room = pool.blocks - before - e.idle
            d.run_steps = max(steps_that_fit(s, slot, room, e.next_finish - d.steps), np.int64(1))
        s.slots[slot].event_s = t + begin_run(s, slot)
    else:
        within = n + computed
        seconds = s.tables_s[pool.tokens_table + within]
        seconds += pool.running_s * n
        seconds += pool.kv_s * kv
        seconds += pool.cross_s * cross
        seconds += pool.square_s * (0.5 * squares)
        seconds += pool.longest_s * longest
        s.slots[slot].event_s = t + (seconds + d.run_join_s)


@compiled
def _leave_out(s: State, slot: int) -> int:
    """Decodes without budget take their tokens a step later; the longest context without them."""
    x = s.stepped
    d = s.instances[slot]
    e = x.engines[slot]
    longest = np.int64(0)
    for i in range(e.members, e.members + e.running):
        m = x.members[i]
        if m.finish >= 0:
            if m.left_out:
                x.phases[decode_phase(s, slot, m.base)] -= 1
                m.base -= 1
                m.finish += 1
                x.phases[decode_phase(s, slot, m.base)] += 1
                e.base -= 1
            else:
                longest = max(longest, m.base + d.steps)
        elif m.chunk > 0:
            longest = max(longest, m.base + m.chunk)
    _look_again(s, slot)
    return int(longest)


# A step ends.


@inlined
def _stalls(s: State, slot: int, seconds: float) -> None:
    """Those that decode and were not in the step wait so much longer for their next token."""
    x = s.stepped
    e = x.engines[slot]
    for i in range(e.members, e.members + e.running):
        m = x.members[i]
        if m.finish >= 0 and (m.left_out or not e.advance):
            m.stall_s += seconds
            m.left_out = False
            e.stalled = True


@inlined
def note_gaps(s: State, slot: int, k: int, seconds: float) -> None:
    """Note the gaps of the first k steps of the run: a step with prompts, or steps of decodes alone."""
    x = s.stepped
    d = s.instances[slot]
    e = x.engines[slot]
    service = s.pools[d.pool].service
    if e.decoding > 0 and k > 0 and e.advance:
        first = np.int64(0)
        if e.stalled:
            first_s = seconds if e.prompts else step_now_s(s, slot, 1)
            first = np.int64(1)
            e.stalled = False
            for i in range(e.members, e.members + e.running):
                m = x.members[i]
                if m.finish >= 0 and not m.left_out:
                    note_gap(s, service, first_s + m.stall_s, 1, m)
                    m.stall_s = 0.0
                elif m.finish >= 0:
                    e.stalled = True
        elif e.first_chunk == 0 and (e.prompts or e.marked):  # some may have been left out
            first_s = seconds if e.prompts else step_now_s(s, slot, 1)
            late = is_late(s, service, first_s)
            count = np.int64(0)
            for i in range(e.members, e.members + e.running):
                m = x.members[i]
                if m.finish >= 0 and not m.left_out:
                    m.gap_s = max(m.gap_s, first_s)
                    m.late += late
                    count += 1
            if count > 0:
                gap(s, service, first_s, count)
            first = np.int64(1)
        elif e.prompts:
            note_gap(s, service, seconds, e.decoding, s.gaps.instances[slot])
            first = np.int64(1)
        if k > first:
            run_gaps(s, slot, first, k)


@compiled
def end_step(s: State, slot: int, t: float) -> int:
    """The run of steps ends: its tokens are there; what is complete leaves.

    The caller restores the tree of events, which is stale until then.

    Returns:
        Of prefill: the first of the linked requests that are to be handed over; -1 for none.
    """
    x = s.stepped
    d = s.instances[slot]
    e = x.engines[slot]
    k = np.int64(d.run_steps)
    seconds = t - d.run_start_s
    if e.short:
        s.pools[d.pool].short_s += seconds
    if s.pools[d.pool].kv_decode_steps > 0.0:
        d.last_step_s = seconds if e.prompts else step_now_s(s, slot, k)
        d.last_step_end_s = t
    note_gaps(s, slot, k, seconds)
    if e.advance:
        if k > 1:
            e.used += blocks_within(s, slot, np.int64(1), k)
        if e.first_chunk > 0:
            d.answer_tokens -= e.decoding * k
        else:
            for i in range(e.members, e.members + e.running):
                if x.members[i].finish >= 0 and not x.members[i].left_out:
                    d.answer_tokens -= k
        d.steps += k
    if e.decoding > 0 and (not e.advance or e.first_chunk == 0):
        _stalls(s, slot, seconds)
    s.slots[slot].event_s = np.inf
    d.run_steps = 0
    d.running = 0
    leaving = np.int64(-1)
    if e.first_tokens > 0 or (e.decoding > 0 and d.steps == e.next_finish):
        leaving = np.int64(_tokens(s, slot, t))
    elif e.prompts:
        for i in range(e.members + e.first_chunk, e.members + e.running):
            _compute(s, slot, i)
    _see(s, slot)
    return leaving


@inlined
def _compute(s: State, slot: int, index: int) -> None:
    """A member's chunk is computed."""
    x = s.stepped
    m = x.members[index]
    if m.finish < 0 and m.chunk > 0:
        m.base += m.chunk
        if not x.requests[m.request].arrived_computed:
            x.engines[slot].prompt_tokens -= m.chunk
        m.chunk = 0


@inlined
def _token(s: State, slot: int, index: int, t: float) -> bool:
    """A prompt is complete: its token is there, unless decode is to make it; whether the request is done."""
    x = s.stepped
    d = s.instances[slot]
    pool = s.pools[d.pool]
    m = x.members[index]
    request = np.int64(m.request)
    if pool.role == PREFILL_ROLE and s.services[pool.service].decode_first:
        return False
    note_token(s, pool.service, request, t)
    if np.isnan(s.requests[request].first_token_s):
        first_token(s, pool.service, request, t)
    return s.osl[request] - s.produced[request] == 1


@inlined
def _hand_over(s: State, slot: int, index: int) -> None:
    """Prefill is done with a request: it holds its blocks until its hand-off has ended."""
    x = s.stepped
    m = x.members[index]
    extra = x.requests[m.request]
    extra.source = slot
    extra.source_id = s.slots[slot].id
    extra.computed = m.base
    extra.request = m.request
    extra.hit = m.hit
    extra.units = m.units
    extra.shared = m.shared
    extra.private = m.private


@inlined
def _tokens(s: State, slot: int, t: float) -> int:
    """Go through the members in order: prompts that are complete, requests that are done.

    Returns:
        As ``end_step``.
    """
    x = s.stepped
    d = s.instances[slot]
    e = x.engines[slot]
    pool = s.pools[d.pool]
    g = s.gaps.instances[slot]
    stay = np.int64(0)
    first_leaving = np.int64(-1)
    last_leaving = np.int64(-1)
    for i in range(e.running):
        index = e.members + i
        m = x.members[index]
        request = np.int64(m.request)
        finished = False
        leaves = False
        if m.finish >= 0:
            m.gap_s = max(m.gap_s, g.gap_s)
            finished = m.finish == d.steps
            if finished:
                leave_steps(s, slot, m)
                e.decoding -= 1
                e.base -= m.base
                x.phases[decode_phase(s, slot, np.int64(m.base))] -= 1
                m.base += d.steps  # what it has computed
        elif m.chunk > 0:
            _compute(s, slot, index)
            if m.base == known(s, request):
                finished = _token(s, slot, index, t)
                if not x.requests[request].arrived_computed:
                    e.recomputing -= 1
                x.requests[request].arrived_computed = False
                leaves = pool.role == PREFILL_ROLE and not finished
                if leaves:
                    d.answer_tokens -= s.osl[request] - s.produced[request]
                else:
                    d.answer_tokens -= 1
                if not finished and not leaves:
                    m.base -= d.steps
                    m.finish = d.steps + s.osl[request] - s.produced[request] - 1
                    m.late = -g.late
                    e.decoding += 1
                    e.base += m.base
                    x.phases[decode_phase(s, slot, np.int64(m.base))] += 1
        if finished:
            e.used -= blocks_of(np.int64(m.base), pool.block_tokens) - m.shared
            if pool.prefix_cache:
                let_go(s, slot, m, np.int64(m.base), np.int64(0))
            complete(s, pool.service, request, t)
            if pool.role == DECODE_ROLE:
                add_load(s, slot, -reserves(s, request))
                d.bound -= 1
        elif leaves:
            _hand_over(s, slot, index)
            s.requests[request].link = -1
            if last_leaving < 0:
                first_leaving = request
            else:
                s.requests[last_leaving].link = request
            last_leaving = request
        else:
            if stay < i:
                x.members[e.members + stay] = m
            stay += 1
    e.running = stay
    g.gap_s = 0.0
    _look_again(s, slot)
    return int(first_leaving)


@inlined
def steps_ended(s: State, slot: int, t: float) -> int:
    """Steps of the run under way that have ended by t."""
    if s.stepped.engines[slot].prompts or s.slots[slot].event_s == np.inf:
        return np.int64(0)
    return np.int64(steps_by(s, slot, t))
