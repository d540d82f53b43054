"""What the planner was told of the engines, what it learned, and what is true, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.document import ItlPoint, Surfaces, TtftPoint

if TYPE_CHECKING:
    from sagescale.sim.run import Run

__all__ = ["surfaces"]

_QUANTILES = (0.1, 0.5, 0.9)
_BATCHES = (1 / 16, 1 / 4, 1 / 2, 1)
"""Of the slots that the KV memory can fill."""


def surfaces(run: Run) -> Surfaces:
    """Compare the three at p10, p50 and p90 of the trace's lengths, and for batches up to the slots."""
    models = run.model, run.learned, run.truth
    isl = np.unique(np.quantile(run.trace.isl, _QUANTILES).round()).tolist()
    contexts = np.unique(np.quantile(run.trace.isl + run.trace.osl / 2.0, _QUANTILES).round()).tolist()
    ttft, itl = [], []
    for tokens in isl:
        told, learned, true = (model.ttft_ms(tokens) for model in models)
        ttft.append(TtftPoint(isl=tokens, told_ms=told, learned_ms=learned, true_ms=true))
    for context in contexts:
        room = run.truth.max_kv_tokens
        most = run.truth.max_num_seqs if room is None else min(run.truth.max_num_seqs, room // context)
        for requests in sorted({max(1, round(share * most)) for share in _BATCHES}):
            told, learned, true = (model.itl_ms(requests, context) for model in models)
            itl.append(
                ItlPoint(
                    requests=requests,
                    context_tokens=context,
                    told_ms=told,
                    learned_ms=learned,
                    true_ms=true,
                )
            )
    return Surfaces(ttft=ttft, itl=itl)
