"""Request traces: read, transform, synthesise, describe and write them."""  # noqa: A005 - the field's word

from __future__ import annotations

from sagescale.trace.given import GivenTrace
from sagescale.trace.log import LogSpec, parse_columns, parse_where
from sagescale.trace.prefixes import Prefixes
from sagescale.trace.read import format_names, read_trace, shipped_traces
from sagescale.trace.sessions import Turns, beginnings, begun_at, session_starts
from sagescale.trace.stamps import spread_stamps
from sagescale.trace.starts import SessionStarts, parse_sessions
from sagescale.trace.stats import LengthStats, PrefixStats, Spread, TraceStats, TurnStats, describe
from sagescale.trace.trace import Trace
from sagescale.trace.transforms import (
    TransformSpec,
    apply_transforms,
    parse_shared_ids,
    parse_slice,
    rate_scale,
    slice_trace,
    speed_up,
    tile,
)
from sagescale.trace.write import check_destination, write_trace

__all__ = [
    "GivenTrace",
    "LengthStats",
    "LogSpec",
    "PrefixStats",
    "Prefixes",
    "SessionStarts",
    "Spread",
    "Trace",
    "TraceStats",
    "TransformSpec",
    "TurnStats",
    "Turns",
    "apply_transforms",
    "beginnings",
    "begun_at",
    "check_destination",
    "describe",
    "format_names",
    "parse_columns",
    "parse_sessions",
    "parse_shared_ids",
    "parse_slice",
    "parse_where",
    "rate_scale",
    "read_trace",
    "session_starts",
    "shipped_traces",
    "slice_trace",
    "speed_up",
    "spread_stamps",
    "tile",
    "write_trace",
]
