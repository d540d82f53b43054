"""What the windows say: the load to expect, learned times and corrections, worked out when somebody asks."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from sagescale.planner.decision import Corrections, Estimate, Findings, Reason, ReasonCode

if TYPE_CHECKING:
    from sagescale.planner.learning import CorrectionTracker, OnlineLearner
    from sagescale.planner.load import LoadPredictors
    from sagescale.planner.observation import Observation, Window

_UPDATING = threading.RLock()
"""Another thread than the planner's may ask for its status."""


class _Due(NamedTuple):
    """A window not taken in yet."""

    estimate: Estimate
    observation: Observation
    window: Window
    decode_ready: int


class Estimates:
    """Predictors, learner and correction factors, brought up to date in the order of the windows.

    A policy that asks for none of them leaves them as they are, which makes its ticks cheap; whoever looks at
    a decision later finds what would have been found at its time.

    Args:
        predictors: Of the load.
        learner: Of the engines' times; None learns nothing.
        tracker: Of the correction factors; None leaves them at 1.
    """

    def __init__(
        self, predictors: LoadPredictors, learner: OnlineLearner | None, tracker: CorrectionTracker | None
    ) -> None:
        self._predictors = predictors
        self._learner = learner
        self._tracker = tracker
        self._due: deque[_Due] = deque()
        self._latest = Findings()

    def add(self, observation: Observation, window: Window, decode_ready: int) -> Estimate:
        """Note the window just ended; return the estimate after it."""
        estimate = Estimate(self.update)
        self._due.append(_Due(estimate, observation, window, decode_ready))
        return estimate

    @property
    def predictors(self) -> LoadPredictors:
        """The predictors, after the latest window."""
        self.update()
        return self._predictors

    @property
    def latest(self) -> Findings:
        """What was found after the latest window."""
        self.update()
        return self._latest

    def update(self) -> None:
        """Take in every window that has not been."""
        with _UPDATING:
            while self._due:
                self._take(*self._due.popleft())

    def _take(self, estimate: Estimate, observation: Observation, window: Window, decode_ready: int) -> None:
        reasons: list[Reason] = []
        self._predictors.observe(window)
        if self._learner is not None:
            self._learner.observe(observation, window, reasons)
        corrections = Corrections()
        if self._tracker is not None:
            corrections = self._tracker.update(window, decode_ready, reasons)
        load = self._predictors.forecast()
        reasons.extend(Reason(ReasonCode.FORECAST_NOTE, note) for note in load.notes)
        reasons.extend(Reason(ReasonCode.FORECAST_CHOICE, chosen) for chosen in load.chosen)
        self._latest = estimate.findings = Findings(load, corrections, tuple(reasons))
