"""Learning how fast instances are from what is observed of them."""

from __future__ import annotations

from sagescale.perf.learn.factors import LARGEST_STEP, Belief, SignedFactors
from sagescale.perf.learn.model import LearnedModel
from sagescale.perf.learn.waiting import Waiting, mean_ttft

__all__ = ["LARGEST_STEP", "Belief", "LearnedModel", "SignedFactors", "Waiting", "mean_ttft"]
