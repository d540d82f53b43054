"""NVIDIA Dynamo's profiler output, and its pre-swept profiles: the same arrays, one row a configuration.

The profiler writes ``selected_*_interpolation/raw_data.npz`` or the JSON twins, which a cluster keeps in a
ConfigMap; pre-swept profiles are ``prefill.npz`` and ``decode.npz`` (any names).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.key_file import read_key_trees
from sagescale.perf.importers.arrays import Arrays, arrays_of, read_arrays
from sagescale.perf.importers.littles_law import decode_points
from sagescale.perf.importers.source import look_at, looks, source_file
from sagescale.perf.measurement import Measurement, PrefillPoint, joined

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sagescale.perf.importers.source import Look

_PREFILL = ("prefill_isl", "prefill_ttft")
_DECODE = ("x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu")
_ARRAYS = {"prefill": {*_PREFILL}, "decode": {*_DECODE, "max_kv_tokens"}}
"""What a file of each pool has."""

_FOLDER = (
    "selected_prefill_interpolation/raw_data.npz",
    "selected_decode_interpolation/raw_data.npz",
    "prefill_raw_data.json",
    "decode_raw_data.json",
    "selected_prefill_interpolation/raw_data.json",
    "selected_decode_interpolation/raw_data.json",
    "raw_data.npz",
    "raw_data.json",
)
"""Where the profiler keeps its arrays; the first there of each pool counts."""

_CONFIGURATION = ("tp", "dp", "pp")
_MAX_CONFIGURATIONS = 1000


class DynamoImporter:
    """A profiler folder, one of its files, or the ConfigMap that holds them."""

    name = "dynamo"

    def recognise(self, path: Path, files: Sequence[Look]) -> bool:
        """Whether the profiler's arrays lie there, without the pre-swept configuration axis."""
        if _is_yaml(path):
            try:
                return any(_has_points(arrays.by_name) for arrays in _config_map(path))
            except InputError:
                return False
        own = files if path.is_file() else map(look_at, _files(path))
        return any(_has_points(file.names) and "tp" not in file.names for file in own)

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read prefill and decode points, whichever the source has.

        GPUs an instance follow from the source's own throughput per GPU. Raises InputError naming file,
        array and value.
        """
        found = Measurement(origin=str(path), format=self.name, files=())
        for arrays in _config_map(path) if _is_yaml(path) else map(read_arrays, _files(path)):
            file, names, before = arrays.path, arrays.by_name.keys(), found
            if not found.prefill and names >= _ARRAYS["prefill"]:
                found = _with_prefill(found, arrays)
            if not found.decode and names >= _ARRAYS["decode"]:
                found = _with_decode(found, arrays)
            if found is not before:
                found = replace(found, files=tuple(dict.fromkeys((*found.files, source_file(file, path)))))
        if not found.files:
            raise InputError(
                f"{path}: no Dynamo arrays (expected {', '.join(sorted(_ARRAYS['prefill']))} and/or "
                f"{', '.join(sorted(_ARRAYS['decode']))})"
            )
        return (found,)


class DynamoPreSweptImporter:
    """A folder with a file of arrays for each pool, or one such file."""

    name = "dynamo_pre_swept"

    def recognise(self, path: Path, files: Sequence[Look]) -> bool:  # noqa: ARG002 - as in Importer
        """Whether the arrays carry a configuration axis (``tp`` beside them)."""
        return bool(_swept_files(files))

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read one measurement for each configuration (tensor, data, pipeline parallel).

        Throughput per GPU was divided by ``gpu_count`` (8) whatever the configuration uses; an instance's
        own is that times ``gpu_count``. Raises InputError naming file, array and value.
        """
        files = _swept_files(looks(path))
        if not files:
            raise InputError(f"{path}: no pre-swept arrays (expected tp beside the Dynamo profiler's arrays)")
        by_configuration: dict[tuple[int, ...], Measurement] = {}
        for file in files:
            arrays = read_arrays(file)
            names = _PREFILL if arrays.by_name.keys() >= _ARRAYS["prefill"] else _DECODE
            points = arrays.numbers(*names, ndim=2)
            rows, count = len(points[0]), arrays.by_name["tp"].size
            if rows != count or count > _MAX_CONFIGURATIONS:
                raise InputError(
                    f"{file}: {names[0]}: {rows} rows (expected {count}, one for each tp, and at most "
                    f"{_MAX_CONFIGURATIONS})"
                )
            common = Measurement(origin=str(path), format=self.name, files=(source_file(file, path),))
            for index in range(count):
                key = tuple(arrays.whole(name, index, default=1) for name in _CONFIGURATION)
                part = _swept_part(common, arrays, [values[index] for values in points], index)
                known = by_configuration.get(key)
                by_configuration[key] = part if known is None else joined((known, part))
        return tuple(by_configuration[key] for key in sorted(by_configuration))


