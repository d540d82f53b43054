"""splitwise-sim's ``perf_model.csv``: batches of equal prompts, one factor varied at a time, times in ms."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.importers.source import look_at, source_file
from sagescale.perf.importers.table import Row, read_table
from sagescale.perf.measurement import DecodePoint, Measurement, PrefillPoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sagescale.perf.importers.source import Look
    from sagescale.perf.profile import SourceFile

__all__ = ["SplitwiseImporter"]

_TIMES = ("prompt_time", "token_time", "e2e_time")
_SIZES = ("prompt_size", "batch_size", "token_size")
_COLUMNS = frozenset({"model", "hardware", "tensor_parallel", *_SIZES, *_TIMES})

_LONGER = 1.5
"""A batch whose end-to-end time is this many times its parts did not run in one go."""


class SplitwiseImporter:
    """A table of many configurations: each model, hardware and tensor parallelism is one."""

    name = "splitwise"

    def recognise(self, path: Path, files: Sequence[Look]) -> bool:
        """Whether the table has splitwise-sim's columns."""
        return path.is_file() and files[0].columns >= _COLUMNS

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read every configuration.

        Raises InputError for a missing column, a malformed cell, or times that do not add up.
        """
        missing = _COLUMNS - look_at(path).columns
        if missing:
            raise InputError(f"{path}: no column {', '.join(sorted(missing))} (expected splitwise-sim's)")
        rows: dict[tuple[str, str, int], list[Row]] = {}
        for row in read_table(path):
            key = (row.text("model"), row.text("hardware"), row.whole("tensor_parallel"))
            rows.setdefault(key, []).append(row)
        file = source_file(path, path)
        return tuple(
            _measurement(path, file, model, hardware, parallel, rows[model, hardware, parallel])
            for model, hardware, parallel in sorted(rows)
        )


def _measurement(
    path: Path, file: SourceFile, model: str, hardware: str, parallel: int, rows: list[Row]
) -> Measurement:
    """Take each operating point's median over its repeats.

    ``prompt_time`` is the prefill of the whole batch, ``token_time`` a decode step. Its context is on average
    the prompt and half of the tokens that were generated, which are fewer than ``token_size`` where the model
    stopped early: ``(e2e_time - prompt_time) / token_time`` tells how many.
    """
    prefill: dict[tuple[int, int], list[float]] = {}
    decode: dict[tuple[int, int, int], list[tuple[float, float]]] = {}
    split: dict[tuple[int, ...], int] = {}
    early = 0
    for row in rows:
        prompt_ms, token_ms, whole_ms = (row.number(name) for name in _TIMES)
        prompt, batch, asked = (row.whole(name) for name in _SIZES)
        generated = (whole_ms - prompt_ms) / token_ms
        if not 1.0 <= generated <= _LONGER * asked:
            split.setdefault((prompt, batch, asked), row.line)
            continue
        early += generated < asked / _LONGER
        prefill.setdefault((prompt, batch), []).append(prompt_ms)
        decode.setdefault((batch, prompt, asked), []).append((min(generated, asked), token_ms))
    if len(split) > len(decode):
        point, line = next(iter(split.items()))
        raise InputError(
            f"{path}: line {line}: e2e_time is not prompt_time + token_size * token_time, as in most rows of "
            f"{model} on {hardware} (prompt, batch, tokens {point}); wrong units? expected milliseconds"
        )
    notes = ["batch and context were varied one at a time: how they act together is extrapolated"]
    if split:
        points = "; ".join(
            f"batch {batch} of {prompt} + {asked} tokens" for prompt, batch, asked in sorted(split)
        )
        notes.append(f"left out, their end-to-end times say that they did not run as one batch: {points}")
    if early:
        notes.append(
            f"{early} of {len(rows)} rows stopped generating early: context is from what they generated"
        )
    return Measurement(
        origin=str(path),
        format=SplitwiseImporter.name,
        files=(file,),
        prefill=tuple(
            PrefillPoint(isl, batch, statistics.median(times))
            for (isl, batch), times in sorted(prefill.items())
        ),
        decode=tuple(
            DecodePoint(
                float(batch),
                float(prompt + round(statistics.median(tokens for tokens, _ in repeats) / 2.0)),
                statistics.median(ms for _, ms in repeats),
            )
            for (batch, prompt, _), repeats in sorted(decode.items())
        ),
        tensor_parallel=parallel,
        prefill_gpus=parallel,
        decode_gpus=parallel,
        model=model,
        gpu=hardware,
        length_tolerance=0.02,
        notes=tuple(notes),
    )
