"""aiconfigurator's (and AISimulate's) CSV: predicted operating points, times in ms.

``prefix`` tokens of a prompt are in the cache: times are those of computing the rest.

Aggregated rows describe one engine; disaggregated rows describe a prefill worker in columns prefixed ``(p)``
and a decode worker in columns prefixed ``(d)``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.perf.importers.littles_law import decode_points
from sagescale.perf.importers.table import Row, TableFormat
from sagescale.perf.measurement import DecodePoint, PrefillPoint

if TYPE_CHECKING:
    from sagescale.perf.measurement import Measurement

_COLUMNS = frozenset({"model", "isl", "osl", "ttft", "tpot"})
_AGGREGATED = frozenset({"concurrency", "tp", "tokens/s/gpu"})
_DISAGGREGATED = frozenset({"(p)bs", "(d)bs", "(p)tp", "(d)tp"})
_IDENTITY = (
    "system", "backend", "version", "tp", "pp", "dp", "moe_tp", "moe_ep", "cp",
    "gemm", "kvcache", "fmha", "moe",
)  # fmt: skip
_UNITS = 20.0


def _problem(columns: frozenset[str]) -> str:
    if columns >= _COLUMNS and (columns >= _AGGREGATED or columns >= _DISAGGREGATED):
        return ""
    return (
        f"not aiconfigurator's columns (expected {', '.join(sorted(_COLUMNS))} and "
        f"{', '.join(sorted(_AGGREGATED))} or {', '.join(sorted(_DISAGGREGATED))})"
    )


def _is_split(row: Row) -> bool:
    return row.has("(d)bs")


def _configuration(row: Row) -> tuple[tuple[str, str], ...]:
    roles = ("(p)", "(d)") if _is_split(row) else ("",)
    words = [("model", row.text("model"))]
    for role in roles:
        words += [(role + name, row.text(role + name)) for name in _IDENTITY]
    return tuple((name, text) for name, text in words if text)


def _measurement(source: Measurement, rows: list[Row]) -> Measurement:
    """Take the rows' points. These are a tool's predictions, and the notes say so."""
    key = dict(_configuration(rows[0]))
    split = _is_split(rows[0])
    p, d = ("(p)", "(d)") if split else ("", "")
    tensor_parallel = {rows[0].whole(p + "tp"), rows[0].whole(d + "tp")}
    prefill, decode, notes = _split_points(rows) if split else _engine_points(rows)
    words = [f"{name} {text}" for name, text in key.items() if name not in {"model", "system", "tp"}]
    return replace(
        source,
        prefill=prefill,
        decode=decode,
        prefill_gpus=_gpus(rows[0], p),
        decode_gpus=_gpus(rows[0], d),
        tensor_parallel=tensor_parallel.pop() if len(tensor_parallel) == 1 else None,
        model=key.get("model", ""),
        gpu=key.get(d + "system", ""),
        engine=key.get(d + "backend", ""),
        engine_version=key.get(d + "version", ""),
        variant=", ".join(words),
        notes=("the source's times are predicted by a tool, not measured", *notes),
    )


def _split_points(
    rows: list[Row],
) -> tuple[tuple[PrefillPoint, ...], tuple[DecodePoint, ...], tuple[str, ...]]:
    prefill: dict[PrefillPoint, None] = {}
    decode: dict[DecodePoint, None] = {}
    for row in rows:
        prefill[PrefillPoint(_computed(row), row.whole("(p)bs"), row.number("ttft"))] = None
        load = float(row.whole("(d)bs") * row.whole("(d)dp", default=1))
        decode[DecodePoint(load, _context(row), row.number("tpot"))] = None
    return tuple(prefill), tuple(decode), ()


def _engine_points(
    rows: list[Row],
) -> tuple[tuple[PrefillPoint, ...], tuple[DecodePoint, ...], tuple[str, ...]]:
    stated = np.array([row.number("concurrency") for row in rows])
    tpot = np.array([row.number("tpot") for row in rows])
    per_s = np.array([row.number("tokens/s/gpu") * _gpus(row, "") for row in rows])
    for row, n, implied in zip(rows, stated, per_s * tpot / 1000.0, strict=True):
        if not 1.0 / _UNITS < implied / n < _UNITS:
            raise InputError(
                f"{row.where}: concurrency: {n:g} (throughput x tpot gives {implied:.4g}; wrong units? "
                "expected tpot in ms)"
            )
    context = np.array([_context(row) for row in rows])
    points, notes = decode_points(context, tpot, per_s, stated)
    alone = tuple(
        PrefillPoint(_computed(row), 1, row.number("ttft"))
        for row, n in zip(rows, stated, strict=True)
        if n == 1.0
    )
    return alone, points, notes


def _context(row: Row) -> float:
    return row.whole("isl") + row.whole("osl") / 2.0


def _computed(row: Row) -> int:
    """Prompt tokens that are computed: those not in the prefix cache."""
    isl, prefix = row.whole("isl"), row.amount("prefix")
    if not prefix < isl:
        raise InputError(f"{row.where}: prefix: {prefix:g} (expected fewer than isl, {isl})")
    return isl - round(prefix)


def _gpus(row: Row, role: str) -> int:
    return math.prod(row.whole(f"{role}{name}", default=1) for name in ("tp", "pp", "dp", "cp"))


AICONFIGURATOR = TableFormat(
    name="aiconfigurator", problem=_problem, configuration=_configuration, measurement=_measurement
)