def _has_points(names: Collection[str]) -> bool:
    return any(set(names) >= arrays for arrays in _ARRAYS.values())


def _files(path: Path) -> tuple[Path, ...]:
    if path.is_file():
        return (path,)
    return tuple(path / name for name in _FOLDER if (path / name).is_file())


def _is_yaml(path: Path) -> bool:
    return path.is_file() and path.suffix in {".yaml", ".yml"}


def _config_map(path: Path) -> list[Arrays]:
    """Return the arrays in the entries of a file's ConfigMaps; other entries are left out."""
    found = []
    for document in read_key_trees(path, "a ConfigMap with a profile"):
        content = document.plain
        if not isinstance(content, dict) or content.get("kind") != "ConfigMap":
            continue
        data = content.get("data")
        for name, text in data.items() if isinstance(data, dict) else ():
            if not isinstance(text, str) or not text.lstrip().startswith("{"):
                continue
            try:
                entry = parse_json(text)
            except BadJsonError as error:
                raise InputError(f"{path}: {name}: {error} (expected JSON of Dynamo's profiler)") from None
            found.append(arrays_of(path, entry))
    return found


def _swept_files(files: Sequence[Look]) -> tuple[Path, ...]:
    return tuple(file.path for file in files if "tp" in file.names and _has_points(file.names))


def _prefill_points(
    path: Path, isl: NDArray[np.float64], ttft_ms: NDArray[np.float64]
) -> tuple[PrefillPoint, ...]:
    """Return lone-prompt points; refuses a fraction of a token."""
    if np.any(isl != np.rint(isl)):
        raise InputError(f"{path}: prefill_isl: {isl[isl != np.rint(isl)][0]} (expected whole tokens)")
    return tuple(PrefillPoint(int(n), 1, float(ms)) for n, ms in zip(isl, ttft_ms, strict=True))


def _with_prefill(found: Measurement, arrays: Arrays) -> Measurement:
    isl, ttft_ms = arrays.numbers(*_PREFILL, ndim=1)
    gpus = None
    if "prefill_thpt_per_gpu" in arrays.by_name:
        _, per_gpu = arrays.numbers("prefill_isl", "prefill_thpt_per_gpu", ndim=1)
        gpus = max(1, round(float(np.median(isl / ttft_ms * 1000.0 / per_gpu))))
    return replace(found, prefill=_prefill_points(arrays.path, isl, ttft_ms), prefill_gpus=gpus)


def _with_decode(found: Measurement, arrays: Arrays) -> Measurement:
    usage, context, itl_ms, per_gpu = arrays.numbers(*_DECODE, ndim=1)
    kv_tokens = arrays.whole("max_kv_tokens")
    stated = usage * kv_tokens / context
    # At low load stated and implied concurrency agree, and what is left between them is the GPU count.
    light = np.argsort(stated)[: max(1, len(stated) // 4)]
    gpus = max(1, round(float(np.median((stated / (per_gpu * itl_ms / 1000.0))[light]))))
    points, notes = decode_points(context, itl_ms, per_gpu * gpus, stated)
    return replace(found, decode=points, decode_gpus=gpus, max_kv_tokens=kv_tokens, notes=notes)


def _swept_part(
    common: Measurement, arrays: Arrays, points: list[NDArray[np.float64]], index: int
) -> Measurement:
    """Return one configuration's points of one pool."""
    tensor, data, pipeline = (arrays.whole(name, index, default=1) for name in _CONFIGURATION)
    common = replace(
        common,
        tensor_parallel=tensor,
        model=arrays.text("model", index),
        gpu=arrays.text("gpu_type", index),
        engine=arrays.text("framework", index),
        engine_version=arrays.text("framework_version", index),
    )
    gpus = tensor * data * pipeline
    if len(points) == len(_PREFILL):
        return replace(common, prefill=_prefill_points(arrays.path, *points), prefill_gpus=gpus)
    usage, context, itl_ms, divided = points
    kv_tokens = arrays.whole("max_kv_tokens", index)
    divisor = arrays.whole("gpu_count", index, default=8)
    decode, notes = decode_points(context, itl_ms, divided * divisor, usage * kv_tokens / context)
    return replace(
        common,
        decode=decode,
        decode_gpus=gpus,
        max_kv_tokens=kv_tokens,
        max_num_seqs=arrays.whole("max_batch_size", index) if "max_batch_size" in arrays.by_name else None,
        notes=notes,
    )
