"""Dynamo's pre-swept profiles: the same arrays with a leading configuration axis."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.importers.arrays import Arrays, read_arrays
from sagescale.perf.importers.base import source_file
from sagescale.perf.importers.dynamo import DECODE_ARRAYS, PREFILL_ARRAYS, prefill_points
from sagescale.perf.importers.littles_law import decode_points
from sagescale.perf.importers.look import Look
from sagescale.perf.measurement import Measurement, joined

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from sagescale.perf.profile import SourceFile

__all__ = ["DynamoPreSweptImporter"]

_CONFIGURATION = ("tp", "dp", "pp")
_PREFILL = ("prefill_isl", "prefill_ttft")
_DECODE = ("x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu")
_MAX_CONFIGURATIONS = 1000


class DynamoPreSweptImporter:
    """A folder with ``prefill.npz`` and ``decode.npz`` (any names), or one such file."""

    name = "dynamo_pre_swept"

    def recognise(self, look: Look) -> bool:
        """Whether the arrays carry a configuration axis (``tp`` beside them)."""
        return bool(_files(look))

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read one measurement for each configuration (tensor, data, pipeline parallel).

        Throughput per GPU was divided by ``gpu_count`` (8) whatever the configuration uses; an instance's
        own is that times ``gpu_count``. Raises InputError naming file, array and value.
        """
        files = _files(Look(path))
        if not files:
            raise InputError(f"{path}: no pre-swept arrays (expected tp beside the Dynamo profiler's arrays)")
        by_configuration: dict[tuple[int, ...], Measurement] = {}
        for file in files:
            arrays = read_arrays(file)
            names = arrays.by_name.keys()
            points = _points(arrays)
            source = source_file(file, path)
            for index in range(arrays.by_name["tp"].size):
                key = tuple(arrays.whole(name, index) if name in names else 1 for name in _CONFIGURATION)
                here = {name: values[index] for name, values in points.items()}
                part = _read_one(self.name, path, source, arrays, here, index)
                known = by_configuration.get(key)
                by_configuration[key] = part if known is None else joined((known, part))
        return tuple(by_configuration[key] for key in sorted(by_configuration))


def _files(look: Look) -> tuple[Path, ...]:
    return tuple(
        file.path
        for file in look.files
        if "tp" in file.names and (file.names >= PREFILL_ARRAYS or file.names >= DECODE_ARRAYS)
    )


def _points(arrays: Arrays) -> dict[str, NDArray[np.float64]]:
    """Return the arrays of points, a row for each configuration."""
    names = _PREFILL if arrays.by_name.keys() >= PREFILL_ARRAYS else _DECODE
    arrays.same_shape(*names)
    points = {name: arrays.numbers(name, ndim=2, above=0) for name in names}
    rows, count = len(points[names[0]]), arrays.by_name["tp"].size
    if rows != count or count > _MAX_CONFIGURATIONS:
        raise InputError(
            f"{arrays.path}: {names[0]}: {rows} rows (expected {count}, one for each tp, and at most "
            f"{_MAX_CONFIGURATIONS})"
        )
    return points


def _read_one(
    name: str,
    root: Path,
    source: SourceFile,
    arrays: Arrays,
    points: Mapping[str, NDArray[np.float64]],
    index: int,
) -> Measurement:
    names = arrays.by_name.keys()
    parallel = {key: arrays.whole(key, index) if key in names else 1 for key in _CONFIGURATION}
    gpus = parallel["tp"] * parallel["dp"] * parallel["pp"]
    common = Measurement(
        origin=str(root),
        format=name,
        files=(source,),
        tensor_parallel=parallel["tp"],
        model=arrays.text("model", index),
        gpu=arrays.text("gpu_type", index),
        engine=arrays.text("framework", index),
        engine_version=arrays.text("framework_version", index),
    )
    if "prefill_isl" in points:
        prefill = prefill_points(arrays.path, points["prefill_isl"], points["prefill_ttft"])
        return replace(common, prefill=prefill, prefill_gpus=gpus)
    usage, context, itl_ms, divided = (points[name] for name in _DECODE)
    kv_tokens = arrays.whole("max_kv_tokens", index)
    divisor = arrays.whole("gpu_count", index) if "gpu_count" in names else 8
    decode, notes = decode_points(context, itl_ms, divided * divisor, usage * kv_tokens / context)
    return replace(
        common,
        decode=decode,
        decode_gpus=gpus,
        max_kv_tokens=kv_tokens,
        max_num_seqs=arrays.whole("max_batch_size", index) if "max_batch_size" in names else None,
        notes=notes,
    )
