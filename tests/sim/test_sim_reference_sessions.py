"""The step-by-step reference's sessions against examples worked out by hand (ENGINES section 6).

A step takes 1 s whatever it computes and there is one aggregated instance, unless a test says otherwise: a
prompt of one token has its first token 1 s after it came, and each further one 1 s later.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from reference import Request, simulate
from reference_examples import WORLD as PLAIN_WORLD
from reference_examples import times
from reference_records import Engine
from reference_sessions import measured

WORLD = replace(
    PLAIN_WORLD,
    closed_loop=True,
    hash_block_tokens=8,
    engines={
        "aggregated": Engine(
            scheduler="vllm",
            step_s=lambda n, kv, longest, chunks: 1.0,
            max_num_seqs=8,
            max_batched_tokens=8,
            max_kv_tokens=None,
            block_tokens=4,
        )
    },
)


def turn(*after, think_s=0.0, session=1, at=0.0, isl=1, osl=1, **rest):
    return Request(at, isl, osl, session_id=session, after=after, think_s=think_s, **rest)


def arrivals(outcome):
    return [request.arrival_s for request in outcome.requests]


def states(outcome):
    return [request.state for request in outcome.requests]


def test_a_turn_comes_when_its_answer_has_been_thought_about():
    outcome = simulate([turn(osl=3), turn(0, think_s=2.5), turn(1)], WORLD, (1,))
    # Done at 3; comes at 5.5, done at 6.5; the third needs no thought, and joins the step of 6.5.
    assert arrivals(outcome) == [0.0, 5.5, 6.5]
    assert times(outcome) == [(1.0, 3.0), (6.5, 6.5), (7.5, 7.5)]


def test_a_join_waits_for_the_last_of_its_answers():
    outcome = simulate([turn(osl=3), turn(osl=5), turn(0, 1, think_s=1.0)], WORLD, (1,))
    assert arrivals(outcome) == [0.0, 0.0, 6.0]
    outcome = simulate([turn(osl=3), turn(osl=3), turn(0, 1, think_s=1.0)], WORLD, (1,))
    assert arrivals(outcome) == [0.0, 0.0, 4.0]
    assert len(outcome.requests[2].gaps_s) == 0


def test_a_join_of_answers_that_end_in_one_step_comes_once():
    two_slots = replace(WORLD, engines={"aggregated": replace(WORLD.engines["aggregated"], max_num_seqs=2)})
    requests = [turn(osl=3), turn(osl=3), turn(0, 1, osl=2), turn(at=3.0, session=2), turn(at=3.0, session=3)]
    outcome = simulate(requests, two_slots, (1,))
    assert arrivals(outcome) == [0.0, 0.0, 3.0, 3.0, 3.0]
    # Both slots are taken by the two that come first, and one is free again at 4: nobody is served twice.
    assert [request.done_s for request in outcome.requests] == [3.0, 3.0, 5.0, 4.0, 5.0]


def test_a_sibling_that_waits_for_nobody_comes_at_its_recorded_time():
    outcome = simulate([turn(osl=3), turn(at=1.5), turn(0, 1, at=1.5)], WORLD, (1,))
    assert arrivals(outcome) == [0.0, 1.5, 3.0]


def test_sessions_start_by_the_clock_whatever_the_service_does():
    outcome = simulate([turn(), turn(at=5.0, session=2)], WORLD, (0,), [(20.0, 1)])
    assert arrivals(outcome) == [0.0, 5.0]
    assert times(outcome) == [(31.0, 31.0), (31.0, 31.0)]


def test_of_turns_that_come_together_the_lowest_row_is_first():
    one_slot = replace(WORLD, engines={"aggregated": replace(WORLD.engines["aggregated"], max_num_seqs=1)})
    # Session 2 is done at 1, session 1 at 2; both next turns come at 4.
    requests = [
        turn(session=2, osl=1),
        turn(session=1, osl=1),
        turn(1, think_s=2.0, session=1),
        turn(0, think_s=3.0, session=2),
    ]
    outcome = simulate(requests, one_slot, (1,))
    assert arrivals(outcome) == [0.0, 0.0, 4.0, 4.0]
    assert times(outcome)[2:] == [(5.0, 5.0), (6.0, 6.0)]


def test_a_rejected_request_ends_its_session_and_siblings_that_have_come_go_on():
    tight = replace(WORLD, engines={"aggregated": replace(WORLD.engines["aggregated"], max_kv_tokens=16)})
    requests = [
        turn(osl=4),  # goes on
        turn(at=1.0, isl=20),  # rejected
        turn(at=1.0),  # at the same instant, but behind it
        turn(0, at=1.0),
        turn(0, 1, at=1.0),
        turn(at=2.0, session=2),  # nobody's business
        turn(at=9.0),
    ]
    outcome = simulate(requests, tight, (1,))
    assert states(outcome) == [
        "done", "rejected", "never_arrived", "never_arrived", "never_arrived", "done", "never_arrived"
    ]  # fmt: skip
    assert arrivals(outcome) == [0.0, 1.0, None, None, None, 2.0, None]


def test_a_request_that_gives_up_ends_its_session():
    one_slot = replace(
        WORLD,
        request_timeout_s=3.0,
        engines={"aggregated": replace(WORLD.engines["aggregated"], max_num_seqs=1)},
    )
    requests = [turn(osl=9, session=1), turn(at=1.0, session=2), turn(1, at=1.0, session=2)]
    outcome = simulate(requests, one_slot, (1,))
    assert states(outcome) == ["done", "timed_out", "never_arrived"]


def test_a_timeout_runs_from_when_a_turn_came():
    impatient = replace(WORLD, request_timeout_s=2.0)
    outcome = simulate([turn(), turn(0, think_s=50.0)], impatient, (1,))
    assert states(outcome) == ["done", "done"]


def test_what_can_never_proceed_leaves_its_turns_out():
    outcome = simulate([turn(), turn(0)], WORLD, (0,))
    assert states(outcome) == ["unfinished", "never_arrived"]


def test_in_the_open_loop_everything_comes_as_recorded_and_misses_end_nothing():
    tight = replace(
        WORLD,
        closed_loop=False,
        engines={"aggregated": replace(WORLD.engines["aggregated"], max_kv_tokens=16)},
    )
    outcome = simulate([turn(isl=20), turn(0, at=4.0, think_s=9.0)], tight, (1,))
    assert arrivals(outcome) == [0.0, 4.0]
    assert states(outcome) == ["rejected", "done"]


def test_in_a_closed_population_the_next_session_starts_when_one_ends():
    population = replace(WORLD, concurrent_sessions=2)
    requests = [
        turn(session=1, at=100.0),
        turn(session=2, at=101.0, osl=9),
        turn(session=3, at=102.0),
        turn(session=3, at=102.5),  # half a second after its session's start
        turn(0, session=1, at=103.0, think_s=1.0),
        turn(session=4, at=104.0),
    ]
    outcome = simulate(requests, population, (1,))
    # Session 1 ends at 3 (1 + 1 + 1): session 3 starts; it ends at 5 (3.5 joins the step of 4).
    assert arrivals(outcome) == [0.0, 0.0, 3.0, 3.5, 2.0, 5.0]


def test_in_a_closed_population_a_miss_lets_the_next_one_in_at_once():
    population = replace(
        WORLD,
        concurrent_sessions=1,
        engines={"aggregated": replace(WORLD.engines["aggregated"], max_kv_tokens=16)},
    )
    requests = [turn(session=1, isl=20), turn(0, session=1), turn(session=2)]
    outcome = simulate(requests, population, (1,))
    assert states(outcome) == ["rejected", "never_arrived", "done"]
    assert arrivals(outcome) == [0.0, None, 0.0]


def test_the_horizon_is_the_last_completion_or_the_last_start():
    late = simulate([turn(osl=3), turn(at=50.0, session=2, isl=1)], WORLD, (0,))
    assert late.horizon_s == 50.0
    outcome = simulate([turn(osl=3), turn(0, think_s=7.0, at=99.0)], WORLD, (1,))
    assert outcome.horizon_s == 11.0


def test_a_crash_routes_turns_again_in_the_order_in_which_they_came():
    # A prompt token takes 1 s. Row 1 comes at 2, behind row 3, which waits for row 2 to be computed.
    world = replace(PLAIN_WORLD, closed_loop=True)
    requests = [
        turn(session=1),
        turn(0, session=1, think_s=1.0),
        turn(session=2, at=1.0, isl=8),
        turn(session=3, at=1.5),
    ]
    outcome = simulate(requests, world, (1, 1), [(2.5, 2, 1)], crashes=[(3.0, "prefill", 0)])
    assert arrivals(outcome) == [0.0, 2.0, 1.0, 1.5]
    # The instance that is READY at 12.5 takes all three: row 2 to 20.5, row 3, row 1.
    assert times(outcome)[1:] == [(22.5, 22.5), (20.5, 20.5), (21.5, 21.5)]


@pytest.mark.parametrize("good", [True, False])
def test_sessions_are_measured_by_all_their_requests(good):
    requests = [turn(osl=2), turn(0, think_s=1.0), turn(session=2), turn(2, session=2, think_s=999.0)]
    outcome = simulate(requests, WORLD, (1,))
    seen = measured(requests, outcome.requests, [True, good, True, True])
    assert (seen.sessions, seen.started, seen.finished, seen.good) == (2, 2, 2, 1 + good)
    assert seen.finish_s == [4.0, 1001.0]
