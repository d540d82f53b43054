"""A log of served requests: when each arrived, got its first token and was done, its lengths, its stages."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sagescale.errors import InputError, did_you_mean
from sagescale.files import read_input, shown_path
from sagescale.perf.surfaces import PrefillCurve
from sagescale.trace.source import arrow_reader

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sagescale.experiment.factors import Factors
    from sagescale.perf import Profile

REQUIRED_COLUMNS = ("arrival_s", "isl", "osl", "first_token_s", "done_s")
OPTIONAL_COLUMNS = ("prefill_start_s", "kv_ready_s", "admitted_s", "gap_p99_ms", "gap_max_ms")
"""Used where the log has them: times tell the stages apart, gaps are those between tokens."""

_MAX_TOKENS = 2**31 - 1
_MIN_REQUESTS = 100
_MAX_BYTES = 1 << 28
_LARGEST = 1e15
"""Of any number in a log: milliseconds since 1970 are less, and are recognised."""

_MAX_ROWS = 5_000_000
"""Of a Parquet file, whose bytes do not say how many there are."""

_FASTEST_MS, _SLOWEST_MS = 0.2, 5000.0
"""The median time between a request's tokens that an engine may have had: times in ms are none in s."""

_CLOCK_SLACK_S = 1e-6
"""Logs round their times; a first token this much before its arrival is no error."""


@dataclass(frozen=True, slots=True, eq=False)
class ServedLog:
    """Served requests by arrival, times in s since the first arrival, lengths in tokens.

    Attributes:
        arrival_s, first_token_s, done_s: float64[n].
        isl, osl: int32[n].
        prefill_start_s: when the batch of the request began, or None where the log does not say.
        kv_ready_s: when its KV cache was with the decode instance, or None.
        admitted_s: when it joined the requests decoding, or None.
        gap_p99_ms, gap_max_ms: the 99th percentile and the largest of the gaps between its tokens, or None;
            of a request of one token they mean nothing.
        start_s: the first arrival on the log's own clock.
        path, sha256: the file, and the hash of its bytes.
    """

    arrival_s: NDArray[np.float64]
    isl: NDArray[np.int32]
    osl: NDArray[np.int32]
    first_token_s: NDArray[np.float64]
    done_s: NDArray[np.float64]
    prefill_start_s: NDArray[np.float64] | None
    kv_ready_s: NDArray[np.float64] | None
    start_s: float
    path: str
    sha256: str
    admitted_s: NDArray[np.float64] | None = None
    gap_p99_ms: NDArray[np.float64] | None = None
    gap_max_ms: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def ttft_ms(self) -> NDArray[np.float64]:
        """First token less arrival."""
        return (self.first_token_s - self.arrival_s) * 1e3

    @property
    def itl_ms(self) -> NDArray[np.float64]:
        """(done - first token) / (osl - 1); NaN for an OSL of 1."""
        return itl_ms(self.first_token_s, self.done_s, self.osl)


