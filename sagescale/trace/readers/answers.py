"""Turns out of recorded gaps: what of a gap between two requests was the answer, and what was thought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sagescale.trace.sessions import Turns

if TYPE_CHECKING:
    from numpy.typing import NDArray

ANSWER_S_PER_TOKEN = 0.02
"""Of each generated token: 50 tokens/s, a usual speed of hosted models."""

MODELLED = (
    "of some answers it is not recorded how long they took: taken as their tokens times what one took in the "
    f"median of the others, else {ANSWER_S_PER_TOKEN * 1000:g} ms; what is left of a gap is thinking"
)

GAPS = (
    f"turns wait for the one before; thinking is the recorded gap less {ANSWER_S_PER_TOKEN * 1000:g} ms for "
    "each token of its answer, as the file does not say how long answers took"
)

_FURTHEST = 1000


def answer_times(took_s: NDArray[np.float64], osl: NDArray[Any]) -> NDArray[np.float64]:
    """Return how long each answer took, s: as recorded, else its tokens times the median of the recorded.

    Args:
        took_s: float64[n], NaN where not recorded.
        osl: whole numbers, [n].
    """
    known = np.isfinite(took_s) & (osl > 0)
    per_token_s = float(np.median(took_s[known] / osl[known])) if known.any() else ANSWER_S_PER_TOKEN
    return np.where(np.isfinite(took_s), took_s, osl * per_token_s)


def wait_for(arrival_s: NDArray[np.float64], before: NDArray[np.int64], took_s: NDArray[np.float64]) -> Turns:
    """Return turns in which each request waits for one other: thinking is the gap less the answer.

    Args:
        arrival_s: float64[n].
        before: int64[n], the row that each waits for; -1 for none.
        took_s: float64[n], how long each answer took.
    """
    waits = before >= 0
    gap_s = np.where(waits, arrival_s - arrival_s[before], 0.0)
    think_s = np.where(waits, np.maximum(gap_s - took_s[before], 0.0), 0.0)
    start = np.concatenate([[0], np.cumsum(waits)]).astype(np.int64)
    return Turns(start, before[waits].astype(np.int32), think_s)


def one_after_another(
    arrival_s: NDArray[np.float64],
    session: NDArray[Any],
    took_s: NDArray[np.float64],
    osl: NDArray[Any],
) -> Turns:
    """Return turns in which each request of a session waits for the one before it, in order of arrival.

    A request that came before a recorded answer was there did not wait for it: it waits for the last one
    answered by then, or for none.

    Args:
        arrival_s: float64[n].
        session: the session of each, [n].
        took_s: float64[n], NaN where it is not recorded how long an answer took.
        osl: generated tokens, [n].
    """
    order = np.lexsort((np.arange(len(arrival_s)), arrival_s, session))
    follows = np.zeros(len(order), bool)
    follows[1:] = session[order[1:]] == session[order[:-1]]
    before = np.full(len(order), -1, np.int64)
    before[order[1:][follows[1:]]] = order[:-1][follows[1:]]
    done_s = arrival_s + np.where(np.isfinite(took_s), took_s, 0.0)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    beside = np.flatnonzero((before >= 0) & (done_s[before] > arrival_s))
    for row in beside.tolist():
        at, found = int(place[row]), -1
        for earlier in range(at - 1, max(at - _FURTHEST, -1), -1):
            if session[order[earlier]] != session[row]:
                break
            if done_s[order[earlier]] <= arrival_s[row]:
                found = int(order[earlier])
                break
        before[row] = found
    return wait_for(arrival_s, before, answer_times(took_s, osl))
