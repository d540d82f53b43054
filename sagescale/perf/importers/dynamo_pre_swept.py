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
    from pathlib import Path

__all__ = ["DynamoPreSweptImporter"]

_CONFIGURATION = ("tp", "dp", "pp")


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
            count = arrays.by_name["tp"].size
            for index in range(count):
                key = tuple(arrays.whole(name, index) if name in names else 1 for name in _CONFIGURATION)
                part = _read_one(self.name, path, file, arrays, index)
                known = by_configuration.get(key)
                by_configuration[key] = part if known is None else joined((known, part))
        return tuple(by_configuration[key] for key in sorted(by_configuration))


def _files(look: Look) -> tuple[Path, ...]:
    return tuple(
        file.path
        for file in look.files
        if "tp" in file.names and (file.names >= PREFILL_ARRAYS or file.names >= DECODE_ARRAYS)
    )


def _read_one(name: str, root: Path, file: Path, arrays: Arrays, index: int) -> Measurement:
    names = arrays.by_name.keys()
    parallel = {key: arrays.whole(key, index) if key in names else 1 for key in _CONFIGURATION}
    gpus = parallel["tp"] * parallel["dp"] * parallel["pp"]
    common = Measurement(
        origin=str(root),
        format=name,
        files=(source_file(file, root),),
        tensor_parallel=parallel["tp"],
        model=arrays.text("model", index),
        gpu=arrays.text("gpu_type", index),
        engine=arrays.text("framework", index),
        engine_version=arrays.text("framework_version", index),
    )
    if names >= PREFILL_ARRAYS:
        arrays.same_shape("prefill_isl", "prefill_ttft")
        isl = arrays.numbers("prefill_isl", ndim=2, above=0)[index]
        ttft_ms = arrays.numbers("prefill_ttft", ndim=2, above=0)[index]
        return replace(common, prefill=prefill_points(file, isl, ttft_ms), prefill_gpus=gpus)
    arrays.same_shape("x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu")
    usage = arrays.numbers("x_kv_usage", ndim=2, above=0)[index]
    context = arrays.numbers("y_context_length", ndim=2, above=0)[index]
    itl_ms = arrays.numbers("z_itl", ndim=2, above=0)[index]
    divided = arrays.numbers("z_thpt_per_gpu", ndim=2, above=0)[index]
    kv_tokens = arrays.whole("max_kv_tokens", index)
    divisor = arrays.whole("gpu_count", index) if "gpu_count" in names else 8
    points, notes = decode_points(context, itl_ms, divided * divisor, usage * kv_tokens / context)
    return replace(
        common,
        decode=points,
        decode_gpus=gpus,
        max_kv_tokens=kv_tokens,
        max_num_seqs=arrays.whole("max_batch_size", index) if "max_batch_size" in names else None,
        notes=notes,
    )
