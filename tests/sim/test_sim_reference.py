"""The reference simulator against examples worked out by hand, one rule of DESIGN section 5 each.

Unless a test says otherwise a prompt token takes 1 s of prefill, a decode step 1 s, a hand-off nothing, a
start-up 10 s, an instance 1 GPU, and there is one instance of each kind.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Outcome, PoolCounts, Request, World, simulate
from reference_examples import WORLD, times
from strategies import sampled


def states(outcome: Outcome) -> list[str]:
    return [request.state for request in outcome.requests]


def ids(outcome: Outcome) -> list[tuple[int | None, int | None]]:
    return [(request.prefill_id, request.decode_id) for request in outcome.requests]


def lives(outcome: Outcome, pool: str) -> list[tuple[float | None, ...]]:
    """(launch, ready, drain, stop, end) of each instance."""
    return [
        (i.launch_s, i.ready_s, i.drain_s, i.stop_s, i.end_s) for i in outcome.lifetimes if i.pool == pool
    ]


# Rule 1: requests


def test_a_request_is_prefilled_and_then_takes_osl_minus_one_steps():
    # Prefill 0..4: first token at 4. Three more tokens: steps 4..5, 5..6, 6..7.
    outcome = simulate([Request(0.0, isl=4, osl=4)], WORLD, (1, 1))
    assert times(outcome) == [(4.0, 7.0)]
    assert ids(outcome) == [(0, 0)]
    assert states(outcome) == ["done"]
    assert outcome.horizon_s == 7.0


def test_cached_tokens_are_not_computed_but_held_and_handed_off():
    # Prefill computes 8 - 6 = 2: first token at 2. Hand-off 8 * 0.5 = 4: at 6. A step takes as many seconds
    # as there are KV tokens: 8, then 9, to 23.
    world = replace(WORLD, kv_s_per_token=0.5, step_s=lambda running, kv_tokens: float(kv_tokens))
    outcome = simulate([Request(0.0, isl=8, osl=3, cached_tokens=6)], world, (1, 1))
    assert times(outcome) == [(2.0, 23.0)]


def test_what_can_never_fit_is_rejected_at_arrival_and_holds_nobody_up():
    # 6 + 5 = 11 > 10 is never prefilled; 5 + 5 = 10 fits: prefill 0..5, four steps to 9.
    world = replace(WORLD, max_kv_tokens=10)
    outcome = simulate([Request(0.0, 6, 5), Request(0.0, 5, 5)], world, (1, 1))
    assert states(outcome) == ["rejected", "done"]
    assert times(outcome) == [(None, None), (5.0, 9.0)]
    assert ids(outcome) == [(None, None), (0, 0)]


# Rule 2: router


def test_prefill_goes_to_the_fewest_outstanding_computed_tokens_and_ties_to_the_lowest_id():
    # Outstanding (0, 0) -> 0; (8, 0) -> 1; (8, 3): the cached prompt counts 1 -> 1; (8, 4) -> 1; (8, 8) -> 0.
    requests = [Request(0.0, isl, 1, cached) for isl, cached in [(8, 0), (3, 0), (9, 8), (4, 0), (1, 0)]]
    outcome = simulate(requests, WORLD, (2, 1))
    assert [prefill for prefill, _ in ids(outcome)] == [0, 1, 1, 1, 0]


def test_a_prompt_in_service_counts_as_outstanding_until_its_batch_ends():
    # At 4 instance 0's prompt has just ended (rule 9), so it has 0 outstanding against the 9 of instance 1.
    requests = [Request(0.0, 4, 1), Request(0.0, 9, 1), Request(3.0, 1, 1), Request(4.0, 5, 1)]
    # At 3: 4 in service at 0, 9 at 1 -> 0, where it waits until 4. At 4: 1 queued at 0 -> 0.
    outcome = simulate(requests, WORLD, (2, 1))
    assert [prefill for prefill, _ in ids(outcome)] == [0, 1, 0, 0]
    assert [first for first, _ in times(outcome)] == [4.0, 9.0, 5.0, 10.0]


def test_decode_goes_to_the_fewest_reserved_tokens_hand_offs_included():
    # One batch of three ends at 6, every hand-off takes 100: reserved (0, 0) -> 0; (2 + 9, 0) -> 1; (11, 2 +
    # 3) -> 1. The fourth ends at 8: (11, 5 + 2 + 7) -> 0.
    world = replace(WORLD, max_batch_tokens=6, kv_latency_s=100.0)
    requests = [Request(0.0, 2, 9), Request(0.0, 2, 3), Request(0.0, 2, 7), Request(1.0, 2, 2)]
    assert [decode for _, decode in ids(simulate(requests, world, (1, 2)))] == [0, 1, 1, 0]


def test_reservations_end_with_the_request():
    # The first holds instance 0 until 2 (prefill 0..1, one step). The second's prefill ends at 2 as well,
    # after that step ended (rule 9): both instances are empty, lowest id.
    requests = [Request(0.0, 1, 2), Request(1.0, 1, 2)]
    assert ids(simulate(requests, WORLD, (1, 2))) == [(0, 0), (0, 0)]


def test_without_a_ready_instance_requests_wait_in_the_pool_and_are_handed_out_in_order():
    # Prefill is asked for at 0 and READY at 10, both at once: the first to 0, the second to 1, the third (2 <
    # 5) to 1.
    outcome = simulate(
        [Request(0.0, 5, 1), Request(1.0, 2, 1), Request(2.0, 1, 1)], WORLD, (0, 1), [(0.0, 2, 1)]
    )
    assert [prefill for prefill, _ in ids(outcome)] == [0, 1, 1]
    assert times(outcome) == [(15.0, 15.0), (12.0, 12.0), (13.0, 13.0)]


def test_without_a_ready_decode_instance_the_hand_off_starts_when_one_becomes_ready():
    # First token at 2; decode READY at 10; hand-off of 3 to 13; one step.
    world = replace(WORLD, kv_latency_s=3.0)
    outcome = simulate([Request(0.0, 2, 2)], world, (1, 0), [(0.0, 1, 1)])
    assert times(outcome) == [(2.0, 14.0)]


# Rule 3: prefill batches


def test_a_batch_takes_prompts_in_order_up_to_the_token_limit():
    # Limit 8: [3, 5] end at 8; 4 alone, as 4 + 6 > 8 and the 1 behind may not overtake: 12; [6, 1] at 19.
    world = replace(WORLD, max_batch_tokens=8)
    requests = [Request(0.0, isl, 1) for isl in (3, 5, 4, 6, 1)]
    assert [first for first, _ in times(simulate(requests, world, (1, 1)))] == [8.0, 8.0, 12.0, 19.0, 19.0]


def test_a_batch_counts_computed_tokens_and_always_takes_one_prompt():
    # Limit 4: the first (9 computed) is alone, to 9; then 9 - 7 = 2 and 2 go together, to 13.
    world = replace(WORLD, max_batch_tokens=4)
    requests = [Request(0.0, 9, 1), Request(0.0, 9, 1, 7), Request(0.0, 2, 1)]
    assert [first for first, _ in times(simulate(requests, world, (1, 1)))] == [9.0, 13.0, 13.0]


# Scheduling policies and routing strategies (docs/simulator.md)

POLICIES = ("fifo", "priority", "slo_aware", "adaptive")


def firsts(outcome: Outcome) -> list[float | None]:
    return [first for first, _ in times(outcome)]


def test_by_priority_the_lowest_is_next_and_equals_are_in_the_order_of_joining():
    # In service 0..2; then priority -1, the two 0s as they came, and 3.
    requests = [Request(0.0, 2, 1, priority=p) for p in (3, 3, 0, -1, 0)]
    outcome = simulate(requests, replace(WORLD, scheduling_policy="priority"), (1, 1))
    # All are there at 0, before anything begins.
    assert firsts(outcome) == [8.0, 10.0, 4.0, 2.0, 6.0]
    assert firsts(simulate(requests, WORLD, (1, 1))) == [2.0, 4.0, 6.0, 8.0, 10.0]


def test_nobody_overtakes_a_prompt_of_higher_priority_that_does_not_fit_the_batch():
    # Limit 8: 5 of priority 0 first; 6 of priority 1 does not fit; 2 of priority 2, which would, waits.
    world = replace(WORLD, scheduling_policy="priority", max_batch_tokens=8)
    requests = [Request(0.0, 2, 1, priority=2), Request(0.0, 6, 1, priority=1), Request(0.0, 5, 1)]
    assert firsts(simulate(requests, world, (1, 1))) == [13.0, 13.0, 5.0]


def test_by_priority_a_request_joins_decode_before_those_that_wait_there():
    # One slot, taken 1..5. Ready for decode at 2 and 3: the one of 3 is more urgent, 5..6, then 6..7.
    world = replace(WORLD, scheduling_policy="priority", max_num_seqs=1)
    requests = [Request(0.0, 1, 5), Request(1.0, 1, 2, priority=1), Request(2.0, 1, 2)]
    assert [done for _, done in times(simulate(requests, world, (1, 1)))] == [5.0, 7.0, 6.0]


def test_least_slack_first_counts_the_prefill_itself():
    # While the first is in service, prompts of 1 s and of 12 s join: latest starts 1 + 20 - 1 = 20 and
    # 2 + 20 - 12 = 10. So the one that came last is first.
    world = replace(WORLD, scheduling_policy="slo_aware", target_ttft_s=20.0)
    requests = [Request(0.0, 3, 1), Request(1.0, 1, 1), Request(2.0, 12, 1)]
    assert firsts(simulate(requests, world, (1, 1))) == [3.0, 16.0, 15.0]


def test_a_prompt_that_can_only_be_late_goes_last():
    # Due 5 after arrival. At 4 the second (4 s, due at 6) could end at 8: last. The others start by 6, by 7.
    world = replace(WORLD, scheduling_policy="slo_aware", target_ttft_s=5.0)
    requests = [Request(0.0, 4, 1), Request(1.0, 4, 1), Request(2.0, 1, 1), Request(3.0, 1, 1)]
    assert firsts(simulate(requests, world, (1, 1))) == [4.0, 10.0, 5.0, 6.0]
    assert firsts(simulate(requests, replace(world, scheduling_policy="fifo"), (1, 1))) == [
        4.0,
        8.0,
        9.0,
        10.0,
    ]


def test_a_batch_takes_no_prompt_that_would_make_one_of_it_late():
    # Due at 5, all of 2 s: the first two end at 4; with the third that were 6. The third starts at 4, late.
    world = replace(WORLD, scheduling_policy="slo_aware", target_ttft_s=5.0, max_batch_tokens=100)
    requests = [Request(0.0, 2, 1)] * 3
    assert firsts(simulate(requests, world, (1, 1))) == [4.0, 4.0, 6.0]
    assert firsts(simulate(requests, replace(world, scheduling_policy="fifo"), (1, 1))) == [6.0, 6.0, 6.0]


def test_a_prompt_without_hope_of_being_in_time_holds_no_batch_small():
    # Due at 1, each 2 s: both can only be late, and go together.
    world = replace(WORLD, scheduling_policy="slo_aware", target_ttft_s=1.0, max_batch_tokens=100)
    assert firsts(simulate([Request(0.0, 2, 1)] * 2, world, (1, 1))) == [4.0, 4.0]


def test_what_a_crash_throws_back_in_mid_answer_is_due_for_its_next_token():
    # The first has 2 tokens (1, 2) when its instance crashes at 2.5; its next is due at 1 + 2 * 3 = 7, its
    # prefill takes 3: start by 4. In service 2..6; there since 2.25, due at 12.25: start by 11.25.
    world = replace(WORLD, scheduling_policy="slo_aware", target_ttft_s=10.0, target_itl_s=3.0)
    requests = [Request(0.0, 1, 3), Request(2.0, 4, 1), Request(2.25, 1, 1)]
    outcome = simulate(requests, world, (1, 2), crashes=[(2.5, "decode", 0)])
    assert times(outcome) == [(1.0, 9.0), (6.0, 6.0), (10.0, 10.0)]


def test_decode_serves_whose_next_token_is_due_first():
    # One slot, taken 2..10. The others have first tokens at 3 and 4, on two prefill instances; hand-offs of 5
    # and 2 prompt tokens end at 8 and 6. So the last joins the queue first, and is due last.
    world = replace(WORLD, max_num_seqs=1, kv_s_per_token=1.0)
    requests = [Request(0.0, 1, 9), Request(0.0, 5, 2, cached_tokens=2), Request(2.0, 2, 2)]
    by_order = simulate(requests, world, (2, 1))
    by_deadline = simulate(
        requests, replace(world, scheduling_policy="slo_aware", target_ttft_s=50.0, target_itl_s=1.0), (2, 1)
    )
    assert firsts(by_order) == firsts(by_deadline) == [1.0, 3.0, 4.0]
    assert [done for _, done in times(by_order)] == [10.0, 12.0, 11.0]
    assert [done for _, done in times(by_deadline)] == [10.0, 11.0, 12.0]


def test_adaptive_is_by_priority_until_more_waits_than_one_batch_takes():
    # Limit 4. At 4 wait prompts of 1 and 3, which one batch takes: as they came. With another 2, 6 wait: by
    # slack within a priority, and the longest prompt has the least (latest starts 1 + 100 - 1, - 3, - 2).
    world = replace(WORLD, scheduling_policy="adaptive", target_ttft_s=100.0, max_batch_tokens=4)
    calm = [Request(0.0, 4, 1), Request(1.0, 1, 1), Request(1.0, 3, 1)]
    assert firsts(simulate(calm, world, (1, 1))) == [4.0, 8.0, 8.0]
    # 3 with none (3 + 2 > 4), then 3 wait and it is calm again: 1 and 2.
    busy = [*calm, Request(1.0, 2, 1)]
    assert firsts(simulate(busy, world, (1, 1))) == [4.0, 10.0, 7.0, 10.0]
    # The more urgent one is before it whatever its slack: 1 of priority -1, and 3 with it.
    first = [calm[0], replace(calm[1], priority=-1), *busy[2:]]
    assert firsts(simulate(first, world, (1, 1))) == [4.0, 8.0, 8.0, 10.0]


def test_adaptive_gives_up_what_can_only_be_late_whatever_its_priority():
    # Limit 4, due 8 after arrival. At 4 wait 5 s of priority -1 (due at 8: hopeless) and 2 s of priority 0.
    world = replace(WORLD, scheduling_policy="adaptive", target_ttft_s=8.0, max_batch_tokens=4)
    requests = [Request(0.0, 4, 1), Request(0.0, 5, 1, priority=-1), Request(1.0, 2, 1)]
    requests = [replace(requests[0], priority=-2), *requests[1:]]
    assert firsts(simulate(requests, world, (1, 1))) == [4.0, 11.0, 6.0]


def test_round_robin_takes_turns_whatever_the_load_and_newcomers_come_first():
    # Turns of 0, 1, 0, 1 though 0 has 9 to do. Instance 2, READY at 10, is next at 10, then 0 again.
    world = replace(WORLD, routing_strategy="round_robin")
    requests = [Request(0.0, isl, 1) for isl in (9, 1, 1, 1)] + [Request(10.0, 1, 1)] * 3
    outcome = simulate(requests, world, (2, 1), [(0.0, 3, 1)])
    assert [prefill for prefill, _ in ids(outcome)] == [0, 1, 0, 1, 2, 0, 1]


def test_round_robin_counts_the_turns_of_decode_by_themselves():
    # The second request is never handed to decode and takes no turn there.
    world = replace(WORLD, routing_strategy="round_robin")
    outcome = simulate([Request(0.0, 1, osl) for osl in (5, 1, 2, 2)], world, (1, 2))
    assert ids(outcome) == [(0, 0), (0, None), (0, 1), (0, 0)]


# Rule 4: hand-off


def test_a_hand_off_costs_latency_and_tokens_and_does_not_hold_the_prefill_instance():
    # First tokens at 4 and 8. Hand-off 1 + 4 * 0.5 = 3: 7 and 11. One step: 8 and 12.
    world = replace(WORLD, kv_latency_s=1.0, kv_s_per_token=0.5)
    outcome = simulate([Request(0.0, 4, 2), Request(0.0, 4, 2)], world, (1, 1))
    assert times(outcome) == [(4.0, 8.0), (8.0, 12.0)]


@pytest.mark.parametrize(
    ("second_isl", "second_done_s"),
    [
        (2, 15.0),  # at 3 the step 1..5 is in progress: hand-off of 2 * 4 to 11, step to 15
        (4, 17.0),  # at 5 that step has just ended, which counts (the next one would too): to 13, 17
        (8, 21.0),  # at 9 the last step has just ended, which counts though none follows: to 17, 21
        (9, 14.0),  # at 10 nothing is in progress: to 10, 14
    ],
)
def test_a_hand_off_may_wait_for_decode_steps_of_the_receiver(second_isl, second_done_s):
    # The first joins at 1 (nothing ran: its hand-off cost no step) and makes the steps 1..5 and 5..9. The
    # second is prefilled from 1 on.
    world = replace(WORLD, kv_decode_steps=2.0, step_s=lambda running, kv_tokens: 4.0)
    outcome = simulate([Request(0.0, 1, 3), Request(0.0, second_isl, 2)], world, (1, 1))
    assert times(outcome) == [(1.0, 9.0), (1.0 + second_isl, second_done_s)]


def test_a_step_that_starts_at_the_instant_of_the_hand_off_is_not_waited_for():
    # Prefill takes no time, but prompts go one by one: when the second is prefilled, the first has begun
    # its step 0..4. The second's hand-off costs nothing, it joins at 4 and is done at 8.
    world = replace(
        WORLD,
        prefill_batch_s=lambda tokens: 0.0,
        kv_decode_steps=2.0,
        step_s=lambda running, kv_tokens: 4.0,
    )
    assert times(simulate([Request(0.0, 1, 2)] * 2, world, (1, 1))) == [(0.0, 4.0), (0.0, 8.0)]


def test_blocking_hand_offs_run_one_after_the_other_and_hold_the_prefill_instance():
    # Batch [2, 2] ends at 4; hand-offs of 3: 4..7 and 7..10; one step each: 8 and 11. The third prompt, there
    # since 1, starts at 10: first token 12, hand-off to 15, done 16.
    world = replace(WORLD, max_batch_tokens=4, kv_latency_s=3.0, kv_blocks_prefill=True)
    requests = [Request(0.0, 2, 2), Request(0.0, 2, 2), Request(1.0, 2, 2)]
    assert times(simulate(requests, world, (1, 1))) == [(4.0, 8.0), (4.0, 11.0), (12.0, 16.0)]


def test_prompts_whose_blocking_hand_offs_run_are_no_longer_outstanding():
    # Instance 0 hands off 2..12. At 3 both have nothing outstanding: lowest id, and a wait until 12.
    world = replace(WORLD, kv_latency_s=10.0, kv_blocks_prefill=True)
    outcome = simulate([Request(0.0, 2, 2), Request(3.0, 1, 1)], world, (2, 1))
    assert ids(outcome) == [(0, 0), (0, None)]
    assert times(outcome) == [(2.0, 13.0), (13.0, 13.0)]


def test_blocking_hand_offs_wait_for_a_decode_instance_and_all_are_bound_at_the_batch_end():
    # The batch ends at 2, decode is READY at 10: hand-offs 10..11 and 11..12, and only then the third prompt,
    # 12..13. With two decode instances the first two are bound one to each; the third finds (0, 1 + 3
    # reserved) -> 0.
    world = replace(WORLD, max_batch_tokens=2, kv_latency_s=1.0, kv_blocks_prefill=True)
    requests = [Request(0.0, 1, 2), Request(0.0, 1, 3), Request(0.0, 1, 2)]
    outcome = simulate(requests, world, (1, 0), [(0.0, 1, 2)])
    assert times(outcome) == [(2.0, 12.0), (2.0, 14.0), (13.0, 15.0)]
    assert [decode for _, decode in ids(outcome)] == [0, 1, 0]


def test_blocking_hand_offs_that_take_no_time_free_the_instance_at_the_batch_end():
    world = replace(WORLD, max_batch_tokens=2, kv_blocks_prefill=True)
    requests = [Request(0.0, 1, 2), Request(0.0, 1, 2), Request(1.0, 1, 2)]
    assert times(simulate(requests, world, (1, 1))) == [(2.0, 3.0), (2.0, 3.0), (3.0, 4.0)]


def test_osl_one_ends_at_the_first_token_and_is_handed_to_nobody():
    outcome = simulate([Request(0.0, 3, 1)], replace(WORLD, kv_latency_s=5.0, kv_blocks_prefill=True), (1, 1))
    assert times(outcome) == [(3.0, 3.0)]
    assert ids(outcome) == [(0, None)]


def test_with_first_token_from_decode_every_token_is_a_step():
    # Prefill to 3, hand-off to 5; a step takes as many seconds as KV tokens held, isl - 1 at first: 2, 3.
    world = replace(
        WORLD, first_token="decode", kv_latency_s=2.0, step_s=lambda running, kv_tokens: float(kv_tokens)
    )
    assert times(simulate([Request(0.0, 3, 2)], world, (1, 1))) == [(7.0, 10.0)]
    assert times(simulate([Request(0.0, 3, 1)], world, (1, 1))) == [(7.0, 7.0)]


# Rule 5: decode


def test_requests_join_at_step_boundaries_only():
    # Steps of 4 s. The first joins at 1: steps 1..5, 5..9. The second is there at 2 and joins at 5: done at
    # 9.
    world = replace(WORLD, step_s=lambda running, kv_tokens: 4.0)
    outcome = simulate([Request(0.0, 1, 3), Request(0.0, 1, 2)], world, (1, 1))
    assert times(outcome) == [(1.0, 9.0), (2.0, 9.0)]


def test_a_step_takes_the_time_of_all_running_requests_and_the_kv_they_hold_at_its_start():
    # 10 s a running request and 1 s a KV token. One batch of 3 + 5, 0..8. First step: 2 running, 3 + 5 held:
    # 28 s, to 36, and the second request (osl 2) is done. Then 1 running, 4 held: 14 s, to 50.
    world = replace(WORLD, max_batch_tokens=8, step_s=lambda running, kv_tokens: 10.0 * running + kv_tokens)
    outcome = simulate([Request(0.0, 3, 3), Request(0.0, 5, 2)], world, (1, 1))
    assert times(outcome) == [(8.0, 50.0), (8.0, 36.0)]


def test_a_step_that_requests_join_takes_longer_by_their_prompts():
    # The first joins at 2: 1 + 2 * 0.5 = 2 s, to 4. The second is there at 4: 1 + 2 * 0.5 = 2 s, both to 6.
    # Then 7.
    world = replace(WORLD, join_s_per_token=0.5)
    outcome = simulate([Request(0.0, 2, 4), Request(0.0, 2, 3)], world, (1, 1))
    assert times(outcome) == [(2.0, 7.0), (4.0, 7.0)]


def test_a_joined_prompt_counts_whole_cached_tokens_included():
    # Computed 1 of 4: first token at 1; the step takes 1 + 4 * 0.5 = 3 s.
    outcome = simulate([Request(0.0, 4, 2, cached_tokens=3)], replace(WORLD, join_s_per_token=0.5), (1, 1))
    assert times(outcome) == [(1.0, 4.0)]


def test_slots_limit_the_running_requests():
    # One slot: the second, there at 2, waits until the first has gone at 3.
    outcome = simulate([Request(0.0, 1, 3), Request(0.0, 1, 2)], replace(WORLD, max_num_seqs=1), (1, 1))
    assert times(outcome) == [(1.0, 3.0), (2.0, 4.0)]


def test_kv_memory_limits_the_running_requests_and_nobody_overtakes():
    # 1 + 5 reserved of 10. The second (1 + 6) does not fit beside it and the third (1 + 2), which would,
    # waits behind: the first is done at 1 + 4 = 5; both join: the third 5..6, the second 5..10.
    requests = [Request(0.0, 1, 5), Request(0.0, 1, 6), Request(0.0, 1, 2)]
    outcome = simulate(requests, replace(WORLD, max_kv_tokens=10), (1, 1))
    assert times(outcome) == [(1.0, 5.0), (2.0, 10.0), (3.0, 6.0)]


# Rule 6: lifecycle


def test_a_launch_is_ready_after_its_delay_and_delays_are_taken_in_launch_order():
    # At 1 two prefill and a decode instance are launched, with 4, 2 and 4 s; at 2 another decode with 2 s.
    world = replace(WORLD, startup_delays_s=[4.0, 2.0])
    outcome = simulate([], world, (1, 1), [(1.0, 3, 2), (2.0, 3, 3)], until_s=10.0)
    assert lives(outcome, "prefill") == [
        (0.0, 0.0, None, None, 10.0),
        (1.0, 5.0, None, None, 10.0),
        (1.0, 3.0, None, None, 10.0),
    ]
    assert lives(outcome, "decode") == [
        (0.0, 0.0, None, None, 10.0),
        (1.0, 5.0, None, None, 10.0),
        (2.0, 4.0, None, None, 10.0),
    ]
    assert outcome.max_gpus_used == 6


def test_scale_down_cancels_starting_ones_first_newest_first():
    # 1 READY, 2 STARTING, target 2: the newest is cancelled; target 0: the other, and the READY one, which is
    # idle.
    outcome = simulate([], WORLD, (1, 1), [(1.0, 3, 1), (2.0, 2, 1), (3.0, 0, 1)], until_s=20.0)
    assert lives(outcome, "prefill") == [
        (0.0, 0.0, 3.0, 3.0, 3.0),
        (1.0, None, None, 3.0, 3.0),
        (1.0, None, None, 2.0, 2.0),
    ]


def test_scale_down_drains_the_least_outstanding_and_ties_the_highest_id():
    # At 1 the outstanding prompts are (4, 0, 4, 0): instance 3 goes; at 2 instance 1; at 3 instance 2 of (4,
    # 4), which ends its prompt at 4.
    requests = [Request(0.0, 4, 1), Request(0.0, 1, 1), Request(0.0, 4, 1), Request(0.0, 1, 1)]
    outcome = simulate(requests, WORLD, (4, 1), [(1.0, 3, 1), (2.0, 2, 1), (3.0, 1, 1)])
    assert [(drain, stop) for _, _, drain, stop, _ in lives(outcome, "prefill")] == [
        (None, None),
        (2.0, 2.0),
        (3.0, 4.0),
        (1.0, 1.0),
    ]


def test_a_draining_decode_instance_keeps_what_is_bound_to_it_and_takes_nothing_new():
    # Bound to 0 at 1 (hand-off to 4) and to 1 at 2. At 2 instance 1 has fewer reserved (1 + 2 < 1 + 9) and
    # drains: its hand-off ends at 5, it steps to 6 and stops. The third, at 3, finds only instance 0.
    world = replace(WORLD, kv_latency_s=3.0)
    requests = [Request(0.0, 1, 9), Request(0.0, 1, 2), Request(2.0, 1, 2)]
    outcome = simulate(requests, world, (1, 2), [(2.0, 1, 1)])
    assert [decode for _, decode in ids(outcome)] == [0, 1, 0]
    assert times(outcome)[1] == (2.0, 6.0)
    assert lives(outcome, "decode")[1] == (0.0, 0.0, 2.0, 6.0, 6.0)


def test_a_draining_prefill_instance_finishes_its_queue_and_is_never_revived():
    # Drained at 1 with two prompts (to 2 and 4); wanted again at 2: a new instance is launched, READY at 12,
    # and serves the one that arrived at 3 and waited in the pool.
    requests = [Request(0.0, 2, 1), Request(0.0, 2, 1), Request(3.0, 1, 1)]
    outcome = simulate(requests, WORLD, (1, 1), [(1.0, 0, 1), (2.0, 1, 1)])
    assert times(outcome) == [(2.0, 2.0), (4.0, 4.0), (13.0, 13.0)]
    assert lives(outcome, "prefill") == [(0.0, 0.0, 1.0, 4.0, 4.0), (2.0, 12.0, None, None, 13.0)]


def test_a_blocking_hand_off_keeps_a_draining_prefill_instance_alive():
    # The batch ends at 1, the hand-off at 6.
    world = replace(WORLD, kv_latency_s=5.0, kv_blocks_prefill=True)
    outcome = simulate([Request(0.0, 1, 2)], world, (1, 1), [(2.0, 0, 1)])
    assert lives(outcome, "prefill") == [(0.0, 0.0, 2.0, 6.0, 6.0)]


def test_a_launch_waits_for_gpus_and_starts_the_instant_a_draining_one_stops():
    # Budget 2, both used. At 1 prefill drains (prompt to 5) and decode is to be 2: it is launched at 5, READY
    # at 15.
    world = replace(WORLD, max_gpus=2)
    outcome = simulate([Request(0.0, 5, 1)], world, (1, 1), [(1.0, 0, 2)], until_s=20.0, snapshots=[2.0])
    assert lives(outcome, "prefill") == [(0.0, 0.0, 1.0, 5.0, 5.0)]
    assert lives(outcome, "decode")[1] == (5.0, 15.0, None, None, 20.0)
    assert outcome.max_gpus_used == 2
    assert outcome.snapshots[0].prefill == PoolCounts(ready=0, starting=0, draining=1, waiting=0)
    assert outcome.snapshots[0].decode == PoolCounts(ready=1, starting=0, draining=0, waiting=1)


def test_a_later_decision_withdraws_a_waiting_launch():
    world = replace(WORLD, max_gpus=2)
    outcome = simulate([Request(0.0, 5, 1)], world, (1, 1), [(1.0, 0, 2), (2.0, 0, 1)], until_s=20.0)
    assert lives(outcome, "decode") == [(0.0, 0.0, None, None, 20.0)]


def test_waiting_launches_start_in_the_pool_furthest_behind_but_no_gpu_is_stranded():
    # Budget 5, prefill instances of 2 GPUs, decode of 1: (1, 1) uses 3. To (3, 2): prefill misses 2 of 3,
    # decode 1 of 2. One prefill fits (5) and nothing else. With a budget of 6 decode takes the sixth: by then
    # it is further behind, 1 of 2 against 1 of 3, and a second prefill would not fit (7).
    world = replace(WORLD, prefill_gpus=2)
    tight = simulate([], replace(world, max_gpus=5), (1, 1), [(0.0, 3, 2)], until_s=1.0)
    assert [len(lives(tight, pool)) for pool in ("prefill", "decode")] == [2, 1]
    loose = simulate([], replace(world, max_gpus=6), (1, 1), [(0.0, 3, 2)], until_s=1.0)
    assert [len(lives(loose, pool)) for pool in ("prefill", "decode")] == [2, 2]


def test_of_pools_equally_far_behind_decode_starts_first():
    # Budget 4, (1, 1) in use, to (4, 4): 3 of 4 each. Decode, then prefill, which is further behind by then.
    outcome = simulate([], replace(WORLD, max_gpus=4), (1, 1), [(0.0, 4, 4)], until_s=1.0)
    assert [len(lives(outcome, pool)) for pool in ("prefill", "decode")] == [2, 2]
    outcome = simulate([], replace(WORLD, max_gpus=3), (1, 1), [(0.0, 4, 4)], until_s=1.0)
    assert [len(lives(outcome, pool)) for pool in ("prefill", "decode")] == [1, 2]


def test_one_decision_shrinks_before_it_grows():
    # Budget 4, (1, 3) in use. To (2, 1): the two idle decode instances drain and stop at once, the launch
    # starts.
    outcome = simulate([], replace(WORLD, max_gpus=4), (1, 3), [(1.0, 2, 1)], until_s=20.0)
    assert lives(outcome, "prefill")[1] == (1.0, 11.0, None, None, 20.0)
    assert [stop for *_, stop, _ in lives(outcome, "decode")] == [None, 1.0, 1.0]


# Rule 7: what the planner sees


def test_a_snapshot_counts_at_arrival_first_token_and_completion():
    # Prompts 1, 2, 8 one after the other: first tokens at 1, 3, 11. The first has 3 tokens: done at 3. The
    # second, with 9, joins at 3. The fourth is too long. At 3.5: three arrived and the rejected one; one
    # prompt in service.
    world = replace(WORLD, max_kv_tokens=12)
    requests = [Request(0.0, 1, 3), Request(0.0, 2, 9), Request(0.5, 8, 3), Request(3.0, 90, 10)]
    seen = simulate(requests, world, (1, 1), snapshots=[3.5]).snapshots[0]
    assert (seen.arrived, seen.isl_sum) == (4, 101)
    assert (seen.first_tokens, seen.ttft_sum) == (2, 1.0 + 3.0)
    assert (seen.completed, seen.osl_sum, seen.duration_sum) == (1, 3, 3.0)
    assert (seen.itl_count, seen.itl_sum) == (1, 1.0)
    assert (seen.queued_prefill, seen.in_prefill, seen.in_hand_off) == (0, 1, 0)
    assert (seen.queued_decode, seen.running_decode, seen.kv_tokens) == (0, 1, 2)


def test_a_snapshot_has_every_request_in_one_place():
    # One slot, hand-offs of 2, prompts of 1 (but one of 9): first tokens at 1, 2, 3; delivered at 3, 4, 5. At
    # 4.5 the first runs, the second queues for the slot, the third is in hand-off, the fourth is in prefill,
    # the fifth queues.
    world = replace(WORLD, max_num_seqs=1, kv_latency_s=2.0)
    requests = [Request(0.0, isl, 5) for isl in (1, 1, 1, 9, 1)]
    seen = simulate(requests, world, (1, 1), snapshots=[4.5]).snapshots[0]
    assert (seen.running_decode, seen.queued_decode, seen.in_hand_off) == (1, 1, 1)
    assert (seen.in_prefill, seen.queued_prefill) == (1, 1)
    assert seen.kv_tokens == 2  # joined at 3 holding isl = 1, and one step on since 4


def test_pool_queues_are_counted_as_queued():
    outcome = simulate([Request(0.0, 1, 2)], WORLD, (1, 0), snapshots=[2.0], until_s=2.0)
    assert outcome.snapshots[0].queued_decode == 1
    outcome = simulate([Request(0.0, 1, 2)], WORLD, (0, 1), snapshots=[2.0], until_s=2.0)
    assert outcome.snapshots[0].queued_prefill == 1


def test_a_snapshot_is_taken_before_the_scaling_action_of_its_instant():
    outcome = simulate([], WORLD, (1, 1), [(1.0, 2, 1)], until_s=2.0, snapshots=[1.0, 2.0])
    assert [seen.prefill.starting for seen in outcome.snapshots] == [0, 1]


# Rule 9: one instant


def test_prefill_that_ends_with_a_step_joins_the_next_one():
    # Both at 2: the first's step ends, then the second's prefill and hand-off, then they step together.
    outcome = simulate([Request(0.0, 1, 3), Request(0.0, 1, 2)], WORLD, (1, 1))
    assert times(outcome) == [(1.0, 3.0), (2.0, 3.0)]


def test_hand_offs_of_one_instant_queue_in_the_order_they_started():
    # One slot. The first is prefilled 0..3 and handed off 3..6; the second, on the other instance, computes 2
    # of its 4 prompt tokens to 2 and is handed off 2..6. So the second steps 6..8 and the first 8..10.
    world = replace(WORLD, max_num_seqs=1, kv_s_per_token=1.0)
    outcome = simulate([Request(0.0, 3, 3), Request(0.0, 4, 3, 2)], world, (2, 1))
    assert times(outcome) == [(3.0, 10.0), (2.0, 8.0)]


def test_an_instance_that_becomes_ready_serves_the_arrival_of_that_instant():
    # READY at 10, where the pool's waiting prompt (2) goes first; the one arriving at 10 is behind it.
    outcome = simulate([Request(0.0, 2, 1), Request(10.0, 1, 1)], WORLD, (0, 1), [(0.0, 1, 1)])
    assert times(outcome) == [(12.0, 12.0), (13.0, 13.0)]


def test_an_arrival_may_go_to_the_instance_that_becomes_ready_at_that_instant():
    # At 10 instance 0 still has the first prompt, and instance 1, launched at 0, is READY.
    outcome = simulate([Request(0.0, 15, 1), Request(10.0, 1, 1)], WORLD, (1, 1), [(0.0, 2, 1)])
    assert ids(outcome) == [(0, None), (1, None)]


def test_the_tick_is_last_so_an_arrival_of_that_instant_still_gets_the_instance():
    outcome = simulate([Request(1.0, 2, 1)], WORLD, (1, 1), [(1.0, 0, 1)])
    assert times(outcome) == [(3.0, 3.0)]
    assert lives(outcome, "prefill") == [(0.0, 0.0, 1.0, 3.0, 3.0)]


def test_what_is_due_at_the_same_instant_again_is_done_in_it():
    # Launched and READY at 1 without delay; steps take no time, so prompt and answer are done at 1 + 2.
    world = replace(WORLD, startup_delays_s=[0.0], step_s=lambda running, kv_tokens: 0.0)
    outcome = simulate([Request(0.0, 2, 5)], world, (0, 1), [(1.0, 1, 1)])
    assert times(outcome) == [(3.0, 3.0)]


# Rule 10: horizon


def test_the_horizon_is_the_last_of_completion_arrival_and_until():
    request = Request(0.0, 2, 3)
    assert simulate([request], WORLD, (1, 1)).horizon_s == 4.0
    assert simulate([request], WORLD, (1, 1), until_s=3.0).horizon_s == 4.0
    assert simulate([request], WORLD, (1, 1), until_s=9.0).horizon_s == 9.0
    rejected = Request(6.0, 20, 1)
    assert simulate([request, rejected], replace(WORLD, max_kv_tokens=9), (1, 1)).horizon_s == 6.0


def test_actions_after_the_horizon_are_not_applied_and_lifetimes_end_there():
    # Done at 4: the action at 4 is, the one at 5 is not, and what was launched at 1 never became READY.
    outcome = simulate([Request(0.0, 2, 3)], WORLD, (1, 1), [(1.0, 2, 1), (4.0, 3, 1), (5.0, 9, 9)])
    assert lives(outcome, "prefill") == [
        (0.0, 0.0, None, None, 4.0),
        (1.0, None, None, None, 4.0),
        (4.0, None, None, None, 4.0),
    ]


def test_work_that_can_never_proceed_ends_the_run_unfinished():
    outcome = simulate([Request(0.0, 2, 3)], WORLD, (1, 0), snapshots=[1000.0])
    assert states(outcome) == ["unfinished"]
    assert times(outcome) == [(2.0, None)]
    assert outcome.horizon_s == 0.0
    assert outcome.snapshots == []


def test_a_run_whose_last_request_gives_up_is_over_before_the_tick_of_that_instant():
    # The last arrival, 0, is the horizon; the work that remains keeps the run going to 4, where it times out.
    world = replace(WORLD, request_timeout_s=4.0)
    outcome = simulate([Request(0.0, 1, 1)], world, (0, 1), snapshots=[3.0, 4.0])
    assert outcome.horizon_s == 0.0
    assert [seen.time_s for seen in outcome.snapshots] == [3.0]


# Rule 11: timeout


def test_a_request_leaves_the_prefill_queue_at_its_deadline_but_not_the_prefill_instance():
    # The first is in service 0..9 past its deadline and stays. The second leaves at 1 + 4 and is not there at
    # 9; the third, arrived at 6, is due at 10 and starts at 9.
    world = replace(WORLD, request_timeout_s=4.0)
    outcome = simulate(
        [Request(0.0, 9, 2), Request(1.0, 1, 1), Request(6.0, 1, 1)], world, (1, 1), snapshots=[5]
    )
    assert states(outcome) == ["done", "timed_out", "done"]
    assert times(outcome) == [(9.0, 10.0), (None, None), (10.0, 10.0)]
    assert outcome.snapshots[0].queued_prefill == 0


def test_a_request_leaves_the_pool_queue_at_its_deadline_and_the_run_ends():
    outcome = simulate([Request(0.0, 1, 1)], replace(WORLD, request_timeout_s=4.0), (0, 1), [(5.0, 1, 1)])
    assert states(outcome) == ["timed_out"]
    assert outcome.horizon_s == 0.0
    assert lives(outcome, "prefill") == []


def test_a_deadline_comes_before_service_of_the_same_instant():
    # The first ends at 4, which is the second's deadline.
    outcome = simulate(
        [Request(0.0, 4, 1), Request(0.0, 1, 1)], replace(WORLD, request_timeout_s=4.0), (1, 1)
    )
    assert states(outcome) == ["done", "timed_out"]


def test_a_request_that_has_its_first_token_waits_for_decode_as_long_as_it_takes():
    outcome = simulate([Request(0.0, 1, 2)], replace(WORLD, request_timeout_s=4.0), (1, 0), [(5.0, 1, 1)])
    assert times(outcome) == [(1.0, 16.0)]


def test_with_first_token_from_decode_the_decode_queue_is_left_and_the_room_given_back():
    # One slot each. The first two run 1..10 and 2..11 on instances 0 and 1, with 1 + 9 reserved on each. The
    # third is bound to 0 at 3, waits, and leaves at 5. So the fourth, prefilled 5.5..6.5, finds 10 and 10,
    # goes to 0, joins at 10 and is done at 11, though its deadline was 10.5.
    world = replace(WORLD, request_timeout_s=5.0, first_token="decode", max_num_seqs=1)
    requests = [Request(0.0, 1, 9), Request(0.0, 1, 9), Request(0.0, 1, 2), Request(5.5, 1, 1)]
    outcome = simulate(requests, world, (1, 2), snapshots=[4.0, 5.0])
    assert states(outcome) == ["done", "done", "timed_out", "done"]
    assert [decode for _, decode in ids(outcome)] == [0, 1, 0, 0]
    assert times(outcome) == [(2.0, 10.0), (3.0, 11.0), (None, None), (11.0, 11.0)]
    assert [seen.queued_decode for seen in outcome.snapshots] == [1, 0]


def test_a_deadline_passed_in_hand_off_takes_effect_when_it_ends():
    # First token from decode, hand-off 1..7, deadline 5: at 7 it does not enter the queue and its room is
    # free, so that the draining instance stops then.
    world = replace(WORLD, request_timeout_s=5.0, first_token="decode", kv_latency_s=6.0)
    outcome = simulate([Request(0.0, 1, 9)], world, (1, 1), [(2.0, 1, 0)], until_s=8.0, snapshots=[6.0])
    assert states(outcome) == ["timed_out"]
    assert outcome.snapshots[0].in_hand_off == 1
    assert lives(outcome, "decode") == [(0.0, 0.0, 2.0, 7.0, 7.0)]


def test_a_deadline_passed_in_prefill_keeps_it_out_of_the_decode_pool_queue():
    # First token from decode, prefill 0..6, deadline 5, no decode instance: it leaves at 6 and nothing
    # remains to do.
    world = replace(WORLD, request_timeout_s=5.0, first_token="decode")
    outcome = simulate([Request(0.0, 6, 9)], world, (1, 0), [(7.0, 1, 1)])
    assert states(outcome) == ["timed_out"]
    assert lives(outcome, "decode") == []


def test_a_deadline_passed_in_prefill_comes_before_a_decode_instance_that_is_ready_just_then():
    # As before, with the decode instance launched at 0 and READY at 6: it is never bound.
    world = replace(WORLD, request_timeout_s=5.0, first_token="decode", startup_delays_s=[6.0])
    outcome = simulate([Request(0.0, 6, 9)], world, (1, 0), [(0.0, 1, 1)])
    assert states(outcome) == ["timed_out"]
    assert ids(outcome) == [(0, None)]


def test_in_blocking_mode_leaving_the_decode_pool_queue_frees_the_prefill_instance():
    # First token from decode, blocking, no decode instance. The first's prefill ends at 1 and holds the
    # instance until its deadline at 5; the second, arrived at 2, is prefilled 5..6 and leaves at 7.
    world = replace(WORLD, request_timeout_s=5.0, first_token="decode", kv_blocks_prefill=True)
    outcome = simulate(
        [Request(0.0, 1, 2), Request(2.0, 1, 2)], world, (1, 0), until_s=9.0, snapshots=[4.0, 5.0, 6.0, 7.0]
    )
    assert states(outcome) == ["timed_out", "timed_out"]
    assert [seen.in_prefill for seen in outcome.snapshots] == [0, 1, 0, 0]
    assert [seen.queued_decode for seen in outcome.snapshots] == [1, 0, 1, 0]


# What holds of every run


@st.composite
def worlds(draw):
    """Worlds without rejection or timeout and every other rule at work; times are multiples of 1/8 s."""
    token_s, request_s, kv_s = (draw(sampled(0.0, 0.125, 0.5, 1.0)) for _ in range(3))
    return World(
        prefill_batch_s=lambda tokens: token_s * sum(tokens) + request_s,
        step_s=lambda running, kv_tokens: 0.25 * running + kv_s * kv_tokens,
        max_batch_tokens=draw(st.integers(1, 12)),
        max_num_seqs=draw(st.integers(1, 4)),
        max_kv_tokens=draw(st.none() | st.integers(16, 40)),
        kv_latency_s=draw(sampled(0.0, 0.5)),
        kv_s_per_token=draw(sampled(0.0, 0.25)),
        kv_decode_steps=draw(sampled(0.0, 1.0)),
        kv_blocks_prefill=draw(st.booleans()),
        join_s_per_token=draw(sampled(0.0, 0.125)),
        first_token=draw(sampled("prefill", "decode")),
        request_timeout_s=None,
        startup_delays_s=draw(st.lists(sampled(0.0, 1.0, 5.0), min_size=1, max_size=3)),
        prefill_gpus=draw(st.integers(1, 2)),
        decode_gpus=draw(st.integers(1, 2)),
        max_gpus=draw(st.integers(8, 12)),
    )


REQUESTS = st.lists(
    st.builds(
        Request,
        st.integers(0, 80).map(lambda n: n / 4),
        st.integers(2, 8),
        st.integers(1, 8),
        st.integers(0, 1),
    ),
    max_size=12,
).map(lambda requests: sorted(requests, key=lambda request: request.arrival_s))
SCRIPTS = st.lists(st.tuples(st.integers(0, 30).map(float), st.integers(0, 4), st.integers(0, 4)), max_size=6)


@settings(deadline=None)
@given(REQUESTS, worlds(), SCRIPTS)
def test_every_request_is_in_exactly_one_place_and_the_budget_holds(requests, world, script):
    outcome = simulate(requests, world, (2, 2), script, until_s=40.0, snapshots=[n / 2 for n in range(80)])
    assert outcome.max_gpus_used <= world.max_gpus
    for seen in outcome.snapshots:
        under_way = (
            seen.queued_prefill
            + seen.in_prefill
            + seen.in_hand_off
            + seen.queued_decode
            + seen.running_decode
        )
        assert seen.arrived == seen.completed + under_way
        gpus = world.prefill_gpus * (seen.prefill.ready + seen.prefill.starting + seen.prefill.draining)
        gpus += world.decode_gpus * (seen.decode.ready + seen.decode.starting + seen.decode.draining)
        assert gpus <= world.max_gpus
        assert world.max_kv_tokens is None or seen.kv_tokens <= world.max_kv_tokens * len(
            lives(outcome, "decode")
        )


@settings(deadline=None)
@given(REQUESTS, worlds())
def test_with_instances_to_serve_them_all_are_served_and_in_the_order_of_cause(requests, world):
    outcome = simulate(requests, world, (2, 2))
    assert states(outcome) == ["done"] * len(requests)
    for request, (first, done) in zip(requests, times(outcome), strict=True):
        assert request.arrival_s <= first <= done


# Rule 12: crashes


def test_a_decode_crash_sends_a_request_back_to_prefill_with_what_it_has_produced():
    # First token at 4, one step to 5. The crash at 5.5 wastes half a step: two tokens stand. Prefill of
    # 4 + 2 from 5.5 to 11.5 gives the third, a step on the other instance the fourth.
    outcome = simulate([Request(0.0, 4, 4)], WORLD, (1, 2), crashes=[(5.5, "decode", 0)])
    assert times(outcome) == [(4.0, 12.5)]
    assert ids(outcome) == [(0, 1)]
    assert outcome.requests[0].restarts == 1


def test_a_crashed_instance_is_replaced_at_once():
    # As above, but the only other decode instance is the replacement: launched at 5.5, READY at 15.5.
    outcome = simulate([Request(0.0, 4, 4)], WORLD, (1, 1), crashes=[(5.5, "decode", 0)])
    assert times(outcome) == [(4.0, 16.5)]
    assert lives(outcome, "decode") == [(0.0, 0.0, None, 5.5, 5.5), (5.5, 15.5, None, None, 16.5)]


def test_a_draining_instance_that_crashes_is_not_replaced():
    # Draining from 5; the crash at 5.5 leaves the other instance.
    outcome = simulate(
        [Request(0.0, 4, 4), Request(0.0, 1, 1)], WORLD, (1, 2), [(5.0, 1, 1)], crashes=[(5.5, "decode", 1)]
    )
    assert len(lives(outcome, "decode")) == 2


def test_a_prefill_crash_throws_back_queue_and_batch_in_order_of_arrival():
    # In service 0..4 and queued behind it: both start again on the other instance at 2, the first one first.
    outcome = simulate(
        [Request(0.0, 4, 1), Request(0.0, 9, 1), Request(0.0, 5, 1)],
        WORLD,
        (2, 1),
        crashes=[(2.0, "prefill", 0)],
    )
    assert ids(outcome) == [(1, None), (1, None), (1, None)]
    assert times(outcome) == [(13.0, 13.0), (9.0, 9.0), (18.0, 18.0)]


def test_after_a_crash_the_hand_off_brings_what_was_prefilled():
    # First token at 4; a hand-off of 4 tokens to 8 is cut at 6. Prefill of 4 + 1 to 11, hand-off of 5 to 16.
    world = replace(WORLD, kv_s_per_token=1.0)
    outcome = simulate([Request(0.0, 4, 3)], world, (1, 2), crashes=[(6.0, "decode", 0)])
    assert times(outcome) == [(4.0, 17.0)]


def test_a_request_thrown_back_past_its_deadline_gives_up():
    # In service since 0 its deadline at 2 passes unheeded; the crash at 3 puts it into a queue.
    world = replace(WORLD, request_timeout_s=2.0)
    outcome = simulate([Request(0.0, 4, 1)], world, (2, 1), crashes=[(3.0, "prefill", 0)])
    assert states(outcome) == ["timed_out"]
