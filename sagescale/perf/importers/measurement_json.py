"""sagescale measurement JSON: a list of rows, one measured operating point each.

``{"kind": "prefill", "isl": 512, "batch": 1, "ms": [median, min, max]}``,
``{"kind": "decode", "batch": 8, "context": 1024, "ms": ...}``,
``{"kind": "kv_transfer", "tokens": 1024, "ms": ...}``,
``{"kind": "step", "decode": 8, "kv_tokens": 8192, "longest": 2000, "chunks": [{"prefix": 0, "tokens": 512}],
"ms": ...}``: a step of an engine that prefills and decodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError, did_you_mean
from sagescale.perf.checks import MAX_REQUESTS, MAX_TOKENS, POSITIVE
from sagescale.perf.importers.record import Record
from sagescale.perf.importers.source import load_json, looks, source_file
from sagescale.perf.measurement import DecodePoint, KvPoint, Measurement, PrefillPoint, StepPoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sagescale.perf.importers.source import Look

_KEYS = {
    "prefill": ("isl", "batch", "ms"),
    "decode": ("batch", "context", "ms"),
    "kv_transfer": ("tokens", "ms"),
    "step": ("decode", "kv_tokens", "longest", "chunks", "ms"),
}
_MAX_CHUNKS = 1024
_STEP_KV = MAX_REQUESTS * MAX_TOKENS


class MeasurementImporter:
    """A JSON file of measured rows, or a folder with such files: what else lies there is not read."""

    name = "measurement"

    def recognise(self, path: Path, files: Sequence[Look]) -> bool:  # noqa: ARG002 - as in Importer
        """Whether there is a JSON list whose first row has a ``kind``."""
        return any(map(_has_rows, files))

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read all rows; a malformed one raises InputError naming its index, key and value."""
        files = [file.path for file in looks(path) if _has_rows(file)] if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path}: no JSON list of measured rows in this folder")
        prefill, decode, kv_transfer, steps = [], [], [], []
        for row in (row for file in files for row in _rows(file)):
            kind, ms = _kind(row), _median_ms(row)
            if kind == "prefill":
                prefill.append(PrefillPoint(row.whole("isl"), row.whole("batch"), ms))
            elif kind == "decode":
                decode.append(DecodePoint(row.whole("batch"), row.whole("context"), ms))
            elif kind == "step":
                steps.append(_step(row, ms))
            else:
                kv_transfer.append(KvPoint(row.whole("tokens"), ms))
        return (
            Measurement(
                origin=str(path),
                format=self.name,
                files=tuple(source_file(file, path) for file in files),
                prefill=tuple(prefill),
                decode=tuple(decode),
                kv_transfer=tuple(kv_transfer),
                steps=tuple(steps),
            ),
        )


def _has_rows(file: Look) -> bool:
    return file.is_list and "kind" in file.names


def _rows(path: Path) -> list[Record]:
    rows = load_json(path)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: {type(rows).__name__} (expected a JSON list of measured rows)")
    expected = "an object with 'kind'"
    return [Record(f"{path}: row {index}", row, expected=expected) for index, row in enumerate(rows)]


def _kind(row: Record) -> str:
    kind = row.content.get("kind")
    if not isinstance(kind, str) or kind not in _KEYS:
        row.fail("kind", kind, f"one of {', '.join(_KEYS)}{did_you_mean(str(kind), _KEYS)}")
    for key, value in row.content.items():
        if key != "kind" and key not in _KEYS[kind]:
            row.fail(key, value, f"only {', '.join(_KEYS[kind])} in a {kind} row")
    return kind


def _step(row: Record, ms: float) -> StepPoint:
    """Return a step; what it says of the requests decoding must be possible."""
    n, kv_tokens = _count(row, "decode", MAX_REQUESTS), _count(row, "kv_tokens", _STEP_KV)
    longest = _count(row, "longest", MAX_TOKENS)
    if not (longest <= kv_tokens <= n * longest and kv_tokens >= n):
        row.fail("kv_tokens", kv_tokens, f"{n} decoding requests' tokens, of which the longest has {longest}")
    given = row.content.get("chunks")
    if not isinstance(given, list) or len(given) > _MAX_CHUNKS or not (given or n):
        row.fail("chunks", given, f"a list of chunks, at most {_MAX_CHUNKS}; at least one where none decodes")
    chunks = []
    for index, chunk in enumerate(given):
        part = Record(row.where, chunk, f"chunks[{index}].", expected="an object with prefix and tokens")
        for key, value in part.content.items():
            if key not in {"prefix", "tokens"}:
                part.fail(key, value, "only prefix, tokens in a chunk")
        tokens = _count(part, "tokens", MAX_TOKENS)
        if not tokens:
            part.fail("tokens", tokens, "a whole number >= 1")
        chunks.append((tokens, _count(part, "prefix", MAX_TOKENS)))
    return StepPoint(n, kv_tokens, longest, tuple(chunks), ms)


def _count(row: Record, name: str, most: int) -> int:
    value = row.content.get(name)
    if type(value) is not int or not 0 <= value <= most:
        row.fail(name, value, f"a whole number from 0 to {most}")
    return value


def _median_ms(row: Record) -> float:
    """Return the median: ``ms`` is a number, or a list that starts with it."""
    given = row.content.get("ms")
    read = [POSITIVE.read(item) for item in (given if isinstance(given, list) and given else [given])]
    if read[0] is None or None in read:
        row.fail("ms", given, "milliseconds above 0, alone or as [median, min, max]")
    return read[0]
