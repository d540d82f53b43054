"""The kernel's heaps, compiled for this test alone."""

import numba
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sagescale.sim.kernel.heaps import timed_pop, timed_push
from sagescale.sim.state import HANDOFF_ENTRY, TURN_ENTRY


@numba.njit
def push(heap, size, time_s, seq):
    return timed_push(heap, np.int64(size), time_s, np.int64(seq))


@numba.njit
def pop(heap, size):
    timed_pop(heap, np.int64(size))


# The dtypes in one test, the one with fewer fields first: numba would take the other's records for its.
@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=60))
def test_records_leave_by_time_and_then_by_number_whatever_else_they_have(moves):
    for dtype in (TURN_ENTRY, HANDOFF_ENTRY):
        heap = np.zeros(len(moves) + 2, dtype)
        waiting = []
        for seq, time_s in enumerate(moves):
            if time_s is not None:
                at = push(heap, len(waiting), float(time_s), seq)
                waiting.append((float(time_s), seq))
                if dtype is HANDOFF_ENTRY:
                    heap["request"][at] = seq
            elif waiting:
                first = min(waiting)
                assert (heap["time_s"][0], heap["seq"][0]) == first
                if dtype is HANDOFF_ENTRY:
                    assert heap["request"][0] == first[1]
                pop(heap, len(waiting))
                waiting.remove(first)
