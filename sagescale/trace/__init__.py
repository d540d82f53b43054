"""Request traces: read, transform, synthesise, describe and write them."""  # noqa: A005 - the field's word

from __future__ import annotations

from sagescale.trace.read import format_names, read_trace, shipped_traces
from sagescale.trace.stats import LengthStats, TraceStats, describe
from sagescale.trace.trace import Trace
from sagescale.trace.transforms import (
    TransformSpec,
    apply_transforms,
    parse_slice,
    rate_scale,
    slice_trace,
    speed_up,
    tile,
)
from sagescale.trace.write import check_destination, write_trace

__all__ = [
    "LengthStats",
    "Trace",
    "TraceStats",
    "TransformSpec",
    "apply_transforms",
    "check_destination",
    "describe",
    "format_names",
    "parse_slice",
    "rate_scale",
    "read_trace",
    "shipped_traces",
    "slice_trace",
    "speed_up",
    "tile",
    "write_trace",
]
