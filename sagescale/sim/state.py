"""What the kernel works on: plain arrays and records, laid out for one pass over memory.

Everything a run changes is here, so a run can be paused at any instant (the planner's tick), looked at,
and resumed. Times are seconds, lengths are tokens. Index -1 means "none".

What a run changes of a request is one record of 32 bytes, so that an event touches one cache line; 4 more
log the order of completions. The trace's columns are used as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ADAPTIVE",
    "DECODE_INSTANCE",
    "DONE",
    "DRAINING",
    "FIFO",
    "FREE",
    "HANDOFF_ENTRY",
    "IN_HANDOFF",
    "IN_POOL_DECODE",
    "IN_POOL_PREFILL",
    "IN_PREFILL",
    "LIFE",
    "LOST",
    "NOT_READY",
    "PENDING",
    "PLACE",
    "PREFILL_INSTANCE",
    "PRIORITY",
    "PROGRESS",
    "READY",
    "REJECTED",
    "REQUEST",
    "REQUEST_BITS",
    "RUNNING",
    "SLO_AWARE",
    "STARTING",
    "STEP_SEGMENT",
    "TIMED_OUT",
    "WAITING_DECODE",
    "WAITING_PREFILL",
    "WORLD",
    "State",
]

# Instance status.
FREE, STARTING, READY, DRAINING = 0, 1, 2, 3

# Request state.
PENDING = 0
IN_POOL_PREFILL = 1  # no READY prefill instance: the pool's own queue
WAITING_PREFILL = 2
IN_PREFILL = 3
IN_POOL_DECODE = 4
IN_HANDOFF = 5
WAITING_DECODE = 6
RUNNING = 7
DONE = 8
REJECTED = 9
TIMED_OUT = 10
LOST = 11  # its instance crashed; passes within the instant

# What orders the instances' queues.
FIFO, PRIORITY, SLO_AWARE, ADAPTIVE = 0, 1, 2, 3

NOT_READY = np.iinfo(np.int64).max  # router key of an instance that takes nothing new
REQUEST_BITS = 30  # a decode heap entry packs (finishing step << REQUEST_BITS) | request

WORLD = np.dtype(
    [
        ("quadratic_s", "f8"),  # b of DESIGN 4, seconds per token²
        ("prefill_floor_s", "f8"),
        ("prefill_slope_s", "f8"),  # seconds per token beyond the prefill table
        ("max_batch_tokens", "i8"),
        ("max_num_seqs", "i8"),
        ("max_kv_tokens", "i8"),
        ("kv_latency_s", "f8"),
        ("kv_s_per_token", "f8"),
        ("kv_decode_steps", "f8"),
        ("join_s_per_token", "f8"),
        ("request_timeout_s", "f8"),  # inf when off
        ("target_ttft_s", "f8"),
        ("target_itl_s", "f8"),
        ("prefill_gpus", "i8"),
        ("decode_gpus", "i8"),
        ("max_gpus", "i8"),
        ("scheduling", "i8"),  # FIFO, PRIORITY, SLO_AWARE or ADAPTIVE
        ("round_robin", "b1"),  # else load balanced
        ("blocks_prefill", "b1"),
        ("decode_first", "b1"),  # first_token: decode
        ("watch_launches", "b1"),  # stop at an instant that launches something
    ],
    align=True,
)

PROGRESS = np.dtype(
    [
        ("now_s", "f8"),
        ("last_done_s", "f8"),
        ("ttft_sum_s", "f8"),
        ("duration_sum_s", "f8"),
        ("itl_sum_s", "f8"),
        ("handoff_sum_s", "f8"),  # of the hand-offs begun, handoff_seq of them
        ("next_arrival", "i8"),
        ("next_deadline", "i8"),
        ("isl_sum", "i8"),
        ("cached_sum", "i8"),
        ("osl_sum", "i8"),
        ("first_tokens", "i8"),
        ("completed", "i8"),
        ("itl_count", "i8"),
        ("ttft_met", "i8"),  # first tokens within the target
        ("itl_met", "i8"),  # of itl_count, those within the target
        ("rejected", "i8"),
        ("timed_out", "i8"),
        ("in_service", "i8"),  # requests inside prefill batches
        ("handoffs", "i8"),  # entries of the hand-off heap
        ("handoff_seq", "i8"),
        ("prefill_queue_head", "i8"),
        ("prefill_queue_tail", "i8"),
        ("prefill_queue_len", "i8"),
        ("decode_queue_head", "i8"),
        ("decode_queue_tail", "i8"),
        ("decode_queue_len", "i8"),
        ("prefill_waiting", "i8"),  # launches waiting for GPUs
        ("decode_waiting", "i8"),
        ("prefill_ids", "i8"),  # instances ever launched: the next id
        ("decode_ids", "i8"),
        ("prefill_free", "i8"),  # length of the free-slot stacks
        ("decode_free", "i8"),
        ("startups", "i8"),  # startup delays drawn
        ("gpus_used", "i8"),
        ("max_gpus_used", "i8"),
        ("dirty_prefill", "i8"),
        ("dirty_decode", "i8"),
        ("becoming_prefill", "i8"),
        ("becoming_decode", "i8"),
        ("lives", "i8"),  # rows of the log of lifetimes
        ("oldest", "i8"),  # no request before this one is in the system
        ("restarts", "i8"),
        ("joins", "i8"),  # joins of queues that a policy orders
        ("prefill_turns", "i8"),  # round robin: requests routed so far
        ("decode_turns", "i8"),
    ],
    align=True,
)

PREFILL_INSTANCE = np.dtype(
    [
        ("event_s", "f8"),  # batch end, or READY while STARTING; inf when there is none
        ("load", "i8"),  # outstanding prompt tokens, queued and in service
        ("key", "i8"),  # while READY the load, or its latest turn; else NOT_READY: what the router compares
        ("id", "i8"),
        ("head", "i8"),
        ("tail", "i8"),
        ("queued", "i8"),
        ("batch", "i8"),  # first request in service
        ("batch_tokens", "i8"),
        ("cursor", "i8"),  # blocking hand-off: the request whose turn it is
        ("cold_s", "f8"),  # what its first batch takes longer
        ("life", "i8"),  # row in the log of lifetimes
        # Columns that are arrays in their own right, index by index (see State).
        ("event_node", "i4"),
        ("router_node", "i4"),
        ("free_slot", "i4"),
        ("dirty_slot", "i4"),
        ("becoming_slot", "i4"),
        ("status", "i1"),
        ("busy", "b1"),
        ("handing", "b1"),  # blocking hand-off: one is under way
        ("by_slack", "b1"),  # how its queue is ordered now, where a policy orders it
        ("dirty", "b1"),
    ],
    align=True,
)

DECODE_INSTANCE = np.dtype(
    [
        ("event_s", "f8"),  # end of the run of steps in progress, or READY while STARTING
        ("load", "i8"),  # reserved KV tokens of everything bound here and unfinished
        ("key", "i8"),
        ("id", "i8"),
        ("head", "i8"),
        ("tail", "i8"),
        ("queued", "i8"),
        ("running", "i8"),
        ("kv", "i8"),  # tokens held at the start of the run
        ("reserved", "i8"),  # isl + osl of the running ones
        ("steps", "i8"),  # steps taken before the run
        ("run_steps", "i8"),  # steps of the run in progress
        ("run_start_s", "f8"),
        ("run_join_s", "f8"),  # what joining adds to the run's first step
        ("last_step_end_s", "f8"),
        ("last_step_s", "f8"),
        ("joined", "i8"),  # first_token: decode: the requests that wait for this step's token
        ("cold_s", "f8"),  # what its first step takes longer
        ("life", "i8"),  # row in the log of lifetimes
        # Columns that are arrays in their own right, index by index (see State).
        ("event_node", "i4"),
        ("router_node", "i4"),
        ("free_slot", "i4"),
        ("dirty_slot", "i4"),
        ("becoming_slot", "i4"),
        ("status", "i1"),
        ("dirty", "b1"),
    ],
    align=True,
)

HANDOFF_ENTRY = np.dtype([("time_s", "f8"), ("seq", "i8"), ("request", "i4"), ("source", "i4")], align=True)

REQUEST = np.dtype(
    [
        ("first_token_s", "f8"),  # NaN until it happens
        ("done_s", "f8"),
        ("link", "i4"),  # next in whichever list the request is in
        ("chain", "i4"),  # blocking hand-off: next of the batch
        ("bound", "i4"),  # slot of the instance the request is at
        ("state", "u1"),
        ("restarts", "u2"),  # crashes it was thrown back by; stays at the largest
    ],
    align=True,
)

PLACE = np.dtype(
    [
        ("rank", "f8"),  # served first: the lowest, then
        ("latest_s", "f8"),  # who must begin the earliest to be in time, then
        ("joined", "i8"),  # who joined the queue first
        ("child", "i4"),  # first of those behind it; they are linked
    ],
    align=True,
)

STEP_SEGMENT = np.dtype([("edge", "f8"), ("base_s", "f8"), ("slope_s", "f8")], align=True)

LIFE = np.dtype(
    [
        ("prefill", "b1"),  # else decode
        ("id", "i8"),
        ("launch_s", "f8"),
        ("ready_s", "f8"),  # NaN: never
        ("drain_s", "f8"),
        ("stop_s", "f8"),
        ("cold_s", "f8"),  # what a cold first batch or step took longer
    ],
    align=True,
)


class State(NamedTuple):
    """All of a simulation's state and its constants.

    A pool is one array of instance slots, a power of two of them. Some of its columns are arrays in
    their own right that only share the index: the nodes of its two winner trees, the stack of free
    slots, and the lists of instances to look at (dirty) or to make READY before the instant ends.
    """

    world: NDArray[np.void]  # 1 record WORLD
    progress: NDArray[np.void]  # 1 record PROGRESS
    # The trace's columns, read only.
    arrival_s: NDArray[np.float64]
    isl: NDArray[np.int32]
    prompt: NDArray[np.int32]  # tokens to compute: isl less the cached ones
    osl: NDArray[np.int32]
    priority: NDArray[np.int32]  # lowest first; empty under FIFO
    requests: NDArray[np.void]  # REQUEST, by arrival: what a run changes
    produced: NDArray[np.int32]  # tokens a request had when a crash last threw it back
    places: NDArray[np.void]  # PLACE of every request in a queue that a policy orders; empty under FIFO
    completed: NDArray[np.int32]  # requests in order of completion
    prefill_s: NDArray[np.float64]  # lone-prompt time at every token count
    steps: NDArray[np.void]  # (max_num_seqs + 1, segments): STEP_SEGMENT, linear in K up to its edge
    prefill: NDArray[np.void]  # PREFILL_INSTANCE
    decode: NDArray[np.void]  # DECODE_INSTANCE
    finish: NDArray[np.int64]  # (decode slots * max_num_seqs): a heap of finishing steps an instance
    handoff: NDArray[np.void]  # heap of HANDOFF_ENTRY
    startup_s: NDArray[np.float64]  # delay of the k-th launch
    life: NDArray[np.void]  # LIFE, by launch
