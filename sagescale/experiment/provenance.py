"""What a calibrated profile says about where it comes from."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

from sagescale.perf import SourceFile

if TYPE_CHECKING:
    from sagescale.experiment.calibrate import Calibration, PercentileError
    from sagescale.experiment.served import ServedLog
    from sagescale.perf import Profile

__all__ = ["factor_lines", "rounded", "with_provenance"]


def with_provenance(
    calibration: Calibration, base: Profile, log: ServedLog, name: str, command: str
) -> Profile:
    """Return the calibrated profile named, with base, log, factors and errors recorded in it."""
    source = base.source
    description = (
        f"{base.name} calibrated on {calibration.fitted} of {len(log)} requests of {Path(log.path).name}. "
        f"{source.description}"
    )
    notes = [
        *base.notes,
        f"calibrated from {base.name}",
        *(f"calibration: {factor} {value}" for factor, value in factor_lines(calibration)),
        *(f"calibration: {_error(error)}" for error in calibration.errors),
        f"calibration: errors are over {calibration.scored} requests "
        + ("held out from the fit" if calibration.held_out else "the fit saw"),
    ]
    return dataclasses.replace(
        rounded(calibration.profile),
        name=name,
        source=dataclasses.replace(
            source,
            description=description.strip(),
            command=command,
            files=(*source.files, SourceFile(path=Path(log.path).name, sha256=log.sha256)),
        ),
        notes=tuple(notes),
    )


def factor_lines(calibration: Calibration) -> list[tuple[str, str]]:
    """Return the factors as words and values, in the order of the model."""
    factors = calibration.factors
    padded = " ".join(map(str, factors.padded_batch_sizes)) or "none"
    return [
        ("prefill time", f"x {factors.prefill_scale:.4f}"),
        ("decode step time", f"x {factors.decode_scale:.4f}"),
        ("join cost", f"{factors.join_ms_per_1k_tokens:.4g} ms per 1000 tokens"),
        (
            "hand-off",
            f"{factors.latency_ms:.4g} ms + {factors.ms_per_1k_tokens:.4g} ms per 1000 tokens + "
            f"{factors.decode_steps:.4g} decode steps, "
            + ("holding the prefill instance" if factors.blocks_prefill else "beside the next prefill"),
        ),
        ("padded batch sizes", padded),
    ]


def rounded(profile: Profile) -> Profile:
    """Return the profile with fitted times to ten significant digits: readable, and nothing moves."""
    prefill, decode, kv = profile.prefill, profile.decode, profile.kv_transfer
    first = _round(prefill.ttft_ms[0])
    return dataclasses.replace(
        profile,
        prefill=dataclasses.replace(
            prefill,
            ttft_ms=tuple(map(_round, prefill.ttft_ms)),
            quadratic_ms=_round(prefill.quadratic_ms),
            floor_ms=None if prefill.floor_ms is None else min(first, _round(prefill.floor_ms)),
        ),
        decode=dataclasses.replace(decode, itl_ms=tuple(tuple(map(_round, row)) for row in decode.itl_ms)),
        kv_transfer=dataclasses.replace(
            kv,
            latency_ms=_round(kv.latency_ms),
            ms_per_1k_tokens=_round(kv.ms_per_1k_tokens),
            decode_steps=_round(kv.decode_steps),
        ),
        join_ms_per_1k_tokens=_round(profile.join_ms_per_1k_tokens),
    )


def _round(value: float) -> float:
    return value if value == 0 else round(value, 9 - math.floor(math.log10(abs(value))))


def _error(error: PercentileError) -> str:
    return (
        f"{error.latency} p{error.percentile} {error.measured_ms:.1f} ms measured, {error.before_ms:.1f} ms "
        f"({error.before:+.1%}) before, {error.after_ms:.1f} ms ({error.after:+.1%}) after"
    )
