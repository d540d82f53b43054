"""splitwise-sim's ``perf_model.csv``: batches of equal prompts, one factor varied at a time, times in ms."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.importers.table import Row, TableFormat
from sagescale.perf.measurement import DecodePoint, PrefillPoint

if TYPE_CHECKING:
    from sagescale.perf.measurement import Measurement

_TIMES = ("prompt_time", "token_time", "e2e_time")
_SIZES = ("prompt_size", "batch_size", "token_size")
_COLUMNS = frozenset({"model", "hardware", "tensor_parallel", *_SIZES, *_TIMES})

_LONGER = 1.5
"""A batch whose end-to-end time is this many times its parts did not run in one go."""


def _problem(columns: frozenset[str]) -> str:
    missing = ", ".join(sorted(_COLUMNS - columns))
    return f"no column {missing} (expected splitwise-sim's)" if missing else ""


def _configuration(row: Row) -> tuple[str, str, int]:
    return row.text("model"), row.text("hardware"), row.whole("tensor_parallel")


def _measurement(source: Measurement, rows: list[Row]) -> Measurement:
    """Take each operating point's median over its repeats.

    ``prompt_time`` is the prefill of the whole batch, ``token_time`` a decode step. Its context is on average
    the prompt and half of the tokens that were generated, which are fewer than ``token_size`` where the model
    stopped early: ``(e2e_time - prompt_time) / token_time`` tells how many. Raises InputError
    for times that do not add up.
    """
    model, hardware, parallel = _configuration(rows[0])
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
            f"{source.origin}: line {line}: e2e_time is not prompt_time + token_size * token_time, as in "
            f"most rows of {model} on {hardware} (prompt, batch, tokens {point}); wrong units? "
            "expected milliseconds"
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
    return replace(
        source,
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


SPLITWISE = TableFormat(
    name="splitwise", problem=_problem, configuration=_configuration, measurement=_measurement
)
