"""From measurement sources to a profile: read, choose, join, fit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.document import DEFAULT_PROFILE, load_profile, read_profile
from sagescale.perf.fit.decode import fit_decode
from sagescale.perf.fit.prefill import fit_prefill
from sagescale.perf.fit.regression import fit_kv_transfer
from sagescale.perf.fit.steps import fit_aggregated, fit_spread
from sagescale.perf.importers import IMPORTERS, importer_for
from sagescale.perf.importers.benchmark import BenchmarkFormat
from sagescale.perf.measurement import (
    DecodePoint,
    Measurement,
    PrefillPoint,
    Wanted,
    choose,
    group,
    joined,
    with_grouped_lengths,
)
from sagescale.perf.profile import (
    DEFAULT_MAX_BATCHED_TOKENS,
    DEFAULT_MAX_NUM_SEQS,
    KvTransfer,
    Profile,
    Source,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Sequence

ROLES = ("prefill", "decode")

_SAME_LOAD = 0.05

_FASTEST_MS, _SLOWEST_MS = 0.2, 5000.0
"""No engine takes less for a step, and none that takes more for steps or its shortest prompts is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the user says about a source; None and ``""`` leave the source's own word.

    ``blocks_prefill`` and ``kv_decode_steps`` describe the engine's hand-off, which no source measures.
    """

    name: str = ""
    model: str = ""
    gpu: str = ""
    engine: str = ""
    engine_version: str = ""
    precision: str = ""
    tensor_parallel: int | None = None
    prefill_gpus: int | None = None
    decode_gpus: int | None = None
    max_num_seqs: int | None = None
    max_kv_tokens: int | None = None
    max_batched_tokens: int | None = None
    kv_decode_steps: float = 0.0
    blocks_prefill: bool = False
    title: str = ""
    description: str = ""
    licence: str = ""
    tool: str = ""
    tool_version: str = ""
    command: str = ""


def profile_from_source(path: str | os.PathLike[str]) -> Profile:
    """Build a profile from anything ``profile import`` accepts, or read a profile document.

    Raises InputError when the source is of no known format, lacks a pool, holds several
    configurations, or has too few points.
    """
    source = Path(path)
    if source.is_file() and source.suffix in {".yaml", ".yml"}:
        return read_profile(source)
    return build_profile(
        read_sources([source]), ImportOptions(command=f"sagescale profile import {source.name}")
    )


def sizing_profile(profile: str | Profile | None, data: object) -> Profile:
    """Return the profile to size with: one that was given or named, else measured data, else the default.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(profile, Profile):
        return profile
    if profile is None and data is not None:
        return profile_from_source(str(data))
    return load_profile(profile or DEFAULT_PROFILE)


def read_sources(
    paths: Sequence[Path],
    *,
    format_name: str | None = None,
    roles: Sequence[str] = (),
    wanted: Wanted | None = None,
) -> tuple[Measurement, ...]:
    """Read each source, keep the roles asked for, and choose its configuration.

    ``roles``: none keeps both pools, one applies to every source, else one for each source. Raises
    InputError when a source holds several configurations and none is chosen.
    """
    if len(roles) not in {0, 1, len(paths)}:
        raise InputError(
            f"--role given {len(roles)} times (expected once, or once for each of {len(paths)} sources)"
        )
    measurements = []
    for index, path in enumerate(paths):
        found = importer_for(path, format_name).read(path)
        chosen = choose(path, found, wanted or Wanted())
        role = roles[index] if len(roles) > 1 else roles[0] if roles else None
        measurements.append(_only(chosen, role))
    return tuple(measurements)


def build_profile(measurements: Sequence[Measurement], options: ImportOptions) -> Profile:
    """Join measurements of one configuration and fit the surfaces.

    Raises InputError when sources contradict each other or the user, or hold fewer than three prefill
    lengths or less than two by two decode points.
    """
    source = _with_points_of_steps(with_grouped_lengths(joined(measurements)))
    try:
        return _build(source, options, options.name or _slug(Path(measurements[0].origin)))
    except ValueError as error:
        raise InputError(f"{source.origin}: {error}") from error