def itl_ms(
    first_token_s: NDArray[np.float64], done_s: NDArray[np.float64], osl: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the mean time between a request's tokens in ms; NaN where there is only one."""
    steps = np.where(osl > 1, osl - 1.0, np.nan)
    return np.asarray((done_s - first_token_s) / steps * 1e3)


def read_served(path: Path, columns: Mapping[str, str] | None = None) -> ServedLog:
    """Read a CSV (with a header) or Parquet file.

    Args:
        path: The file.
        columns: What the file calls a column, where it is not our name for it, e.g.
            ``{"arrival_s": "t_in"}``.

    Raises:
        InputError: the file cannot be read, lacks a column, holds fewer than 100 requests, or a row is
            impossible; names file, row and value.
    """
    named = _names(columns or {})
    table, present, sha256 = _table(path, named.values())
    for column in named.values():
        if present.count(column) > 1:
            raise InputError(f"{path}: column '{column}' occurs twice (expected it once)")
    required = [named[name] for name in REQUIRED_COLUMNS]
    for name, column in zip(REQUIRED_COLUMNS, required, strict=True):
        if column not in present:
            raise InputError(
                f"{path}: no column '{column}' for {name}{did_you_mean(column, present)} "
                f"(found {', '.join(present)}; map it with --columns {name}=NAME)"
            )
    values = {name: _numbers(path, table, named[name]) for name in REQUIRED_COLUMNS}
    for name in OPTIONAL_COLUMNS:
        if named[name] in present:
            values[name] = _numbers(path, table, named[name])
        elif columns and name in columns:
            raise InputError(f"{path}: no column '{named[name]}' for {name} (found {', '.join(present)})")
    _check(path, values)
    order = np.argsort(values["arrival_s"], kind="stable")
    start_s = float(values["arrival_s"][order[0]])

    def times(name: str) -> NDArray[np.float64]:
        return values[name][order] - start_s

    def gaps(name: str) -> NDArray[np.float64] | None:
        return values[name][order] if name in values else None

    return ServedLog(
        arrival_s=times("arrival_s"),
        isl=values["isl"][order].astype(np.int32),
        osl=values["osl"][order].astype(np.int32),
        first_token_s=times("first_token_s"),
        done_s=times("done_s"),
        prefill_start_s=times("prefill_start_s") if "prefill_start_s" in values else None,
        kv_ready_s=times("kv_ready_s") if "kv_ready_s" in values else None,
        admitted_s=times("admitted_s") if "admitted_s" in values else None,
        gap_p99_ms=gaps("gap_p99_ms"),
        gap_max_ms=gaps("gap_max_ms"),
        start_s=start_s,
        path=shown_path(path),
        sha256=sha256,
    )


def _names(columns: Mapping[str, str]) -> dict[str, str]:
    ours = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    for name in columns:
        if name not in ours:
            raise InputError(
                f"--columns {name}: unknown{did_you_mean(name, ours)} (expected one of {', '.join(ours)})"
            )
    return {name: columns.get(name, name) for name in ours}


def _table(path: Path, wanted: Collection[str]) -> tuple[Any, list[str], str]:
    """Return the columns wanted, all columns' names and the sha256.

    Of Parquet no others are read, nor any that is not of numbers: a megabyte of text in every row packs to
    nothing.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    data = read_input(path, "a log of served requests", _MAX_BYTES)
    try:
        buffer = arrow_reader(data)
        if data[:4] == b"PAR1":
            file = parquet.ParquetFile(buffer)
            _refuse_rows(path, file.metadata.num_rows)
            names = list(file.schema_arrow.names)
            types = {
                name: of for name, of in zip(names, file.schema_arrow.types, strict=True) if name in wanted
            }
            for name, found in types.items():
                if not (pa.types.is_integer(found) or pa.types.is_floating(found)):
                    raise InputError(f"{path}: column '{name}' holds {found} (expected numbers)")
            table = file.read(columns=list(types))
        else:
            _refuse_rows(path, max(data.count(b"\n"), data.count(b"\r")))
            table = csv.read_csv(buffer)
            names = list(table.column_names)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a name that is no UTF-8
        raise InputError(f"{path}: {error} (expected CSV with a header, or Parquet)") from error
    return table, names, hashlib.sha256(data).hexdigest()


def _refuse_rows(path: Path, rows: int) -> None:
    if rows > _MAX_ROWS:
        raise InputError(f"{path}: {rows} rows (expected at most {_MAX_ROWS}; an hour of it will do)")


def _numbers(path: Path, table: Any, column: str) -> NDArray[np.float64]:  # noqa: ANN401 -- pyarrow has no types
    import pyarrow as pa

    found = table[column]
    try:
        values: NDArray[np.float64] = found.cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise InputError(
            f"{path}: column '{column}' holds {found.type} (expected numbers: {str(error).splitlines()[0]})"
        ) from error
    bad = np.flatnonzero(~(np.abs(values) <= _LARGEST))  # a NaN is not
    if len(bad):
        raise InputError(
            f"{path}: row {bad[0] + 1}: {column} is {found[int(bad[0])].as_py()} (expected a number; leave "
            "requests that were not served out of the log)"
        )
    return values


def _check(path: Path, values: dict[str, NDArray[np.float64]]) -> None:
    count = len(values["arrival_s"])
    if count < _MIN_REQUESTS:
        raise InputError(
            f"{path}: {count} requests (expected at least {_MIN_REQUESTS} to fit distributions to)"
        )

    def refuse(wrong: NDArray[np.bool_], column: str, expected: str) -> None:
        if wrong.any():
            _refuse(path, int(np.flatnonzero(wrong)[0]), column, values[column], expected)

    for name in ("isl", "osl"):
        lengths = values[name]
        refuse(
            (lengths < 1) | (lengths > _MAX_TOKENS) | (lengths != np.floor(lengths)),
            name,
            "a whole number of tokens, 1 or more",
        )
    refuse(
        values["first_token_s"] < values["arrival_s"] - _CLOCK_SLACK_S, "first_token_s", "arrival_s or later"
    )
    refuse(values["done_s"] < values["first_token_s"], "done_s", "first_token_s or later")
    if "prefill_start_s" in values:
        refuse(
            values["prefill_start_s"] > values["first_token_s"], "prefill_start_s", "first_token_s or earlier"
        )
    if "kv_ready_s" in values:
        refuse(values["kv_ready_s"] < values["first_token_s"], "kv_ready_s", "first_token_s or later")
    if "admitted_s" in values:
        early = values["admitted_s"] < values.get("kv_ready_s", values["first_token_s"]) - _CLOCK_SLACK_S
        refuse(
            early | (values["admitted_s"] > values["done_s"]), "admitted_s", "after the hand-off, by done_s"
        )
    for name in ("gap_p99_ms", "gap_max_ms"):
        if name in values:
            refuse((values[name] < 0) & (values["osl"] > 1), name, "milliseconds, 0 or more")
    osl = values["osl"].astype(np.int32)
    between = itl_ms(values["first_token_s"], values["done_s"], osl)
    typical = float(np.median(between[~np.isnan(between)])) if (osl > 1).any() else None
    if typical is not None and not _FASTEST_MS <= typical <= _SLOWEST_MS:
        raise InputError(
            f"{path}: {typical:.3g} ms between a request's tokens in the median (expected {_FASTEST_MS:g} to "
            f"{_SLOWEST_MS:g}: are the times in seconds?)"
        )
    if np.ptp(values["arrival_s"]) <= 0:
        raise InputError(
            f"{path}: every arrival_s is {values['arrival_s'][0]:g} (expected arrivals over time)"
        )


def _refuse(path: Path, row: int, column: str, values: NDArray[np.float64], expected: str) -> NoReturn:
    raise InputError(f"{path}: row {row + 1}: {column} is {values[row]:.12g} (expected {expected})")


_PREFILL_TOLERANCE = 0.01
_HANDOFF_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Stage times of part of a log; None where it does not have them.

    Attributes:
        prefill_scale: Time in prefill batches over the profile's time for the same batches.
        chained_ms, parallel_ms: Mean hand-off of a request if those of a batch go one after the other,
            and if they go at once.
    """

    prefill_scale: float | None
    chained_ms: float | None
    parallel_ms: float | None

    def cost(self, factors: Factors, handoff_ms: float) -> float:
        """How badly factors, and the mean hand-off simulated with them, contradict the stage times.

        In squared tolerances.
        """
        cost = 0.0
        if self.prefill_scale is not None:
            off = math.log(factors.prefill_scale / self.prefill_scale)
            cost += (off / _PREFILL_TOLERANCE) ** 2
        seen = self.chained_ms if factors.blocks_prefill else self.parallel_ms
        if seen is not None:
            cost += (math.log(max(handoff_ms, 1e-3) / seen) / _HANDOFF_TOLERANCE) ** 2
        return cost


def stage_times(log: ServedLog, profile: Profile, part: slice) -> StageTimes:
    """Measure the stages of part of a log.

    A prefill batch is known by its requests having begun and ended together.
    """
    first = log.first_token_s[part]
    isl = log.isl[part]
    began = log.prefill_start_s
    begin = first if began is None else began[part]
    _, batch = np.unique(np.stack([begin, first]), axis=1, return_inverse=True)
    sizes = np.bincount(batch)
    scale = None
    if began is not None:
        curve = PrefillCurve(profile.prefill)
        ends = np.cumsum(sizes)[:-1]
        members = np.split(isl[np.argsort(batch, kind="stable")], ends)
        expected_ms = sum(curve.batch_ms(prompts.tolist()) for prompts in members)
        taken = np.zeros(len(sizes))
        taken[batch] = (first - begin) * 1e3
        scale = float(taken.sum() / expected_ms) or None
    chained = parallel = None
    if log.kv_ready_s is not None:
        wait_ms = (log.kv_ready_s[part] - first) * 1e3
        last = np.zeros(len(sizes))
        np.maximum.at(last, batch, wait_ms)
        handed = log.osl[part] > 1  # a single token needs no decode instance
        if handed.any():
            chained = float(last.sum() / handed.sum()) or None
            parallel = float(wait_ms[handed].mean()) or None
    return StageTimes(scale, chained, parallel)
