"""The step-by-step reference against examples worked out by hand, one rule of ENGINES each.

Unless a test says otherwise a step takes 1 s whatever it computes, a block is 4 tokens, the budget 8 tokens,
memory unlimited, a hand-off takes nothing, a start-up 10 s, and there is one aggregated instance.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from reference import Outcome, Request, World, simulate
from reference_examples import WORLD as PLAIN_WORLD
from reference_examples import times
from reference_records import Engine
from reference_router import splitmix64, uniform
from reference_step_times import StepTimes

ENGINE = Engine(
    scheduler="vllm",
    step_s=lambda n, kv, longest, chunks: 1.0,
    max_num_seqs=8,
    max_batched_tokens=8,
    max_kv_tokens=None,
    block_tokens=4,
)
WORLD = replace(PLAIN_WORLD, hash_block_tokens=8)
SHARED = Path(os.environ.get("SAGESCALE_SHARED", Path(__file__).parents[3] / "shared"))


def world(pool: str = "aggregated", rest: dict | None = None, **engine) -> World:
    """``rest`` is of the world."""
    return replace(WORLD, engines={pool: replace(ENGINE, **engine)}, **(rest or {}))


def firsts(outcome: Outcome) -> list[float | None]:
    return [request.first_token_s for request in outcome.requests]


def entries(outcome: Outcome) -> list[int | None]:
    return [request.prefill_id for request in outcome.requests]


class Log:
    """A step time of 1 s that remembers what it was asked for."""

    def __init__(self):
        self.steps = []

    def __call__(self, n, kv, longest, chunks):
        self.steps.append((n, kv, longest, chunks))
        return 1.0


# Section 2: a step of vllm


def test_a_prompt_is_computed_in_chunks_of_the_budget_and_decodes_after():
    log = Log()
    outcome = simulate([Request(0.0, 18, 3)], world(step_s=log), (1,))
    assert log.steps == [
        (0, 0, 8, [(8, 0)]),
        (0, 0, 16, [(8, 8)]),
        (0, 0, 18, [(2, 16)]),
        (1, 18, 18, []),
        (1, 19, 19, []),
    ]
    assert times(outcome) == [(3.0, 5.0)]
    assert outcome.requests[0].gaps_s == (1.0, 1.0)


def test_running_requests_come_first_and_a_waiting_prompt_gets_what_they_leave():
    # 1 (first token at 1) decodes with 7 left for the second, which arrived at 1: 7 of 9, then 2 of 9.
    log = Log()
    outcome = simulate([Request(0.0, 2, 4), Request(1.0, 9, 1)], world(step_s=log), (1,))
    assert log.steps == [
        (0, 0, 2, [(2, 0)]),
        (1, 2, 7, [(7, 0)]),
        (1, 3, 9, [(2, 7)]),
        (1, 4, 4, []),
    ]
    assert times(outcome) == [(1.0, 4.0), (3.0, 3.0)]


def test_an_arrival_joins_at_the_next_step_boundary():
    outcome = simulate([Request(0.0, 2, 4), Request(1.5, 2, 1), Request(2.0, 2, 1)], world(), (1,))
    assert times(outcome) == [(1.0, 4.0), (3.0, 3.0), (3.0, 3.0)]


def test_the_threshold_caps_the_chunk_of_a_prompt_and_lets_others_by():
    # 3 + 3 of the two first, 2 of the third; 3 + 1 (done) + 3; 2 + 3.
    log = Log()
    requests = [Request(0.0, 8, 1), Request(0.0, 4, 1), Request(0.0, 7, 1)]
    outcome = simulate(requests, world(step_s=log, long_prefill_token_threshold=3), (1,))
    assert [chunks for *_, chunks in log.steps] == [
        [(3, 0), (3, 0), (2, 0)],
        [(3, 3), (1, 3), (3, 2)],
        [(2, 6), (2, 5)],
    ]
    assert firsts(outcome) == [3.0, 2.0, 3.0]


def test_without_chunks_a_prompt_waits_for_a_step_that_takes_all_of_it_and_nobody_overtakes():
    requests = [Request(0.0, 5, 1), Request(0.0, 6, 1), Request(0.0, 1, 1)]
    outcome = simulate(requests, world(chunked_prefill=False), (1,))
    assert firsts(outcome) == [1.0, 2.0, 2.0]


def test_without_chunks_what_could_not_be_computed_again_in_one_step_is_rejected():
    requests = [Request(0.0, 6, 3), Request(0.0, 6, 4)]
    outcome = simulate(requests, world(chunked_prefill=False), (1,))
    assert [r.state for r in outcome.requests] == ["done", "rejected"]


def test_slots_are_taken_in_order():
    outcome = simulate([Request(0.0, 1, 3), Request(0.0, 1, 1)], world(max_num_seqs=1), (1,))
    assert times(outcome) == [(1.0, 3.0), (4.0, 4.0)]


def test_the_step_time_has_the_form_of_section_8():
    step = StepTimes(
        itl_s=lambda n, kv: 1.0 + kv / 8,
        tokens_s=((1, 1.0), (5, 3.0), (9, 11.0)),
        running_s=0.5,
        kv_s=0.25,
        cross_s=0.125,
        square_s=0.5,
        longest_s=2.0,
        spread_s=lambda n: 4.0,
    )
    assert step(2, 6, 4, []) == 1.75 + 4.0 * (2 * 4 - 6) / 2
    # 7 tokens: 3 + 2 * 2.
    assert step(2, 6, 5, [(3, 2), (2, 0)]) == 7.0 + 1.0 + 1.5 + 0.75 + 0.5 * 13 / 2 + 10.0


# Section 3: memory


def test_the_last_in_running_order_is_pre_empted_and_computed_again_with_what_it_produced():
    # 4 blocks. Steps: 5 + 3; 1 + 2 (the second has its first token at 2); decodes until 8 and 7 are
    # computed; at 4 the first needs a third block: the second gives way and waits until the first is done
    # at 6.
    log = Log()
    requests = [Request(0.0, 5, 6), Request(0.0, 5, 6)]
    outcome = simulate(requests, world(max_kv_tokens=16, step_s=log), (1,))
    assert log.steps[:2] == [(0, 0, 5, [(5, 0), (3, 0)]), (1, 5, 5, [(2, 3)])]
    assert times(outcome)[0] == (1.0, 6.0)
    assert [r.preemptions for r in outcome.requests] == [0, 1]
    # Tokens at 2, 3, 4: known 8, computed 7 when at 4 it is pre-empted. Computed again from 6: all 8 at 7.
    assert outcome.requests[1].gaps_s == (1.0, 1.0, 3.0, 1.0, 1.0)
    assert outcome.requests[1].recomputed_tokens == 7
    # An allocation failed in step 4..5; the head was refused in 5..6.
    assert outcome.lifetimes[0].full_memory_s == 2.0


def test_by_priority_the_victim_is_the_least_urgent_and_its_budget_returns():
    # 3 blocks of 4. The first (least urgent) runs, then the urgent one; the urgent one needs a block at 5.
    requests = [Request(0.0, 3, 9, priority=1), Request(0.0, 3, 6, priority=0)]
    loose = simulate(requests, world(max_kv_tokens=12), (1,))
    assert [r.preemptions for r in loose.requests] == [0, 1]
    by_priority = simulate(requests, world(max_kv_tokens=12, rest={"scheduling_policy": "priority"}), (1,))
    assert [r.preemptions for r in by_priority.requests] == [1, 0]
    assert times(by_priority)[1] == (1.0, 6.0)


def test_a_prompt_is_admitted_where_all_of_it_fits_or_its_first_chunk():
    # 4 blocks. The first holds 2 until 4, a prompt of 9 needs 3. Where a chunk is enough it is admitted at
    # 0 with 3 tokens and at 2 with 7, and gives way to nobody but itself when the next chunk does not fit,
    # at 1 and 3.
    requests = [Request(0.0, 5, 4), Request(0.0, 9, 1)]
    reserved = simulate(requests, world(max_kv_tokens=16), (1,))
    assert firsts(reserved) == [1.0, 6.0]
    first_chunk = simulate(requests, world(max_kv_tokens=16, reserve_full_isl=False), (1,))
    assert [r.preemptions for r in first_chunk.requests] == [0, 2]
    assert [r.recomputed_tokens for r in first_chunk.requests] == [0, 3 + 7]
    assert firsts(first_chunk) == [1.0, 6.0]


def test_what_can_never_fit_is_rejected():
    requests = [Request(0.0, 9, 4), Request(0.0, 9, 3)]
    outcome = simulate(requests, world(max_kv_tokens=15), (1,))
    assert [r.state for r in outcome.requests] == ["rejected", "done"]


# sglang


def test_sglang_prefills_first_and_decodes_stall():
    # The first decodes 1..2, then the second's prompt of 12 takes two steps of its own; then both decode.
    log = Log()
    requests = [Request(0.0, 2, 4), Request(1.5, 12, 2)]
    outcome = simulate(requests, world(step_s=log, scheduler="sglang"), (1,))
    assert log.steps == [
        (0, 0, 2, [(2, 0)]),
        (1, 2, 2, []),
        (0, 0, 8, [(8, 0)]),
        (0, 0, 12, [(4, 8)]),
        (2, 15, 12, []),
        (1, 4, 4, []),
    ]
    assert times(outcome) == [(1.0, 6.0), (4.0, 5.0)]


def test_an_unfinished_prompt_goes_first_in_the_next_prefill_step():
    log = Log()
    simulate([Request(0.0, 10, 1), Request(0.0, 3, 1)], world(step_s=log, scheduler="sglang"), (1,))
    assert [chunks for *_, chunks in log.steps] == [[(8, 0)], [(2, 8), (3, 0)]]


def test_with_mixed_chunk_a_prefill_step_decodes_too():
    log = Log()
    requests = [Request(0.0, 2, 4), Request(1.0, 9, 1)]
    simulate(requests, world(step_s=log, scheduler="sglang", mixed_chunk=True), (1,))
    assert log.steps[1:3] == [(1, 2, 7, [(7, 0)]), (1, 3, 9, [(2, 7)])]


def test_sglang_decodes_while_the_next_prompt_does_not_fit():
    # 4 blocks: the first holds 2, the second needs 3.
    requests = [Request(0.0, 5, 3), Request(0.5, 9, 1)]
    outcome = simulate(requests, world(max_kv_tokens=16, scheduler="sglang"), (1,))
    assert times(outcome) == [(1.0, 3.0), (5.0, 5.0)]


def test_sglang_does_not_count_what_arrives_computed_as_a_prompt():
    # Prefill ends at 1 and at 3; the second joins the decode step 3..4 of the first.
    log = Log()
    requests = [Request(0.0, 1, 6), Request(0.0, 2, 2)]
    outcome = simulate(requests, world("decode", step_s=log, scheduler="sglang"), (1, 1))
    assert log.steps == [(1, 1, 1, []), (1, 2, 2, []), (2, 5, 3, []), (1, 4, 4, []), (1, 5, 5, [])]
    assert times(outcome) == [(1.0, 6.0), (3.0, 4.0)]


# Scheduling policies


def test_by_priority_the_most_urgent_waiting_prompt_is_next():
    requests = [Request(0.0, 8, 1), Request(0.5, 8, 1, priority=1), Request(0.75, 8, 1, priority=0)]
    by_priority = world(rest={"scheduling_policy": "priority"})
    assert firsts(simulate(requests, by_priority, (1,))) == [1.0, 3.0, 2.0]
    assert firsts(simulate(requests, world(), (1,))) == [1.0, 2.0, 3.0]


def test_by_slack_a_prompt_that_can_only_be_late_goes_last_and_a_pre_empted_one_first():
    # Due 2 after arrival, a prompt alone takes 1: at 2 the second (due at 2.5) is late, the third (3.25) is
    # not.
    requests = [Request(0.0, 16, 1), Request(0.5, 8, 1), Request(1.25, 8, 1)]
    rest = {"scheduling_policy": "slo_aware", "target_ttft_s": 2.0}
    assert firsts(simulate(requests, world(rest=rest), (1,))) == [2.0, 4.0, 3.0]
    # 4 blocks. The second is pre-empted at 4 (see above); the third, which came at 1, waits behind it, and
    # its 8 tokens are all that the step of 6 computes.
    requests = [Request(0.0, 5, 6), Request(0.0, 5, 6), Request(1.0, 1, 1)]
    rest = {"scheduling_policy": "slo_aware", "target_ttft_s": 1000.0}
    outcome = simulate(requests, world(max_kv_tokens=16, max_num_seqs=2, rest=rest), (1,))
    assert [r.preemptions for r in outcome.requests] == [0, 1, 0]
    assert firsts(outcome) == [1.0, 2.0, 8.0]


def test_adaptive_is_by_priority_until_more_waits_than_one_step_takes():
    rest = {"scheduling_policy": "adaptive", "target_ttft_s": 100.0}
    urgent_last = [Request(0.0, 8, 1), Request(0.5, 4, 1, priority=1), Request(0.75, 4, 1, priority=0)]
    log = Log()
    simulate(urgent_last, world(rest=rest, step_s=log, max_num_seqs=1), (1,))
    assert [chunks for *_, chunks in log.steps] == [[(8, 0)], [(4, 0)], [(4, 0)]]
    assert firsts(simulate(urgent_last, world(rest=rest, max_num_seqs=1), (1,))) == [1.0, 3.0, 2.0]


# Roles


def test_a_prefill_pool_ends_at_the_first_token_and_holds_blocks_until_the_hand_off_ends():
    # 2 blocks. First token at 1; the hand-off of 4 tokens ends at 5. The next prompt needs both blocks: 5..6.
    rest = {"kv_s_per_token": 1.0}
    outcome = simulate(
        [Request(0.0, 4, 2), Request(0.0, 5, 1)], world("prefill", rest, max_kv_tokens=8), (1, 1)
    )
    assert times(outcome) == [(1.0, 6.0), (6.0, 6.0)]
    assert outcome.lifetimes[0].full_memory_s == 1.0  # of the step 0..1; none took place meanwhile


def test_a_hand_off_that_blocks_delays_the_next_step():
    rest = {"kv_s_per_token": 1.0, "kv_blocks_prefill": True}
    outcome = simulate([Request(0.0, 8, 2), Request(0.0, 2, 1)], world("prefill", rest), (1, 1))
    assert times(outcome) == [(1.0, 10.0), (10.0, 10.0)]


def test_a_decode_pool_gets_what_is_computed_and_decodes_at_once():
    # Prefill (a token a second) ends at 3; step 3..4 gives the second token, holding 3 before it.
    log = Log()
    outcome = simulate([Request(0.0, 3, 3)], world("decode", step_s=log), (1, 1))
    assert log.steps == [(1, 3, 3, []), (1, 4, 4, [])]
    assert times(outcome) == [(3.0, 5.0)]


def test_with_first_tokens_from_decode_it_arrives_one_short():
    log = Log()
    outcome = simulate([Request(0.0, 3, 2)], world("decode", {"first_token": "decode"}, step_s=log), (1, 1))
    assert log.steps == [(1, 2, 2, []), (1, 3, 3, [])]
    assert times(outcome) == [(4.0, 5.0)]


def test_pre_empted_at_a_decode_pool_it_is_computed_again_there_in_chunks():
    # 3 blocks. Arrived at 2 and 3 with 2 and 3 tokens; at 4 both have 4 and need a second block, which the
    # first takes. The second has 2 tokens by then: 3 + 2 are computed when the first is done, at 8, in one
    # chunk.
    log = Log()
    requests = [Request(0.0, 2, 7), Request(0.0, 3, 6)]
    outcome = simulate(requests, world("decode", max_kv_tokens=12, step_s=log), (2, 1))
    assert [r.preemptions for r in outcome.requests] == [0, 1]
    assert (0, 0, 5, [(5, 0)]) in log.steps
    assert times(outcome) == [(2.0, 8.0), (3.0, 12.0)]


def test_with_first_tokens_from_decode_a_prefill_pool_makes_none():
    rest = {"first_token": "decode", "kv_latency_s": 4.0}
    outcome = simulate([Request(0.0, 9, 1)], world("prefill", rest), (1, 1))
    # 8 + 1 to 2, the hand-off to 6, a decode step to 7.
    assert times(outcome) == [(7.0, 7.0)]


def test_joining_makes_a_decode_step_longer():
    rest = {"join_s_per_token": 0.5}
    outcome = simulate([Request(0.0, 4, 3)], world("decode", rest), (1, 1))
    assert times(outcome) == [(4.0, 4.0 + 3.0 + 1.0)]


# Section 4: the prefix cache


def cached(**engine) -> World:
    return world(prefix_cache=True, **engine)


def test_a_unit_is_found_from_the_moment_its_last_token_is_scheduled():
    # In one step: 8 + 4 computed, and the second hits the first's unit of 8 though nothing is computed yet.
    log = Log()
    requests = [Request(0.0, 12, 1, hash_ids=(1, 2)), Request(0.0, 12, 1, hash_ids=(1, 3))]
    outcome = simulate(requests, cached(step_s=log, max_batched_tokens=16), (1,))
    assert [r.hit_tokens for r in outcome.requests] == [0, 8]
    assert log.steps == [(0, 0, 12, [(12, 0), (4, 8)])]


def test_at_least_one_token_is_computed():
    # 16 tokens are there; 15 // 4 blocks are hit.
    requests = [Request(0.0, 16, 1, hash_ids=(1, 2)), Request(9.0, 16, 1, hash_ids=(1, 2))]
    assert [r.hit_tokens for r in simulate(requests, cached(), (1,)).requests] == [0, 12]


def test_the_last_id_of_a_prompt_may_cover_fewer_tokens():
    # 8 + 5: one full block of the second id; of 13 tokens 12 are hit.
    requests = [Request(0.0, 13, 1, hash_ids=(1, 2)), Request(9.0, 13, 1, hash_ids=(1, 2))]
    assert [r.hit_tokens for r in simulate(requests, cached(), (1,)).requests] == [0, 12]


def test_the_tail_is_evicted_before_the_head_and_units_as_a_whole():
    # 6 blocks. The first leaves 2 units of 2 blocks idle; the next needs 3 blocks of the 2 free and 4 idle:
    # the tail, id 2, goes. The third finds id 1 alone.
    requests = [
        Request(0.0, 16, 1, hash_ids=(1, 2)),
        Request(10.0, 11, 1),
        Request(20.0, 16, 1, hash_ids=(1, 2)),
    ]
    outcome = simulate(requests, cached(max_kv_tokens=24), (1,))
    assert [r.hit_tokens for r in outcome.requests] == [0, 0, 8]


def test_what_was_let_go_longest_ago_is_evicted_first():
    # 6 blocks; ids 1 and 2 of 2 blocks each are let go in this order, then 1 is held and let go again. The
    # fourth prompt needs 3 blocks of 2 free ones: 2 goes, 1 stays.
    prompts = [(9, (1, 10)), (9, (2, 20)), (9, (1, 11)), (9, ()), (9, (1, 12)), (9, (2, 21))]
    requests = [Request(10.0 * k, isl, 1, hash_ids=ids) for k, (isl, ids) in enumerate(prompts)]
    outcome = simulate(requests, cached(max_kv_tokens=24), (1,))
    assert [r.hit_tokens for r in outcome.requests] == [0, 0, 8, 0, 8, 0]


def test_shared_blocks_count_once_in_memory():
    # 4 blocks: 2 shared, and one more for each. 8 + 0; 1 of the first and 1 of the second, which hits 8.
    requests = [Request(0.0, 9, 4, hash_ids=(1, 2)), Request(1.0, 9, 3, hash_ids=(1, 3))]
    outcome = simulate(requests, cached(max_kv_tokens=16), (1,))
    assert [r.preemptions for r in outcome.requests] == [0, 0]
    assert firsts(outcome) == [2.0, 2.0]


def test_a_pre_empted_request_finds_its_own_full_blocks_again():
    # As in the first test of memory: 7 were computed, 1 full block of 4 is left, if nobody took it. The first
    # takes one block of the second's two when it gives way.
    requests = [Request(0.0, 5, 6), Request(0.0, 5, 6)]
    outcome = simulate(requests, cached(max_kv_tokens=16), (1,))
    assert [r.preemptions for r in outcome.requests] == [0, 1]
    assert outcome.requests[1].recomputed_tokens == 3
    assert outcome.requests[1].hit_tokens == 0


def test_a_new_instance_is_cold():
    requests = [Request(0.0, 9, 1, hash_ids=(1, 2)), Request(20.0, 9, 1, hash_ids=(1, 2))]
    outcome = simulate(requests, cached(), (1,), [(5.0, 2)], crashes=[(15.0, "aggregated", 0)])
    assert entries(outcome) == [0, 1]
    assert [r.hit_tokens for r in outcome.requests] == [0, 0]


def test_the_cache_of_a_prefill_pool_is_found_while_it_is_handed_off():
    requests = [Request(0.0, 9, 2, hash_ids=(1, 2)), Request(5.0, 9, 1, hash_ids=(1, 3))]
    outcome = simulate(requests, world("prefill", {"kv_latency_s": 50.0}, prefix_cache=True), (1, 1))
    assert [r.hit_tokens for r in outcome.requests] == [0, 8]


# Section 5: where a request goes


def test_aggregated_load_is_four_times_waiting_and_running():
    # At 0: 0, then 4 against 0, 4 against 4. The first is done at 1; at 2.0 one runs (1) against one (1).
    requests = [Request(0.0, 1, 9), Request(0.0, 1, 9), Request(0.0, 1, 9), Request(2.0, 1, 1)]
    assert entries(simulate(requests, world(), (2,))) == [0, 1, 0, 1]


def test_what_is_admitted_is_seen_to_run_when_the_step_has_ended():
    # At 0.5 instance 0 runs one (seen waiting: 4), instance 1 none; at 1.5 0 has 1 and 1 has 4.
    requests = [Request(0.0, 1, 9), Request(0.5, 1, 9), Request(1.25, 1, 9)]
    assert entries(simulate(requests, world(), (2,))) == [0, 1, 0]


def test_least_tokens_counts_what_is_to_compute_and_to_produce():
    rest = {"routing_strategy": "least_tokens"}
    # 2 + 9, 1 + 2, 3 + 3 + 1: 11 against 3 against 7.
    requests = [Request(0.0, 2, 9), Request(0.0, 1, 2), Request(0.0, 3, 1), Request(0.0, 1, 9)]
    assert entries(simulate(requests, world(rest=rest), (2,))) == [0, 1, 1, 1]


def test_kv_aware_weighs_the_prefix_against_the_load():
    rest = {"routing_strategy": "kv_aware"}
    # The first leaves 2 blocks at 0. A prompt of 9 with that prefix at 10: (9 / 4 - 2) against 9 / 4 at 1.
    first, hit = Request(0.0, 9, 1, hash_ids=(1, 2)), Request(10.0, 9, 5, hash_ids=(1, 3))
    # At 12 instance 0 holds 3 blocks for decoding and nothing is outstanding: 3 + 9 / 4 - 2 against 9 / 4.
    again = Request(12.5, 9, 1, hash_ids=(1, 4))
    outcome = simulate([first, hit, again], world(rest=rest, prefix_cache=True), (2,))
    assert entries(outcome) == [0, 0, 1]
    twice = replace(world(rest=rest, prefix_cache=True), overlap_credit=2.0)
    assert entries(simulate([first, hit, again], twice, (2,))) == [0, 0, 0]


def test_prefix_affinity_adds_shares_of_prefix_queue_and_memory():
    rest = {"routing_strategy": "prefix_affinity"}
    first = Request(0.0, 9, 1, hash_ids=(1, 2))
    # At 10: prefix 2 * 8 / 9 + 1 + 1 at 0, 1 + 1 at 1; the other prompt ties: 0.
    outcome = simulate(
        [first, Request(10.0, 9, 1, hash_ids=(1, 2)), Request(20.0, 9, 1, hash_ids=(5, 6))],
        world(rest=rest, prefix_cache=True, max_kv_tokens=64),
        (2,),
    )
    assert entries(outcome) == [0, 0, 0]
    # One waits at 0 (of at most one): 2 * 0 + 0 + 1 against 0 + 1 + 1.
    assert entries(simulate([Request(0.0, 1, 1)] * 2, world(rest=rest), (2,))) == [0, 1]


def test_session_affinity_stays_while_the_load_allows():
    rest = {"routing_strategy": "session_affinity"}
    # Loads when the third comes at 2.5: 1 and 1, at most 1.5 times the mean: home. When the fourth comes at
    # once: 5 against 1 and a mean of 3: over 4.5, so to the other.
    requests = [
        Request(0.0, 1, 9, session_id=7),
        Request(0.0, 1, 9, session_id=8),
        Request(2.5, 1, 1, session_id=8),
        Request(2.5, 1, 1, session_id=8),
    ]
    assert entries(simulate(requests, world(rest=rest), (2,))) == [0, 1, 1, 0]


def test_a_stale_router_knows_its_own_dispatches_only():
    # Seen at 0: nothing. The first is done at 1, but counts until 8: then all is forgotten.
    rest = {"router_staleness_s": 8.0}
    requests = [Request(0.0, 1, 1), Request(4.0, 1, 1), Request(6.0, 1, 1), Request(8.0, 1, 1)]
    assert entries(simulate(requests, world(rest=rest), (2,))) == [0, 1, 0, 0]
    assert entries(simulate(requests, world(), (2,))) == [0, 0, 0, 0]


def test_a_stale_router_knows_caches_as_of_its_last_look_and_new_instances_as_cold():
    rest = {"routing_strategy": "kv_aware", "router_staleness_s": 8.0}
    same = [Request(t, 9, 1, hash_ids=(1, 2)) for t in (0.0, 4.0, 9.0)]
    # At 4 nothing is known to be cached, and the first counts as outstanding: to 1. From 8 on both have it.
    outcome = simulate(same, world(rest=rest, prefix_cache=True), (2,))
    assert entries(outcome) == [0, 1, 0]
    assert [r.hit_tokens for r in outcome.requests] == [0, 0, 8]


def test_the_draw_depends_on_seed_service_and_request():
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the first output of the published generator, seeded with 0
    drawn = {uniform(seed, service, r) for seed in (0, 1) for service in ("", "chat") for r in range(100)}
    assert len(drawn) == 400
    assert 0.0 <= min(drawn) < 0.05
    assert 0.95 < max(drawn) < 1.0


def test_a_temperature_spreads_what_would_all_go_to_the_least():
    rest = {"routing_strategy": "kv_aware", "router_temperature": 1.0}
    requests = [Request(20.0 * k, 1, 1) for k in range(100)]
    outcome = simulate(requests, world(rest=rest), (2,))  # always equal: uniform
    assert 35 < sum(entries(outcome)) < 65


# Section 7: measures


def test_the_itl_of_a_request_is_the_mean_or_a_high_one_of_its_gaps():
    # Tokens at 2, 3, 4, then pre-empted until 7 and 8, 9: gaps of 1, 1, 3, 1, 1 (see memory, above).
    requests = [Request(0.0, 5, 6), Request(0.0, 5, 6), Request(20.0, 1, 1)]
    outcome = simulate(requests, world(max_kv_tokens=16), (1,)).requests
    assert [outcome[1].itl_s(statistic) for statistic in ("mean", "p99", "max")] == [1.4, 3.0, 3.0]
    assert [outcome[1].is_good(9.0, 2.0, statistic) for statistic in ("mean", "p99")] == [True, False]
    assert outcome[2].itl_s("max") is None
    assert outcome[2].is_good(9.0, 0.5, "max")
    hundred = replace(outcome[1], gaps_s=(5.0, *(float(k) for k in range(1, 100))))
    assert hundred.itl_s("p99") == 98.0  # the 99th of 100: 1, 2, 3, 4, 5, 5, 6, ..., 99


# Lifecycle, faults, timeouts


def test_a_crash_throws_back_running_then_waiting_and_the_step_yields_nothing():
    # Slots for one: the first has a token at 1 and is in a step to 2; the second waits. Crash at 1.5: both to
    # instance 1, where the first computes 2 + 1 in 1.5..2.5: its second token.
    requests = [Request(0.0, 2, 3), Request(0.0, 2, 1), Request(0.0, 2, 1)]
    one = world(max_num_seqs=1)
    outcome = simulate(requests, one, (2,), crashes=[(1.5, "aggregated", 0)])
    assert entries(outcome) == [1, 1, 1]
    assert times(outcome) == [(1.0, 4.0 - 0.5), (1.0, 1.0), (4.5, 4.5)]
    assert [r.restarts for r in outcome.requests] == [1, 0, 1]


def test_a_draining_instance_finishes_what_it_has_pre_empted_ones_included():
    requests = [Request(0.0, 5, 6), Request(0.0, 5, 6)]
    outcome = simulate(requests, world(max_kv_tokens=16), (1,), [(1.0, 0)])
    assert [r.state for r in outcome.requests] == ["done", "done"]
    assert [r.preemptions for r in outcome.requests] == [0, 1]
    assert outcome.lifetimes[0].stop_s == 9.0


def test_a_timeout_takes_waiting_requests_without_a_token_pre_empted_ones_too():
    # One slot. The second leaves at 3; the first, though late, has its token.
    rest = {"request_timeout_s": 3.0}
    outcome = simulate([Request(0.0, 1, 9), Request(0.0, 1, 1)], world(rest=rest, max_num_seqs=1), (1,))
    assert [r.state for r in outcome.requests] == ["done", "timed_out"]
    # In chunks of 2 the second prompt is not computed when the first needs its block: it never has a token.
    requests = [Request(0.0, 3, 8), Request(1.0, 9, 1)]
    late = world(rest=rest, max_kv_tokens=16, max_batched_tokens=3, reserve_full_isl=False)
    outcome = simulate(requests, late, (1,))
    assert [(r.state, r.preemptions) for r in outcome.requests] == [("done", 0), ("timed_out", 1)]


def test_the_first_step_of_a_cold_instance_takes_longer():
    outcome = simulate([Request(0.0, 1, 2)], world(), (0,), [(0.0, 1)], cold_s=5.0)
    assert times(outcome) == [(16.0, 17.0)]


# What the trace of Mooncake says


def test_the_hit_rate_of_mooncake_s_synthetic_trace():
    trace = SHARED / "traces" / "mooncake_synthetic.jsonl"
    if not trace.exists():
        pytest.skip(f"{trace} is not here")
    rows = sorted(map(json.loads, trace.read_text().splitlines()), key=lambda row: row["timestamp"])
    requests = [
        Request(row["timestamp"] / 1000, row["input_length"], 1, hash_ids=tuple(row["hash_ids"]))
        for row in rows
    ]
    engine = {"block_tokens": 16, "max_batched_tokens": 8192, "max_num_seqs": 1000, "prefix_cache": True}
    step_s = StepTimes(itl_s=lambda n, kv: 0.25, tokens_s=((1, 0.25),))
    outcome = simulate(requests, world(rest={"hash_block_tokens": 512}, step_s=step_s, **engine), (1,))
    seen: set[int] = set()
    by_formula = 0
    for request in requests:
        leading = next(
            (k for k, name in enumerate(request.hash_ids) if name not in seen), len(request.hash_ids)
        )
        by_formula += min(leading * 512, (request.isl - 1) // 16 * 16)
        seen |= set(request.hash_ids)
    hit = sum(r.hit_tokens for r in outcome.requests)
    assert hit == by_formula
    assert f"{100 * hit / sum(r.isl for r in requests):.3f}" == "65.121"
