"""What shows what the loop does: log lines for machines or people, and a live screen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sagescale.errors import LONGEST_LINE, one_line
from sagescale.live.tick_text import log_fields, tick_text, time_text

if TYPE_CHECKING:
    from rich.console import Console

    from sagescale.live.actuators.protocol import PoolStates
    from sagescale.live.records import Event, TickRecord
    from sagescale.planner import Decision


class PlainLines:
    """One line a tick and an event, in plain text."""

    def ticked(self, record: TickRecord, decision: Decision, states: PoolStates) -> None:
        """Print a tick."""
        del decision, states
        fields = log_fields(record)
        seen = ", ".join(
            f"{name}={'unknown' if fields[name] is None else f'{fields[name]:.1f}'}"
            for name in ("requests", "isl", "osl", "ttft_ms", "itl_ms")
        )
        why = ",".join(dict.fromkeys([*fields["reasons"], *fields["problems"]]))
        moves = ", ".join(f"{pool} {now} -> {then}" for pool, now, then in record.moves)
        self._say(f"{fields['time']} {moves} [{why}] {seen}")

    def happened(self, event: Event) -> None:
        """Print an event."""
        level = "" if event.is_usual else "WARNING "
        self._say(f"{time_text(event.time_s)} {level}{event.kind}: {event.text}")

    def _say(self, line: str) -> None:
        print(one_line(line, LONGEST_LINE), flush=True)


class JsonLines:
    """One JSON object a tick and an event, for log collectors."""

    def ticked(self, record: TickRecord, decision: Decision, states: PoolStates) -> None:
        """Print a tick."""
        del decision, states
        print(json.dumps({"kind": "tick", **log_fields(record)}), flush=True)

    def happened(self, event: Event) -> None:
        """Print an event."""
        line = {"kind": event.kind, "time": time_text(event.time_s), "text": event.text, **event.detail}
        print(json.dumps(line), flush=True)


class Screen:
    """The last tick and the last few events, redrawn in place on a terminal."""

    def __init__(self, console: Console, heading: str) -> None:
        from rich.live import Live
        from rich.text import Text

        self._heading = heading
        self._events: list[str] = []
        self._tick = "waiting for the first tick\n"
        self._live = Live(Text(self._tick), console=console, auto_refresh=False, transient=False)
        self._live.start()

    def ticked(self, record: TickRecord, decision: Decision, states: PoolStates) -> None:
        """Redraw with a tick."""
        del decision, states
        self._tick = tick_text(record, heading=self._heading)
        self._draw()

    def happened(self, event: Event) -> None:
        """Redraw with an event."""
        self._events = [*self._events[-5:], f"{time_text(event.time_s)} {event.kind}: {event.text}"]
        self._draw()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._live.stop()

    def _draw(self) -> None:
        from rich.text import Text

        self._live.update(Text(self._tick + "\n" + "\n".join(self._events)), refresh=True)
