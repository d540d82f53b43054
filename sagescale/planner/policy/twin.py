"""What a policy may ask of simulated engines: the simulator gives it, the planner only names it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sagescale.perf import PerfModel


@dataclass(frozen=True, eq=False)
class Lengths:
    """A sample of requests, in random order: int32[n] each; a policy asks for its means at every look.

    Attributes:
        isl: prompt tokens.
        computed: those of them that prefill computes, at least 1.
        osl: output tokens, at least 1.
    """

    isl: NDArray[np.int32]
    computed: NDArray[np.int32]
    osl: NDArray[np.int32]

    @cached_property
    def computed_tokens(self) -> float:
        """The mean of what prefill computes of a prompt."""
        return float(self.computed.mean())

    @cached_property
    def computed_share(self) -> float:
        """The share of all prompt tokens that prefill computes."""
        return float(self.computed.sum()) / float(self.isl.sum())

    @cached_property
    def context_tokens(self) -> float:
        """The mean context of the tokens produced: a request is met as often as it has tokens to make."""
        share = self.osl / self.osl.sum()
        return float(share @ (self.isl + self.osl / 2.0))

    @property
    def tokens_to_come(self) -> float:
        """Tokens that a request in service has yet to make in the mean: long ones are so for longer."""
        osl = self.osl.astype(np.float64)
        return float(osl @ osl / osl.sum() / 2.0)


class EngineTwin(Protocol):
    """Simulated pools to try sizes on. Answers depend on the arguments alone."""

    @property
    def perf(self) -> PerfModel:
        """The performance model that is simulated."""

    @property
    def startup_s(self) -> float:
        """How long an instance is said to take from launch to READY."""

    def prefill_misses(self, instances: int, requests_per_s: float, lengths: Lengths) -> float:
        """Share of a Poisson stream of such requests that misses the TTFT target for want of prefill."""

    def decode_misses(self, instances: int, requests_per_s: float, lengths: Lengths) -> float:
        """Share of a Poisson stream of such requests that misses a target for want of decode."""

    def prefill_misses_alone(self, lengths: Lengths) -> float:
        """Share of such requests that misses the TTFT target even alone: no size avoids it."""

    def decode_misses_alone(self, lengths: Lengths) -> float:
        """Share of such requests that misses a target for want of decode even alone."""

    def prefill_limit_rps(self, lengths: Lengths) -> float:
        """Requests a second that one prefill instance gets through when it never waits."""

    def decode_limit_rps(self, lengths: Lengths) -> float:
        """Requests a second that one decode instance gets through when its slots are always full."""


class AggregatedEngineTwin(EngineTwin, Protocol):
    """Simulated pools of aggregated instances: what is said of decode is of both, in tokens of work.

    A request is its answer and its prompt: each computed prompt token counts as so much of a token produced.
    Rates are of requests whose work is all answer.
    """

    @property
    def prompt_token_work(self) -> float:
        """What a prompt token counts as."""

    def weigh(self, lengths: Lengths) -> bool:
        """Count prompt tokens as they are at such lengths if that is far from now; tell if so."""