def _build(source: Measurement, options: ImportOptions, name: str) -> Profile:
    _enough(source)
    _in_milliseconds(source)
    tensor_parallel = options.tensor_parallel or source.tensor_parallel
    for measured in (source.prefill_gpus, source.decode_gpus):
        if measured and tensor_parallel and tensor_parallel > measured:
            raise InputError(
                f"{source.origin}: instances have {measured} GPUs by the source's own figures "
                f"(expected at most --tp {measured}, not {tensor_parallel})"
            )
    gpus, gpu_notes = {}, []
    for role, given, measured in (
        ("prefill", options.prefill_gpus, source.prefill_gpus),
        ("decode", options.decode_gpus, source.decode_gpus),
    ):
        if given and measured and given != measured:
            raise InputError(
                f"{source.origin}: {role} instances have {measured} GPUs by the source's own figures, "
                f"not {given}"
            )
        gpus[role] = given or measured or tensor_parallel or 1
        if not (given or measured or tensor_parallel):
            gpu_notes.append(f"GPUs of a {role} instance: not in the source, 1 assumed")
    slots = options.max_num_seqs or source.max_num_seqs
    kv_tokens = options.max_kv_tokens or source.max_kv_tokens
    limits = (("max_num_seqs", slots), ("max_kv_tokens", kv_tokens))
    prefill, prefill_notes = fit_prefill(source.prefill, gpus["prefill"])
    decode, decode_notes = fit_decode(
        source.decode,
        slots or DEFAULT_MAX_NUM_SEQS,
        gpus["decode"],
        max_kv_tokens=kv_tokens,
        assumed=tuple(name for name, value in limits if value is None),
    )
    decode = fit_spread(decode, source.steps)
    aggregated = None
    if source.steps:
        if gpus["prefill"] != gpus["decode"]:
            raise InputError(
                f"{source.origin}: steps of an instance that prefills and decodes, with {gpus['prefill']} "
                f"GPUs for one and {gpus['decode']} for the other (expected the same)"
            )
        aggregated = fit_aggregated(
            decode,
            source.steps,
            options.max_batched_tokens or DEFAULT_MAX_BATCHED_TOKENS,
            assumed=options.max_batched_tokens is None,
        )
    elif options.max_batched_tokens:
        raise InputError(f"{source.origin}: no steps with chunks (--max-batched-tokens is of such steps)")
    latency_ms, ms_per_1k_tokens = fit_kv_transfer(source.kv_transfer) if source.kv_transfer else (0.0, 0.0)
    return Profile(
        name=name,
        model=options.model or source.model,
        gpu=options.gpu or source.gpu,
        engine=options.engine or source.engine,
        engine_version=options.engine_version or source.engine_version,
        precision=options.precision,
        tensor_parallel=tensor_parallel or 1,
        source=Source(
            title=options.title,
            description=options.description,
            licence=options.licence,
            tool=options.tool,
            tool_version=options.tool_version,
            format=source.format,
            command=options.command,
            files=source.files,
        ),
        prefill=prefill,
        decode=decode,
        aggregated=aggregated,
        kv_transfer=KvTransfer(
            latency_ms=latency_ms,
            ms_per_1k_tokens=ms_per_1k_tokens,
            decode_steps=options.kv_decode_steps,
            blocks_prefill=options.blocks_prefill,
            assumed=not source.kv_transfer,
        ),
        notes=(*source.notes, *prefill_notes, *decode_notes, *gpu_notes),
    )


def _with_points_of_steps(source: Measurement) -> Measurement:
    """Add the pools' points that steps hold, where the source has none: an instance that did either alone.

    Steps of whole prompts of one length are prefill, those of equal contexts without chunks decode.
    """
    prefill = tuple(
        PrefillPoint(step.chunks[0][0], len(step.chunks), step.ms)
        for step in source.steps
        if not step.decode and len({*step.chunks}) == 1 and step.chunks[0][1] == 0
    )
    decode = tuple(
        DecodePoint(float(step.decode), float(step.longest), step.ms)
        for step in source.steps
        if not step.chunks and step.is_equal
    )
    return replace(source, prefill=source.prefill or prefill, decode=source.decode or decode)


def _only(measurement: Measurement, role: str | None) -> Measurement:
    if role is None:
        return measurement
    if role not in ROLES:
        raise InputError(f"--role '{role}': unknown (expected prefill or decode)")
    if not (measurement.prefill if role == "prefill" else measurement.decode):
        raise InputError(f"{measurement.origin}: no {role} points (asked for with --role {role})")
    if role == "prefill":
        return replace(
            measurement, decode=(), decode_gpus=None, max_num_seqs=None, max_kv_tokens=None, notes=()
        )
    return replace(measurement, prefill=(), prefill_gpus=None)


def _advice(source: Measurement, lengths: Collection[int]) -> str:
    """Say which runs would give what is missing: lone requests at lengths that are not there yet.

    Empty for sources that are no benchmark tool's.
    """
    tool = IMPORTERS.get(source.format)
    if not isinstance(tool, BenchmarkFormat):
        return ""
    if not lengths:
        return f"run {tool.alone} at three input lengths, e.g. 256, 1024 and 4096"
    far = [each for each in (256, 4096, 1024) if all(not 0.7 < each / there < 1.4 for there in lengths)]
    more = "two more input lengths" if len(lengths) == 1 else "another input length"
    examples = " and ".join(map(str, sorted(far[: 3 - len(lengths)])))
    return f"run {tool.alone} at {more}, e.g. {examples}"


def _enough(source: Measurement) -> None:
    for role, points in (("prefill", source.prefill), ("decode", source.decode)):
        if not points:
            advice = _advice(source, ()) if role == "prefill" else ""
            how = f"; {advice}" if advice else ""
            raise InputError(f"{source.origin}: no {role} points (give a second source that has them{how})")
    lengths = {point.isl_tokens for point in source.prefill if point.batch == 1}
    if len(lengths) < 3:
        advice = _advice(source, lengths)
        raise InputError(
            f"{source.origin}: {len(lengths)} prompt lengths measured alone (expected at least 3 for "
            f"prefill{': ' if advice else ''}{advice})"
        )
    contexts = {point.context_tokens for point in source.decode}
    # A concurrency derived from throughput is never twice the same to the last digit.
    loads = set(group((point.concurrency for point in source.decode), _SAME_LOAD).values())
    if len(contexts) < 2 or len(loads) < 2:
        raise InputError(
            f"{source.origin}: {len(loads)} concurrencies at {len(contexts)} contexts "
            "(expected at least 2 by 2 for decode)"
        )


def _in_milliseconds(source: Measurement) -> None:
    """Refuse the times of no engine: seconds or microseconds taken for milliseconds."""
    for what, times in (
        ("prompt", [point.ttft_ms for point in source.prefill]),
        ("decode step", [point.itl_ms for point in source.decode]),
    ):
        fastest = min(times)
        if not _FASTEST_MS <= fastest <= _SLOWEST_MS:
            raise InputError(
                f"{source.origin}: the fastest {what} takes {fastest:g} ms (expected {_FASTEST_MS:g} to "
                f"{_SLOWEST_MS:g}: are these milliseconds?)"
            )


def _slug(path: Path) -> str:
    return (
        re.sub(r"[^a-z0-9.]+", "-", path.stem.lower() if path.is_file() else path.name.lower()).strip("-")
        or "profile"
    )
