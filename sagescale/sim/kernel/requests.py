"""A request's own moments: its first token, its end, giving up."""

from __future__ import annotations

from typing import Any

import numpy as np

from sagescale.sim.kernel.compiled import entry, inlined
from sagescale.sim.kernel.gaps import itl_is_met
from sagescale.sim.kernel.sessions import answered, missed
from sagescale.sim.state import DONE, PENDING, TIMED_OUT, State


@inlined
def produced(s: State, request: int) -> int:
    """Tokens it had when a crash last threw it back; few were, and the record says which."""
    return int(s.produced[request]) if s.requests[request].restarts > 0 else 0


@inlined
def reserves(s: State, request: int) -> int:
    """KV tokens that a request will hold at most."""
    return np.int64(s.isl[request]) + s.osl[request]


@inlined
def due_s(s: State, service: int, request: int, made: int) -> float:
    """When the next token of a request is due: the first by the TTFT target, each later one an ITL on."""
    w = s.services[service]
    first_token_s = s.requests[request].first_token_s
    if np.isnan(first_token_s):
        return float(s.arrival_s[request] + w.target_ttft_s)
    return float(first_token_s + w.target_itl_s * made)


@inlined
def expired(s: State, service: int, request: int, t: float) -> bool:
    """Rule 11: whether a request has waited too long for its first token."""
    # NaN compares unequal to itself: no first token yet.
    return (
        s.arrival_s[request] + s.services[service].request_timeout_s <= t
        and s.requests[request].first_token_s != s.requests[request].first_token_s
    )


@inlined
def leave(s: State, service: int, request: int) -> None:
    """Rule 11: the request has waited too long; whoever held it has let it go."""
    s.requests[request].state = TIMED_OUT
    s.services[service].timed_out += 1
    missed(s, request)


@inlined
def first_token(s: State, service: int, request: int, t: float) -> None:
    """The first token is there."""
    w = s.services[service]
    s.requests[request].first_token_s = t
    w.first_tokens += 1
    ttft_s = t - s.arrival_s[request]
    w.ttft_sum_s += ttft_s
    w.ttft_met += ttft_s <= w.target_ttft_s


@inlined
def complete(s: State, service: int, request: int, t: float) -> None:
    """The last token is there."""
    w = s.services[service]
    s.requests[request].done_s = t
    s.requests[request].state = DONE
    s.completed[w.first_request + w.completed] = request
    w.completed += 1
    w.osl_sum += s.osl[request]
    w.duration_sum_s += t - s.arrival_s[request]
    w.last_done_s = t
    if s.osl[request] > 1:
        itl_s = (t - s.requests[request].first_token_s) / (s.osl[request] - 1)
        w.itl_sum_s += itl_s
        w.itl_count += 1
        w.itl_met += itl_is_met(s, service, request, itl_s)
    answered(s, request, t)


@entry
def clear_requests(requests: Any) -> None:
    """Write every record once, as before anything has happened."""
    for i in range(requests.size):
        r = requests[i]
        r.first_token_s = np.nan
        r.done_s = np.nan
        r.link = -1
        r.chain = -1
        r.bound = -1
        r.state = PENDING
        r.restarts = 0
