"""sagescale measurement JSON: a list of rows, one measured operating point each.

``{"kind": "prefill", "isl": 512, "batch": 1, "ms": [median, min, max]}``,
``{"kind": "decode", "batch": 8, "context": 1024, "ms": ...}``,
``{"kind": "kv_transfer", "tokens": 1024, "ms": ...}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError, did_you_mean
from sagescale.perf.checks import POSITIVE
from sagescale.perf.importers.record import Record
from sagescale.perf.importers.source import load_json, looks, source_file
from sagescale.perf.measurement import DecodePoint, KvPoint, Measurement, PrefillPoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sagescale.perf.importers.source import Look

__all__ = ["MeasurementImporter"]

_KEYS = {
    "prefill": ("isl", "batch", "ms"),
    "decode": ("batch", "context", "ms"),
    "kv_transfer": ("tokens", "ms"),
}


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
        prefill, decode, kv_transfer = [], [], []
        for row in (row for file in files for row in _rows(file)):
            kind, ms = _kind(row), _median_ms(row)
            if kind == "prefill":
                prefill.append(PrefillPoint(row.whole("isl"), row.whole("batch"), ms))
            elif kind == "decode":
                decode.append(DecodePoint(row.whole("batch"), row.whole("context"), ms))
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


def _median_ms(row: Record) -> float:
    """Return the median: ``ms`` is a number, or a list that starts with it."""
    given = row.content.get("ms")
    read = [POSITIVE.read(item) for item in (given if isinstance(given, list) and given else [given])]
    if read[0] is None or None in read:
        row.fail("ms", given, "milliseconds above 0, alone or as [median, min, max]")
    return read[0]
