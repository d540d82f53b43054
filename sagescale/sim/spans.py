"""Spans of simulated time, such as the metric outages of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["TimeSpans"]

_EXPECTED = "expected start:end,start:end in seconds, each start before its end"


@dataclass(frozen=True, slots=True)
class TimeSpans:
    """Half-open spans ``[start, end)`` in seconds."""

    spans: tuple[tuple[float, float], ...]

    @classmethod
    def parse(cls, value: object) -> TimeSpans:
        """Read ``600:1200,1800:1900``; empty text is no span.

        Raises:
            ValueError: with what was expected, as one line.
        """
        if isinstance(value, cls):
            return value
        if value is None:
            return cls(())
        if not isinstance(value, str):
            raise ValueError(_EXPECTED)  # noqa: TRY004  # the protocol of settings.setting(parse=...)
        spans = []
        for part in filter(None, value.split(",")):
            start, _, end = part.partition(":")
            try:
                span = (float(start), float(end))
            except ValueError:
                raise ValueError(_EXPECTED) from None
            if not (0 <= span[0] < span[1] < math.inf):
                raise ValueError(_EXPECTED)
            spans.append(span)
        return cls(tuple(spans))

    def __contains__(self, time_s: float) -> bool:
        return any(start <= time_s < end for start, end in self.spans)

    def __str__(self) -> str:
        return ",".join(f"{start:g}:{end:g}" for start, end in self.spans)
