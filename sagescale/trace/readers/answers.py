"""How long answers took where nothing says it: what of a gap between turns was answer, what was thought."""

from __future__ import annotations

__all__ = ["ANSWER_S_PER_TOKEN", "MODELLED"]

ANSWER_S_PER_TOKEN = 0.02
"""Of each generated token: 50 tokens/s, a usual speed of hosted models."""

MODELLED = (
    "of some answers it is not recorded how long they took: taken as their tokens times what one took in the "
    f"median of the others, else {ANSWER_S_PER_TOKEN * 1000:g} ms; what is left of a gap is thinking"
)
