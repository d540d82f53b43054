"""NVIDIA Dynamo's profiler output: ``selected_*_interpolation/raw_data.npz`` or the JSON twins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.perf.importers.arrays import Arrays, read_arrays
from sagescale.perf.importers.base import source_file
from sagescale.perf.importers.littles_law import decode_points
from sagescale.perf.importers.look import Look
from sagescale.perf.measurement import DecodePoint, Measurement, PrefillPoint

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["DECODE_ARRAYS", "PREFILL_ARRAYS", "DynamoImporter", "prefill_points"]

PREFILL_ARRAYS = frozenset({"prefill_isl", "prefill_ttft"})
DECODE_ARRAYS = frozenset({"x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu", "max_kv_tokens"})

_CANDIDATES = (
    "selected_prefill_interpolation/raw_data.npz",
    "selected_decode_interpolation/raw_data.npz",
    "prefill_raw_data.json",
    "decode_raw_data.json",
    "selected_prefill_interpolation/raw_data.json",
    "selected_decode_interpolation/raw_data.json",
    "raw_data.npz",
    "raw_data.json",
)


class DynamoImporter:
    """A profiler folder, or one of its files."""

    name = "dynamo"

    def recognise(self, look: Look) -> bool:
        """Whether the profiler's arrays lie there, without the pre-swept configuration axis."""
        looks = (look,) if look.path.is_file() else map(Look, _files(look.path))
        return any(
            (file.names >= PREFILL_ARRAYS or file.names >= DECODE_ARRAYS) and "tp" not in file.names
            for file in looks
        )

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read prefill and decode points, whichever the source has.

        GPUs an instance follow from the source's own throughput per GPU. Raises InputError naming file,
        array and value.
        """
        prefill: tuple[PrefillPoint, ...] = ()
        decode: tuple[DecodePoint, ...] = ()
        prefill_gpus = decode_gpus = max_kv_tokens = None
        notes: tuple[str, ...] = ()
        used = []
        for file in _files(path):
            arrays = read_arrays(file)
            names = arrays.by_name.keys()
            if not prefill and names >= PREFILL_ARRAYS:
                prefill, prefill_gpus = _prefill(arrays)
                used.append(file)
            if not decode and names >= DECODE_ARRAYS:
                decode, decode_gpus, notes = _decode(arrays)
                max_kv_tokens = arrays.whole("max_kv_tokens")
                used.append(file)
        if not used:
            raise InputError(
                f"{path}: no Dynamo arrays (expected {', '.join(sorted(PREFILL_ARRAYS))} and/or "
                f"{', '.join(sorted(DECODE_ARRAYS))})"
            )
        return (
            Measurement(
                origin=str(path),
                format=self.name,
                files=tuple(source_file(file, path) for file in used),
                prefill=prefill,
                decode=decode,
                prefill_gpus=prefill_gpus,
                decode_gpus=decode_gpus,
                max_kv_tokens=max_kv_tokens,
                notes=notes,
            ),
        )


def prefill_points(
    path: Path, isl: NDArray[np.float64], ttft_ms: NDArray[np.float64]
) -> tuple[PrefillPoint, ...]:
    """Return lone-prompt points; refuses a fraction of a token."""
    if np.any(isl != np.rint(isl)):
        raise InputError(f"{path}: prefill_isl: {isl[isl != np.rint(isl)][0]} (expected whole tokens)")
    return tuple(PrefillPoint(int(n), 1, float(ms)) for n, ms in zip(isl, ttft_ms, strict=True))


def _files(path: Path) -> tuple[Path, ...]:
    if path.is_file():
        return (path,)
    return tuple(path / name for name in _CANDIDATES if (path / name).is_file())


def _prefill(arrays: Arrays) -> tuple[tuple[PrefillPoint, ...], int | None]:
    arrays.same_shape("prefill_isl", "prefill_ttft")
    isl = arrays.numbers("prefill_isl", ndim=1, above=0)
    ttft_ms = arrays.numbers("prefill_ttft", ndim=1, above=0)
    gpus = None
    if "prefill_thpt_per_gpu" in arrays.by_name:
        arrays.same_shape("prefill_isl", "prefill_thpt_per_gpu")
        per_gpu = arrays.numbers("prefill_thpt_per_gpu", ndim=1, above=0)
        gpus = max(1, round(float(np.median(isl / ttft_ms * 1000.0 / per_gpu))))
    return prefill_points(arrays.path, isl, ttft_ms), gpus


def _decode(arrays: Arrays) -> tuple[tuple[DecodePoint, ...], int, tuple[str, ...]]:
    arrays.same_shape("x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu")
    usage = arrays.numbers("x_kv_usage", ndim=1, above=0)
    context = arrays.numbers("y_context_length", ndim=1, above=0)
    itl_ms = arrays.numbers("z_itl", ndim=1, above=0)
    per_gpu = arrays.numbers("z_thpt_per_gpu", ndim=1, above=0)
    stated = usage * arrays.whole("max_kv_tokens") / context
    # At low load stated and implied concurrency agree, and what is left between them is the GPU count.
    light = np.argsort(stated)[: max(1, len(stated) // 4)]
    gpus = max(1, round(float(np.median((stated / (per_gpu * itl_ms / 1000.0))[light]))))
    points, notes = decode_points(context, itl_ms, per_gpu * gpus, stated)
    return points, gpus, notes
