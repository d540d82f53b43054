"""What the kernel works on: plain arrays and records, laid out for one pass over memory.

Everything a run changes is here, so a run can be paused at any instant (the planner's tick), looked at,
and resumed. Times are seconds, lengths are tokens. Index -1 means "none".

What a run changes of a request is one record of 32 bytes, so that an event touches one cache line; 4 more
log the order of completions. The trace's columns are used as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

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

# Which instance a request goes to.
LOAD_BALANCED, ROUND_ROBIN, LEAST_TOKENS, KV_AWARE, PREFIX_AFFINITY, SESSION_AFFINITY = 0, 1, 2, 3, 4, 5

NOT_READY = np.int64(np.iinfo(np.int64).max)  # router key of an instance that takes nothing new
PREFILL_ROLE, DECODE_ROLE, AGGREGATED_ROLE = 1, 2, 3

# What forms an instance's batches or steps; with all but BATCH it takes one step after the other.
BATCH, VLLM, SGLANG = 0, 1, 2

WAITS, RUNS = (
    np.int64(4),
    np.int64(1),
)  # what a request adds to an aggregated instance's load (vLLM's balancer)
NEVER = np.int64(1 << 62)  # a step that does not come

MEAN, P99, MAX = 0, 1, 2  # which of a request's gaps the ITL target binds

AGES_UNTIL_S = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, np.inf)  # of instances, READY so long
AGES = len(AGES_UNTIL_S)
HITS_HALVE_S = 300.0  # what an instance's prefix cache has hit counts half after this

GAP_BINS_AN_OCTAVE = 256  # no bin is wider than 0.4 %
GAP_LEAST_OCTAVE = -20  # a microsecond
GAP_BINS = 40 * GAP_BINS_AN_OCTAVE

POOL_SHIFT = 32  # an id packs (pool << POOL_SHIFT) | number
REQUEST_BITS = 30  # a decode heap entry packs (finishing step << REQUEST_BITS) | request

SERVICE = np.dtype(
    [
        # What it is.
        ("request_timeout_s", "f8"),  # inf when off
        ("target_ttft_s", "f8"),
        ("target_itl_s", "f8"),
        ("itl_statistic", "i8"),  # MEAN, P99 or MAX
        ("max_kv_tokens", "i8"),  # the most that any of its decode pools holds on one instance
        ("max_whole_tokens", "i8"),  # the longest prompt of a step that cannot be cut
        ("prefill_stage", "i8"),
        ("decode_stage", "i8"),
        ("end_request", "i8"),  # its requests are a range of the trace's columns
        ("scheduling", "i8"),  # FIFO, PRIORITY, SLO_AWARE or ADAPTIVE
        ("routing", "i8"),  # LOAD_BALANCED and so on
        ("round_robin", "b1"),
        ("decode_first", "b1"),  # first_token: decode
        ("overlap_credit", "f8"),  # of kv_aware, as the next two
        ("prefill_load_scale", "f8"),
        ("router_temperature", "f8"),
        ("affinity_max_load", "f8"),  # of session_affinity, over the mean
        ("keeps_hits", "b1"),  # a scale-down drains what has lately hit least
        ("lost_units", "i8"),  # that only drained instances had and nobody has computed since
        ("drained_tokens", "i8"),  # cached on drained instances at their end
        ("asked_again_tokens", "i8"),  # of lost units
        ("considers", "b1"),  # its router compares all instances
        ("staleness_s", "f8"),  # its router looks at multiples of this; 0 always
        ("next_look_s", "f8"),
        ("looks", "i8"),  # it has taken
        ("unit_tokens", "i8"),  # of an id of the prefix cache
        ("seed", "u8"),  # of its random numbers,
        ("name_crc", "u8"),  # which its name tells from other services'
        ("launches_held", "b1"),  # a fault: no launch begins
        ("max_gpus", "i8"),  # its own budget, whatever the stock
        # What has happened.
        ("last_done_s", "f8"),
        ("ttft_sum_s", "f8"),
        ("duration_sum_s", "f8"),
        ("itl_sum_s", "f8"),
        ("handoff_sum_s", "f8"),  # of the hand-offs begun
        ("handoffs", "i8"),  # hand-offs begun
        ("first_request", "i8"),
        ("next_arrival", "i8"),
        ("next_deadline", "i8"),
        ("oldest", "i8"),  # none of its requests before this one is in the system
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
        ("restarts", "i8"),
        ("waiting", "i8"),  # launches waiting for GPUs
        ("waiting_since", "i8"),  # the decision since which some have been
        ("gpus_used", "i8"),
        ("max_gpus_used", "i8"),
        ("gap_most_s", "f8"),  # the largest between two tokens
    ],
    align=True,
)

STAGE = np.dtype(
    [
        ("service", "i8"),
        ("first_pool", "i8"),  # its pools follow one another in the fleet
        ("end_pool", "i8"),
        ("queue_head", "i8"),  # requests that wait until an instance is READY
        ("queue_tail", "i8"),
        ("queued", "i8"),
        ("turns", "i8"),  # round robin: requests routed so far
        ("homes", "i8"),  # where its sessions begin in ``home``
        ("in_service", "i8"),  # requests inside prefill batches
    ],
    align=True,
)

POOL = np.dtype(
    [
        # What it is.
        ("role", "i8"),
        ("service", "i8"),
        ("stage", "i8"),
        ("stock", "i8"),  # which GPUs its instances take
        ("gpus", "i8"),  # how many each takes
        ("root", "i8"),  # the node of its router's tree that holds the winner
        ("capacity", "f8"),  # of one instance; pools of a stage are compared by load over capacity
        # Its engine, as prefill.
        ("prefill_table", "i8"),  # where its lone-prompt times begin
        ("prefill_top", "i8"),  # how many tokens they go up to
        ("prefill_slope_s", "f8"),  # seconds per token beyond that
        ("quadratic_s", "f8"),  # b of DESIGN 4, seconds per token²
        ("prefill_floor_s", "f8"),
        ("max_batch_tokens", "i8"),
        ("blocks_prefill", "b1"),  # its batches are handed over one request after the other
        # Its engine, as decode.
        ("step_table", "i8"),  # where its step segments begin
        ("step_segments", "i8"),  # how many there are for each number of running requests
        ("max_num_seqs", "i8"),
        ("max_kv_tokens", "i8"),
        ("join_s_per_token", "f8"),
        ("kv_latency_s", "f8"),  # what a hand-off to it takes
        ("kv_s_per_token", "f8"),
        ("kv_decode_steps", "f8"),
        ("spread", "i8"),  # where its times for unequal lengths begin; -1 without
        # Its engine, where it is a step at a time.
        ("scheduler", "i8"),  # BATCH, VLLM or SGLANG
        ("block_tokens", "i8"),  # of a block of KV memory
        ("blocks", "i8"),  # of an instance
        ("max_batched_tokens", "i8"),  # of a step
        ("long_prefill_tokens", "i8"),  # the most of one prompt in a step
        ("chunked_prefill", "b1"),
        ("mixed_chunk", "b1"),
        ("reserve_full_isl", "b1"),
        ("prefix_cache", "b1"),
        ("tokens_table", "i8"),  # where its times by tokens of a step begin
        ("tokens_top", "i8"),  # how many tokens they go up to
        ("tokens_slope_s", "f8"),  # seconds per token beyond that
        ("running_s", "f8"),  # ENGINES 8: what else a step with chunks takes, for each decode,
        ("kv_s", "f8"),  # each token they hold,
        ("cross_s", "f8"),  # each token of a chunk times those computed before,
        ("square_s", "f8"),  # half the square of each chunk,
        ("longest_s", "f8"),  # each token of the longest context
        # What has happened.
        ("target", "i8"),  # instances it is to have
        ("waiting", "i8"),  # launches waiting for GPUs
        ("begins", "i8"),  # of them, those that have just been given some
        ("launched", "i8"),  # instances ever launched: the number of the next one
        ("free", "i8"),  # length of the stack of free slots
        ("first_slot", "i8"),
        ("slots", "i8"),
        ("startups", "i8"),  # where its next startup delay is
        ("preemptions", "i8"),
        ("short_s", "f8"),  # time of steps for which blocks were short
    ],
    align=True,
)

STOCK = np.dtype([("gpus", "i8"), ("used", "i8"), ("most_used", "i8")], align=True)

PROGRESS = np.dtype(
    [
        ("now_s", "f8"),
        ("next_look_s", "f8"),  # of any router; inf where none is late
        ("next_arrival_s", "f8"),  # of any service; inf when all have arrived
        ("in_service", "i8"),  # requests inside prefill batches
        ("queued_decode", "i8"),  # requests that no READY decode instance has taken yet
        ("handoffs", "i8"),  # entries of the hand-off heap
        ("handoff_seq", "i8"),
        ("dirty_prefill", "i8"),  # instances to look at before the instant ends
        ("dirty_decode", "i8"),
        ("becoming", "i8"),  # instances to make READY before the instant ends
        ("lives", "i8"),  # rows of the log of lifetimes
        ("joins", "i8"),  # joins of queues that a policy orders
        ("waiting", "i8"),  # launches waiting for GPUs, of all pools
        ("decisions", "i8"),
        ("free_entry", "i8"),  # first of the cache's entries not in use
        ("free_entries", "i8"),  # how many these are
        ("free_run", "i8"),  # the same of runs of ids
        ("free_runs", "i8"),
        ("spare_entries", "i8"),  # as many may be needed within an instant
        ("timeouts", "b1"),  # whether any service has one
        ("formed", "b1"),  # the steps of this instant have begun: what comes now joins the next ones
        ("steps_hand_over", "b1"),  # some engines that step hand their requests over
        ("watch_launches", "b1"),  # stop at an instant that launches something
    ],
    align=True,
)

SLOT = np.dtype(
    [
        ("event_s", "f8"),  # end of the batch or run of steps, or READY while STARTING; inf without one
        ("cost", "f8"),  # for the request now routed, where all are looked at
        ("key", "i8"),  # while READY the load, or its latest turn; else NOT_READY
        ("id", "i8"),  # (pool << POOL_SHIFT) | number: ties go to the first of the fleet
        ("event_node", "i4"),
        ("router_node", "i4"),
    ],
    align=True,
)

INSTANCE = np.dtype(
    [
        ("load", "i8"),  # outstanding: prompt tokens to compute, or reserved KV tokens
        ("bound", "i8"),  # decode: requests bound to it, those under way included
        ("answer_tokens", "i8"),  # to be produced, of all routed here, at the start of the run
        # Its queue.
        ("head", "i8"),
        ("tail", "i8"),
        ("queued", "i8"),
        ("pool", "i4"),
        ("status", "i1"),
        ("dirty", "b1"),
        ("busy", "b1"),  # prefill: a batch is in service, or its hand-offs hold the instance
        ("handing", "b1"),  # blocking hand-off: one is under way
        ("by_slack", "b1"),  # prefill: how its queue is ordered now, where a policy orders it
        # Decode: the run of steps in progress.
        ("running", "i8"),
        ("kv", "i8"),  # tokens held at the start of the run
        ("reserved", "i8"),  # isl + osl of the running ones
        ("steps", "i8"),  # steps taken before the run
        ("run_steps", "i8"),
        ("run_start_s", "f8"),
        ("run_join_s", "f8"),  # what joining adds to the run's first step
        ("run_spread_s", "f8"),  # what unequal lengths add to each of its steps
        ("segment", "i8"),  # of its step times, at the start of the run
        ("finish", "i8"),  # where its heap of finishing steps begins
        ("joined", "i8"),  # first_token: decode: the requests that wait for this step's token
        ("last_step_end_s", "f8"),
        ("last_step_s", "f8"),
        # Prefill: the batch in service.
        ("batch", "i8"),  # its first request
        ("batch_tokens", "i8"),
        ("cursor", "i8"),  # blocking hand-off: the request whose turn it is
        # Either.
        ("cold_s", "f8"),  # what its first batch or step takes longer
        ("life", "i8"),  # row in the log of lifetimes
        # Columns that are arrays in their own right, index by index (see State).
        ("free_slot", "i4"),
        ("dirty_slot", "i4"),
        ("becoming_slot", "i4"),
    ],
    align=True,
)

HANDOFF_ENTRY = np.dtype([("time_s", "f8"), ("seq", "i8"), ("request", "i4"), ("source", "i4")], align=True)

REQUEST = np.dtype(
    [
        ("first_token_s", "f8"),  # NaN until it happens
        ("done_s", "f8"),
        ("link", "i4"),  # next in whichever list the request is in
        ("chain", "i4"),  # blocking hand-off: next of the batch; gaps: next of those that join a batch
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

ENGINE = np.dtype(
    [
        ("members", "i8"),  # where what runs on it begins
        ("running", "i8"),  # how many that are
        ("decoding", "i8"),  # of them, those that take a token a step
        ("base", "i8"),  # what these have computed less the steps taken, in all
        ("next_finish", "i8"),  # the first step at which one of these is done
        ("longest", "i8"),  # the largest of what one of these has computed less the steps taken
        ("phases", "i8"),  # where the counts of these by base modulo block begin
        ("used", "i8"),  # blocks that are held
        ("waiting_tokens", "i8"),  # to be computed, of those that wait
        ("idle", "i8"),  # blocks that only the prefix cache keeps
        ("gone", "i8"),  # of those evicted since the router looked, the last; they are chained by ``newer``
        ("oldest_idle", "i8"),  # entries of the cache that nobody holds, by when they were let go
        ("newest_idle", "i8"),
        ("prompt_tokens", "i8"),  # to be computed, of all that are not decoding
        ("recomputing", "i8"),  # decode: those that were pre-empted and do not decode again yet
        ("first_chunk", "i8"),  # before this member none has a chunk in the step under way
        ("prompts", "b1"),  # the step under way computes prompts: it is alone
        ("marked", "b1"),  # those of its decodes that are in it have a chunk
        ("joined_tokens", "i8"),  # brought by hand-offs that it admits
        ("advance", "b1"),  # the decodes of the run take a token a step
        ("first_tokens", "i8"),  # prompts that the step under way completes
        ("stalled", "b1"),  # some that decode have been left out of steps
        ("short", "b1"),  # blocks were short for the run under way
        ("overlap", "i8"),  # with the prompt now routed: leading blocks that are cached,
        ("overlap_ids", "i8"),  # and ids; -1 where they end within one
        ("expired", "i8"),  # the last of those pre-empted for it that have waited too long; they are chained
        ("number", "i8"),  # of the step or run under way
        ("hits", "f8"),  # tokens found in its prefix cache, fading,
        ("hits_at_s", "f8"),  # as of then
        # What a router sees: as of the last finished step, and what was routed to it since.
        ("seen_prompt_tokens", "i8"),
        ("seen_decoding", "i8"),
        ("seen_running", "i8"),
        ("seen_recomputing", "i8"),
        ("seen_used", "i8"),
    ],
    align=True,
)

MEMBER = np.dtype(
    [
        ("base", "i8"),  # decoding: computed less the instance's steps; else computed
        ("finish", "i8"),  # decoding: the step at which it is done; else -1
        ("gap_s", "f8"),  # the largest between its tokens
        ("stall_s", "f8"),  # since its last token, in steps that left it out
        ("request", "i4"),
        ("chunk", "i4"),  # tokens computed for it in the step under way; of decodes, where they are marked
        ("hit", "i4"),  # leading blocks it found,
        ("units", "i4"),  # and ids they are of
        ("shared", "i4"),  # blocks it has of the prefix cache
        ("private", "i4"),  # the last of its runs of ids whose blocks are its own; -1 none
        ("ahead", "i4"),  # blocks it has for tokens that are in no step yet
        ("late", "i4"),  # gaps longer than the target; decoding: less the instance's so far
        ("left_out", "b1"),  # of the step under way
    ],
    align=True,
)

STEPPED_REQUEST = np.dtype(
    [
        ("hit_tokens", "i4"),  # found in the prefix cache when it was first admitted
        ("recomputed", "i4"),  # tokens lost in pre-emptions and not found again
        ("preemptions", "i4"),
        ("lost", "i4"),  # tokens it had computed when it was pre-empted last
        ("leaf", "i4"),  # node of its last id; -1 without
        ("own", "i4"),  # its own entries of the prefix cache; -1 none
        ("admitted", "b1"),  # ever, where prompts are computed
        ("preempted", "b1"),  # and has not been admitted again
        ("arrived_computed", "b1"),  # at a decode pool, and has not been pre-empted there
        ("preempted_at", "i8"),  # in which step of its instance
        ("bound_at", "i8"),  # decode: who was bound first
        # Prefill: what it holds until its hand-off has ended.
        ("source", "i4"),  # slot of the instance; -1 none
        ("source_id", "i8"),  # what tells whether it is still there
        ("computed", "i4"),
        ("request", "i4"),
        ("hit", "i4"),
        ("units", "i4"),
        ("shared", "i4"),
        ("private", "i4"),
    ],
    align=True,
)

GAPS_OF_REQUEST = np.dtype(
    [
        ("gap_s", "f8"),  # the largest between two of its tokens
        ("last_s", "f8"),  # its last token, while it is not decoding
        ("late", "i4"),  # gaps longer than the ITL target; in a batch: less its instance's when it joined
        ("joins", "b1"),  # the run of steps under way, of a batch, is its first
    ],
    align=True,
)

GAPS_OF_INSTANCE = np.dtype(
    [
        ("gap_s", "f8"),  # the largest of the steps that those it runs have not been told of
        ("least_s", "f8"),  # of a batch: none of those told so far has a smaller largest gap
        ("late", "i8"),  # steps longer than the ITL target
        ("joining", "i8"),  # requests whose first run of steps in its batch is under way,
        ("joined", "i8"),  # the last of them; they are chained
    ],
    align=True,
)

CACHE_ENTRY = np.dtype(
    [
        ("unit", "i4"),  # -1: a pre-empted request's own blocks
        ("slot", "i4"),  # -1 - slot where it is evicted and the router does not know yet
        ("born", "i4"),  # after how many looks of the router
        ("chain", "i4"),  # the same unit on another instance; or the next free entry
        ("holders", "i4"),
        ("older", "i4"),  # among the idle ones of its instance
        ("newer", "i4"),
        ("blocks", "i4"),
        ("request", "i4"),  # whose own blocks they are,
        ("first", "i4"),  # from which of its blocks on
    ],
    align=True,
)

NODE = np.dtype(
    [
        ("parent", "i4"),  # -1 at the root
        ("unit", "i4"),  # the id
        ("depth", "i4"),  # ids up to here, this one included
        ("stretch", "i4"),  # first of the nodes that lead here, each the number after its parent
    ],
    align=True,
)

UNIT_RUN = np.dtype([("first", "i4"), ("count", "i4"), ("next", "i4")], align=True)

SESSION = np.dtype(
    [
        ("began_s", "f8"),
        ("service", "i4"),
        ("left", "i4"),  # its requests that are not answered yet
        ("first_root", "i4"),  # of a closed population: its requests that wait for nobody are in ``roots``
        ("next_root", "i4"),  # from here on they have yet to come,
        ("end_root", "i4"),  # up to here
        ("ended", "b1"),  # nothing more of it arrives
        ("open", "b1"),  # stands for a service without turns: everything arrives by the clock
    ],
    align=True,
)

POPULATION = np.dtype(
    [
        ("sessions", "i8"),  # of a service that are alive at a time; 0: they begin by the clock
        ("next_session", "i8"),
        ("end_session", "i8"),
    ],
    align=True,
)

TURN_ENTRY = np.dtype([("time_s", "f8"), ("seq", "i8")], align=True)  # seq: the row

TURNING = np.dtype(
    [
        ("next_root", "i8"),  # the next that begins by the clock
        ("end_root", "i8"),
        ("coming", "i8"),  # entries of the heap of turns to come
        ("due", "i8"),  # requests that wait for those in the system, counted once for each
        ("populations", "i8"),  # sessions alive at a time, of all services with a closed population
    ],
    align=True,
)

LIFE = np.dtype(
    [
        ("pool", "i8"),
        ("number", "i8"),  # the how-manieth launch of its pool
        ("launch_s", "f8"),
        ("ready_s", "f8"),  # NaN: never
        ("drain_s", "f8"),
        ("stop_s", "f8"),
        ("cold_s", "f8"),  # what a cold first batch or step took longer
    ],
    align=True,
)


class Stepped(NamedTuple):
    """What only engines need that take one step after the other (ENGINES.md).

    A run without such engines has none of it, and a kernel compiled without it.
    """

    engines: NDArray[np.void]  # ENGINE, slot by slot
    members: NDArray[np.void]  # MEMBER: what runs on an instance in order of admission, instance by instance
    phases: NDArray[np.int64]  # of an instance's decodes, how many by base modulo block
    requests: NDArray[np.void]  # STEPPED_REQUEST
    nodes: NDArray[np.void]  # NODE: the ids of prompts as a tree
    entries: NDArray[np.void]  # CACHE_ENTRY; those not in use are chained
    first_entry: NDArray[np.int32]  # of each unit; -1 none
    lost: NDArray[np.bool_]  # of each unit, whether only a drained instance had it
    hits_by_age: NDArray[np.void]  # HITS, by service and how long instances have been READY
    private_runs: NDArray[np.void]  # UNIT_RUN; those not in use are chained
    path: NDArray[np.int32]  # scratch: stretches on the way to a node


HITS = np.dtype([("asked_tokens", "i8"), ("hit_tokens", "i8")], align=True)

VIEW = np.dtype(
    [
        ("load", "i8"),  # each as of the router's last look, and what it has sent there since
        ("outstanding", "i8"),
        ("waiting", "i8"),
        ("prompt_tokens", "i8"),
        ("held_blocks", "f8"),
        ("usage", "f8"),
    ],
    align=True,
)


class Gaps(NamedTuple):
    """The time between tokens, where engines step or somebody asked; a kernel without is compiled without."""

    histogram: NDArray[np.int64]  # by service and bin
    requests: NDArray[np.void]  # GAPS_OF_REQUEST
    instances: NDArray[np.void]  # GAPS_OF_INSTANCE, slot by slot


class Homes(NamedTuple):
    """What routers go by that compare all instances."""

    # Where a service has session_affinity, else both are empty:
    session: NDArray[np.int32]  # of each request, numbered from 0 by service
    home: NDArray[np.int64]  # id of the instance that each session was last routed to, by stage; -1 none
    views: NDArray[np.void]  # VIEW, slot by slot; empty where no router is late


class Turns(NamedTuple):
    """What only traces need whose requests wait for answers (ENGINES.md 6).

    A *row* is a request in the order of the trace; of several services one's after the other's. Requests are
    numbered by arrival all the same: what the trace says of a row is copied when it arrives.

    A run without turns has none of it, and a kernel compiled without it.
    """

    progress: NDArray[np.void]  # 1 record TURNING
    sessions: NDArray[np.void]  # SESSION
    populations: NDArray[np.void]  # POPULATION, by service
    coming: NDArray[np.void]  # heap of TURN_ENTRY: turns whose answers are all there
    roots: NDArray[np.int32]  # rows that wait for nobody: by the clock, then session by session
    row: NDArray[np.int32]  # of each request, by arrival
    unanswered: NDArray[np.int32]  # of each row, how many it waits for
    # Read only, by row.
    next_start: NDArray[np.int32]  # where those that wait for it begin in ``next_row``
    next_row: NDArray[np.int32]
    think_s: NDArray[np.float64]
    session: NDArray[np.int32]
    arrival_s: NDArray[np.float64]  # by the clock
    isl: NDArray[np.int32]
    prompt: NDArray[np.int32]
    osl: NDArray[np.int32]
    priority: NDArray[np.int32]
    leaf: NDArray[np.int32]  # node of its last id; empty where no engine steps
    home: NDArray[np.int32]  # its number among its service's sessions; empty where no router asks


class State(NamedTuple):
    """All of a simulation's state and its constants.

    Slots of instances are one array: the first half are decode's, the second prefill's. In each half every
    pool has a block, all blocks of one size, a power of two. So the nodes of one binary tree over the slots,
    node i kept in row i, are those of a tree a pool, of a tree a half, and of nothing else. Some columns are
    such arrays in their own right that only share the index: the nodes of the two winner trees, the stacks of
    free slots (a pool's in its block), and the lists of instances to look at (a half's in its half) or to
    make READY before the instant ends.
    """

    progress: NDArray[np.void]  # 1 record PROGRESS
    services: NDArray[np.void]  # SERVICE, in fleet order
    stages: NDArray[np.void]  # STAGE, prefill's first
    pools: NDArray[np.void]  # POOL, in fleet order
    stock: NDArray[np.void]  # STOCK, by GPU type
    # The trace's columns, read only; one service's requests after the other's. With turns they are
    # written, by arrival as it came.
    arrival_s: NDArray[np.float64]
    isl: NDArray[np.int32]
    prompt: NDArray[np.int32]  # tokens to compute: isl less the cached ones
    osl: NDArray[np.int32]
    priority: NDArray[np.int32]  # lowest first; empty under FIFO
    requests: NDArray[np.void]  # REQUEST, by arrival: what a run changes
    produced: NDArray[np.int32]  # tokens a request had when a crash last threw it back
    places: NDArray[np.void]  # PLACE of every request in a queue that a policy orders; empty under FIFO
    completed: NDArray[np.int32]  # requests in order of completion, in their service's range
    tables_s: NDArray[np.float64]  # times at every count of tokens or requests, one table after the other
    steps: NDArray[
        np.void
    ]  # STEP_SEGMENT by engine, running requests and segment: linear in K up to its edge
    slots: NDArray[np.void]  # SLOT: who is next, in a record of its own since the trees read nothing else
    instances: NDArray[np.void]  # INSTANCE, slot by slot
    finish: NDArray[np.int64]  # a heap of finishing steps a decode instance
    handoff: NDArray[np.void]  # heap of HANDOFF_ENTRY
    startup_s: NDArray[np.float64]  # delays of the next launches, a stretch a pool
    life: NDArray[np.void]  # LIFE, by launch
    stepped: Any  # Stepped; None without engines that step, which is another type to the compiler
    gaps: Any  # Gaps; None where nobody asks for them, likewise
    homes: Any  # Homes; None where no engine steps, no turn waits and no router looks at all, likewise
    turns: Any  # Turns; None where all requests arrive by the clock, likewise


def read_only(column: NDArray[T]) -> NDArray[T]:
    """A view that cannot be written: the kernel is compiled for just that."""
    view = np.ascontiguousarray(column).view()
    view.setflags(write=False)
    return view


def joined(columns: Sequence[NDArray[T]]) -> NDArray[T]:
    """One column of several services' requests; a single one's is used as it is."""
    return read_only(columns[0] if len(columns) == 1 else np.concatenate(columns))
