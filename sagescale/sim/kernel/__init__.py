"""The compiled simulator: DESIGN section 5, several services over one stock of GPUs.

**Why no step is simulated.** Between a join and the next completion the steps of a decode instance have a
closed form (``step_times``). So an instance needs an event only where something changes: at the next
completion, or, when a request arrives that may join, at the first step boundary at or after the arrival. A
request costs a handful of events however long it talks.

**What keeps it logarithmic** in requests that wait: lists, or pairing heaps where a policy orders them
(``queues``); in instances: winner trees (``trees``).

One noun a file, in the order they build on one another: ``trees``, ``heaps``, ``step_times``, ``sessions``,
``requests``, ``queues``, ``instances``, ``handoff``, ``routing``, ``prefill`` and ``decode`` (where batches
and steps are formed), ``lifecycle``, ``crash``, ``loop``. ``tests/sim/reference.py`` states the same rules
one token at a time; the two agree bit for bit on times that are exact in binary.
"""

from __future__ import annotations

from sagescale.sim.kernel.crash import crash
from sagescale.sim.kernel.lifecycle import launch_waiting, make_ready, scale
from sagescale.sim.kernel.loop import (
    LAUNCHED,
    MORE_ENTRIES,
    MORE_HANDOFFS,
    MORE_TURNS,
    REACHED,
    advance,
    gauges_now,
    next_event_s,
)
from sagescale.sim.kernel.requests import clear_requests
from sagescale.sim.kernel.sessions import begin_populations
from sagescale.sim.kernel.trees import event_update, tree_build

__all__ = [
    "LAUNCHED", "MORE_ENTRIES", "MORE_HANDOFFS", "MORE_TURNS", "REACHED", "advance", "begin_populations",
    "clear_requests", "crash", "event_update", "gauges_now", "launch_waiting", "make_ready", "next_event_s",
    "scale", "tree_build",
]  # fmt: skip
