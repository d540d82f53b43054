"""Hypothesis strategies for traces."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from sagescale.trace import Prefixes, Trace, Turns


def id_lists(min_size: int = 1, max_size: int = 12) -> st.SearchStrategy[list[list[int]]]:
    """Ids of the blocks of prompts, with much in common."""
    return st.lists(st.lists(st.integers(0, 7), max_size=6), min_size=min_size, max_size=max_size)


@st.composite
def traces(
    draw, min_size: int = 1, max_size: int = 40, cached: bool | None = None, hashed: bool = False
) -> Trace:
    """Traces with ties, idle gaps and, when drawn so, cached tokens, priorities, sessions and prefix ids."""
    n = draw(st.integers(min_size, max_size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    span_s = draw(st.sampled_from([0.0, 0.001, 1.0, 100.0, 86_400.0]))
    arrival_s = np.round(rng.uniform(0, span_s, n), draw(st.sampled_from([0, 3, 9])))
    isl = rng.integers(1, 5000, n)
    osl = rng.integers(1, 1000, n)
    with_cache = draw(st.booleans()) if cached is None else cached
    ids = draw(st.none() | id_lists(n, n)) if hashed else None
    return Trace.from_arrays(
        arrival_s,
        isl,
        osl,
        rng.integers(0, isl) if with_cache else None,
        priority=rng.integers(-2, 3, n) if draw(st.booleans()) else None,
        session_id=rng.integers(-2, 3, n) if draw(st.booleans()) else None,
        prefixes=ids and Prefixes.of([one[: -(-most // 16)] for one, most in zip(ids, isl, strict=True)], 16),
    )


def same_columns(a: Trace, b: Trace) -> bool:
    """Tell whether two traces hold the same requests at the same times, to the last bit."""
    for name in ("arrival_s", "isl", "osl", "cached_tokens", "priority", "session_id"):
        one, other = getattr(a, name), getattr(b, name)
        if (one is None) != (other is None) or not np.array_equal(one, other):
            return False
    if (a.turns is None) != (b.turns is None):
        return False
    if a.turns is not None and not all(
        np.array_equal(getattr(a.turns, name), getattr(b.turns, name))
        for name in ("after_start", "after", "think_s")
    ):
        return False
    one, other = a.prefixes, b.prefixes
    if one is None or other is None:
        return one is other
    arrays = ("leaf", "parent", "unit", "depth", "ids")
    return one.block_tokens == other.block_tokens and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


@st.composite
def session_traces(draw, max_sessions: int = 6, hashed: bool = False) -> Trace:
    """Traces of sessions whose turns wait for one or several earlier ones, interleaved and with ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=max_sessions))
    arrival_s, session, after, think_s = [], [], [], []
    for number, size in enumerate(sizes):
        first, at = len(arrival_s), rng.integers(0, 50)
        for turn in range(size):
            waits = rng.permutation(turn)[: rng.integers(0, min(turn, 3) + 1)]
            after.append([first + one for one in waits.tolist()])
            think_s.append(float(rng.integers(0, 3)) if len(waits) else 0.0)
            arrival_s.append(float(at))
            session.append(number)
            at += rng.integers(0, 5)
    n = len(arrival_s)
    isl = rng.integers(1, 400, n)
    ids = draw(st.none() | id_lists(n, n)) if hashed else None
    return Trace.from_arrays(
        arrival_s,
        isl,
        rng.integers(1, 50, n),
        session_id=session,
        turns=Turns.of(after, think_s),
        prefixes=ids and Prefixes.of([one[: -(-most // 16)] for one, most in zip(ids, isl, strict=True)], 16),
    )


def waited_for(trace: Trace) -> list[list[tuple[int, int]]]:
    """Lengths of the requests that each request waits for: who they are, whatever their rows."""
    lengths = list(zip(trace.isl.tolist(), trace.osl.tolist(), strict=True))
    return [[lengths[row] for row in rows] for rows in trace.turns.lists(0, len(trace))]
