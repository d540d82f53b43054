"""What a sizing policy is given and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from sagescale.fleet import ByPool

if TYPE_CHECKING:
    from sagescale.fleet import Pools, Sizes
    from sagescale.planner.decision import Corrections, LoadForecast, Reason
    from sagescale.planner.estimates import Estimates
    from sagescale.planner.load import LoadPredictors
    from sagescale.planner.observation import Observation, Window


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything known at a decision; forecast and corrections are worked out when a policy asks for them.

    Attributes:
        observation: As it was given, gauges and counts included.
        window: The observation's metrics, checked; unknown where they were no possible value.
        current: Sizes the pools are meant to have now.
        estimates: What the windows so far say.
    """

    observation: Observation
    window: Window
    current: Sizes
    estimates: Estimates

    @property
    def predictors(self) -> LoadPredictors:
        """For a policy that looks further than one interval ahead."""
        return self.estimates.predictors

    @property
    def load(self) -> LoadForecast:
        """The forecast one interval ahead."""
        return self.estimates.latest.forecast

    @property
    def corrections(self) -> Corrections:
        """Factors in use."""
        return self.estimates.latest.corrections


class PoolSize(NamedTuple):
    """The size a policy asks for, and the demand behind it in instances, not rounded."""

    instances: int
    demand: float


class Sizing(NamedTuple):
    """What a policy asks for before any constraint, a pool; ``None`` holds a pool as it is."""

    pools: ByPool[PoolSize | None]
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def exactly(cls, sizes: Sizes, reasons: tuple[Reason, ...] = ()) -> Sizing:
        """Ask for whole sizes."""
        asked = (PoolSize(size, float(size)) for size in sizes)
        return cls(ByPool[PoolSize | None](*asked, names=sizes.names), reasons)

    @classmethod
    def hold(cls, pools: Pools, reason: Reason) -> Sizing:
        """Hold every pool as it is."""
        return cls(ByPool[PoolSize | None](*(None for _ in pools), names=pools.names), (reason,))


class Policy(Protocol):
    """Sizes the pools. It may keep state of its own, but knows no clock and does no I/O."""

    @property
    def name(self) -> str:
        """The name it is configured by."""

    def size(self, situation: Situation) -> Sizing:
        """Ask for sizes, constraints aside."""


@runtime_checkable
class QuickPolicy(Policy, Protocol):
    """A policy with a burst check between ticks, to ask for more at once."""

    def check(self, seen: Observation) -> Sizing | None:
        """Check the short window just ended; ask for sizes no pool of which is smaller, or for nothing."""
