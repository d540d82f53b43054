"""sagescale measurement JSON: a list of rows, one measured operating point each.

``{"kind": "prefill", "isl": 512, "batch": 1, "ms": [median, min, max]}``,
``{"kind": "decode", "batch": 8, "context": 1024, "ms": ...}``,
``{"kind": "kv_transfer", "tokens": 1024, "ms": ...}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError, did_you_mean
from sagescale.perf.checks import is_sane
from sagescale.perf.importers.base import source_file
from sagescale.perf.importers.json_text import load_json
from sagescale.perf.importers.look import Look
from sagescale.perf.measurement import DecodePoint, KvPoint, Measurement, PrefillPoint

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Never

__all__ = ["MeasurementImporter"]

_KEYS = {
    "prefill": ("isl", "batch", "ms"),
    "decode": ("batch", "context", "ms"),
    "kv_transfer": ("tokens", "ms"),
}


class MeasurementImporter:
    """A JSON file of measured rows, or a folder with such files: what else lies there is not read."""

    name = "measurement"

    def recognise(self, look: Look) -> bool:
        """Whether there is a JSON list whose first row has a ``kind``."""
        return any(map(_has_rows, look.files))

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read all rows; a malformed one raises InputError naming its index, key and value."""
        files = [file.path for file in Look(path).files if _has_rows(file)] if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path}: no JSON list of measured rows in this folder")
        prefill, decode, kv_transfer = [], [], []
        for row in (row for file in files for row in _rows(file)):
            kind = row.kind()
            if kind == "prefill":
                prefill.append(PrefillPoint(row.whole("isl"), row.whole("batch"), row.ms()))
            elif kind == "decode":
                decode.append(DecodePoint(row.whole("batch"), row.whole("context"), row.ms()))
            else:
                kv_transfer.append(KvPoint(row.whole("tokens"), row.ms()))
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


def _rows(path: Path) -> list[_Row]:
    rows = load_json(path)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: {type(rows).__name__} (expected a JSON list of measured rows)")
    return [_Row(path, index, content) for index, content in enumerate(rows)]


class _Row:
    """One row, checked key by key."""

    def __init__(self, path: Path, index: int, content: object) -> None:
        self._where = f"{path}: row {index}"
        if not isinstance(content, dict):
            self._fail("", content, "an object with 'kind'")
        self._content = content

    def kind(self) -> str:
        kind = self._content.get("kind")
        if not isinstance(kind, str) or kind not in _KEYS:
            near = did_you_mean(str(kind), _KEYS)
            self._fail("kind", kind, f"one of {', '.join(_KEYS)}{near}")
        for key in self._content:
            if key != "kind" and key not in _KEYS[kind]:
                self._fail(key, self._content[key], f"only {', '.join(_KEYS[kind])} in a {kind} row")
        return kind

    def whole(self, key: str) -> int:
        value = self._content.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**53:
            self._fail(key, value, "a whole number >= 1")
        return value

    def ms(self) -> float:
        """Return the median: ``ms`` is a number, or a list that starts with it."""
        value: object = self._content.get("ms")
        values: list[object] = value if isinstance(value, list) and value else [value]
        numbers = [
            float(item)
            for item in values
            if isinstance(item, (int, float)) and not isinstance(item, bool) and item > 0 and is_sane(item)
        ]
        if len(numbers) != len(values):
            self._fail("ms", value, "milliseconds above 0, alone or as [median, min, max]")
        return numbers[0]

    def _fail(self, key: str, value: object, expected: str) -> Never:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise InputError(f"{self._where}: {key + ': ' if key else ''}{shown} (expected {expected})")
