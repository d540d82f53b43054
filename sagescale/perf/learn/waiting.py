"""The mean TTFT to expect of a prefill pool: what of an observed TTFT is waiting, not prefill.

Prompts wait while a batch runs and are then batched together. With batch time ``t0 + a*k`` for k mean
prompts and a Poisson stream of rate ``l`` an instance, the mean time in the system is at most

    phi0 = (a + t0) / (2 (1 - l a)) * (1 + 2 l t0 + (1 - l t0) / (1 + l a))
    phi1 = 3 t0 / (2 (1 - l a)) + a (l a + 2) / (2 (1 - (l a)^2))

whichever is smaller, and close to it (Y. Inoue, "Queueing analysis of GPU-based inference servers with
dynamic batching: a closed-form characterization", Performance Evaluation 147, 2021). Three things are
added: the waiting part grows with the spread of the part of the work that varies, as in Pollaczek and
Khinchine's formula, prompts taken to spread like an exponential (0.96 and 0.97 of that in the two Azure
traces); and routing to the least loaded of P instances divides it by ``P^0.8 * u^(2 - sqrt(2 (P + 1)))``
with ``u`` the use, which is Sakasegawa's M/M/c formula (Ann. Inst. Stat. Math. 29, 1977) with 0.8 for 1, a
queue at each instance being worse than one for all. Against simulation, docs/learning.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH_TOKENS = 8192.0
"""What an engine batches by default; the planner does not know its setting."""

_BATCH_PROMPTS = 3.0
"""The batch that gives the slope: what a queue that is not overloaded makes of mean prompts."""

_FULL = 0.95
"""The use beyond which no formula for a steady state means anything."""


class Waiting(NamedTuple):
    """``ttft_ms`` in the mean, the part of it that is waiting (0 to 1), and how full the pool is by that."""

    ttft_ms: float
    share: float
    use: float


def mean_ttft(
    prefill_ms: Callable[[float], float],
    isl: float,
    requests_per_s: float,
    instances: int,
    most_each: float = 1.0,
    dispersion: float = 1.0,
) -> Waiting:
    """Return the mean TTFT of a pool of ``instances``.

    Args:
        prefill_ms: Prefill time of a prompt by its tokens.
        isl: Mean prompt tokens computed.
        requests_per_s: Arrivals at the whole pool.
        instances: Ready instances, at least 1.
        dispersion: Variance over mean of the requests counted in equal times, 1 for a Poisson stream.
        most_each: A bound on ``a / (a + t0)``, where the curve is not trusted to say how much batching gains.
    """
    alone = prefill_ms(isl)
    prompts = min(_BATCH_PROMPTS, _BATCH_TOKENS / isl)
    each = alone if prompts < 2.0 else min(alone, (prefill_ms(prompts * isl) - alone) / (prompts - 1.0))
    each = min(max(each, alone * 1e-3), alone * most_each)
    fixed = alone - each
    offered = requests_per_s / instances / 1000.0 * each
    use = min(offered, _FULL)
    rate = use / each
    bulk = (alone / (2.0 * (1.0 - use))) * (1.0 + 2.0 * rate * fixed + (1.0 - rate * fixed) / (1.0 + use))
    light = 1.5 * fixed / (1.0 - use) + each / 2.0 * (use + 2.0) / (1.0 - use * use)
    waiting = (min(bulk, light) - alone) * (dispersion + (each / alone) ** 2)
    shared = min(1.0, rate * alone) ** (math.sqrt(2.0 * (instances + 1)) - 2.0) / instances**0.8
    waiting = max(0.0, waiting * shared)
    return Waiting(alone + waiting, waiting / (alone + waiting), offered)
