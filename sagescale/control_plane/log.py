"""Says in the log what the loop does beside deciding, and keeps its last decision."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sagescale.live.actuators.protocol import PoolStates
    from sagescale.live.journal import Event, TickRecord
    from sagescale.planner import Decision

__all__ = ["LoopLog"]

logger = logging.getLogger(__name__)

_USUAL = frozenset({"started", "stopped", "resumed", "warm_start", "order"})


class LoopLog:
    """A watcher; the planner itself logs what it saw, expects and decides."""

    def __init__(self) -> None:
        self.last_decision: Decision | None = None

    def ticked(self, record: TickRecord, decision: Decision, states: PoolStates) -> None:
        """Log what was wrong with the metrics and what the loop's rules changed."""
        del states
        self.last_decision = decision
        for note in (*record.problems, *record.notes):
            logger.warning("%s: %s", note.code, note.text)

    def happened(self, event: Event) -> None:
        """Log an order, a failure, a start or an end."""
        logger.log(
            logging.INFO if event.kind in _USUAL else logging.WARNING, "%s: %s", event.kind, event.text
        )
