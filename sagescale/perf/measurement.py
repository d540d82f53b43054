"""What an importer hands over: measured points in common units, and what the source says of itself.

A source may hold several configurations, of which one is chosen; sources of one configuration are joined.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from sagescale.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from sagescale.perf.profile import SourceFile

_LISTED = 20


@dataclass(frozen=True, slots=True)
class PrefillPoint:
    """A batch of ``batch`` equal prompts of ``isl_tokens`` took ``ttft_ms``."""

    isl_tokens: int
    batch: int
    ttft_ms: float


@dataclass(frozen=True, slots=True)
class DecodePoint:
    """Steps of ``concurrency`` requests at ``context_tokens`` each took ``itl_ms``.

    ``stated_concurrency`` is the source's own word where ``concurrency`` was derived from throughput.
    """

    concurrency: float
    context_tokens: float
    itl_ms: float
    stated_concurrency: float | None = None


@dataclass(frozen=True, slots=True)
class KvPoint:
    """Copying the KV cache of ``tokens`` from prefill to decode took ``ms``."""

    tokens: int
    ms: float


@dataclass(frozen=True, slots=True)
class StepPoint:
    """One step of an aggregated engine took ``ms``.

    ``decode`` requests held ``kv_tokens`` before it, the longest of them ``longest``; ``chunks`` are (tokens
    computed, tokens of the prompt already there) of each prompt in it.
    """

    decode: int
    kv_tokens: int
    longest: int
    chunks: tuple[tuple[int, int], ...]
    ms: float

    @property
    def is_equal(self) -> bool:
        """Whether the requests decoding hold equally much."""
        return self.decode * self.longest == self.kv_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One configuration of one source. What the source does not say is ``""`` or None.

    ``variant`` is what configurations differ in beyond model, GPU and tensor parallelism. Lengths within the
    share ``length_tolerance`` of each other are one length: they are means of runs.
    """

    origin: str
    format: str
    files: tuple[SourceFile, ...]
    prefill: tuple[PrefillPoint, ...] = ()
    decode: tuple[DecodePoint, ...] = ()
    kv_transfer: tuple[KvPoint, ...] = ()
    steps: tuple[StepPoint, ...] = ()
    prefill_gpus: int | None = None
    decode_gpus: int | None = None
    tensor_parallel: int | None = None
    max_num_seqs: int | None = None
    max_kv_tokens: int | None = None
    model: str = ""
    gpu: str = ""
    engine: str = ""
    engine_version: str = ""
    variant: str = ""
    length_tolerance: float = 0.0
    notes: tuple[str, ...] = ()


def joined(parts: Sequence[Measurement]) -> Measurement:
    """Join measurements of one configuration: points add up, and what the parts say must agree.

    Raises InputError naming the two origins when they contradict each other.
    """
    first = parts[0]
    merged: dict[str, object] = {}
    for item in fields(Measurement):
        values = [getattr(part, item.name) for part in parts]
        if item.name in {"origin", "format"}:
            merged[item.name] = " + ".join(dict.fromkeys(values))
        elif item.name == "length_tolerance":
            merged[item.name] = max(values)
        elif isinstance(values[0], tuple):
            merged[item.name] = tuple(dict.fromkeys(entry for value in values for entry in value))
        else:
            said = [
                (value, part) for value, part in zip(values, parts, strict=True) if value not in {None, ""}
            ]
            for value, part in said[1:]:
                if value != said[0][0]:
                    raise InputError(
                        f"{part.origin}: {item.name}: {value} ({said[0][1].origin} says {said[0][0]}; "
                        "expected sources of one configuration)"
                    )
            merged[item.name] = said[0][0] if said else getattr(first, item.name)
    return Measurement(**merged)  # type: ignore[arg-type]  # every field is filled from its own kind


def with_grouped_lengths(source: Measurement) -> Measurement:
    """Give prompts, and contexts, within the source's ``length_tolerance`` of each other one length.

    Runs of the same nominal length differ by a few tokens in their means. Taken as they are, each would be a
    knot of its own, measured once. The order of points stays.
    """
    if not source.length_tolerance:
        return source
    isl = group((point.isl_tokens for point in source.prefill), source.length_tolerance)
    context = group((point.context_tokens for point in source.decode), source.length_tolerance)
    return replace(
        source,
        prefill=tuple(replace(p, isl_tokens=round(isl[p.isl_tokens])) for p in source.prefill),
        decode=tuple(replace(p, context_tokens=round(context[p.context_tokens], 1)) for p in source.decode),
    )


def group(values: Iterable[float], tolerance: float) -> dict[float, float]:
    """Map each value to the median of its group; a group reaches ``tolerance`` above its smallest value."""
    groups: list[list[float]] = []
    for value in sorted(values):
        if groups and value <= groups[-1][0] * (1.0 + tolerance):
            groups[-1].append(value)
        else:
            groups.append([value])
    return {value: statistics.median(members) for members in groups for value in members}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user says of the configuration to import; ``""`` and None say nothing.

    Model and GPU match whole or in part, in any case; ``config`` matches a part of what else
    configurations differ in.
    """

    model: str = ""
    gpu: str = ""
    tensor_parallel: int | None = None
    config: str = ""


def choose(path: Path, found: Sequence[Measurement], wanted: Wanted) -> Measurement:
    """Return the configuration wanted.

    Only what the source's configurations differ in chooses: on a source of one model, ``wanted.model`` is a
    label. Raises InputError listing the configurations when none or more than one is left.
    """
    by_text: tuple[tuple[str, str, Callable[[Measurement], str]], ...] = (
        ("--model", wanted.model, lambda one: one.model),
        ("--gpu", wanted.gpu, lambda one: one.gpu),
        ("--config", wanted.config, lambda one: one.variant),
    )
    left = list(found)
    for option, word, says in by_text:
        if word and (option == "--config" or len({says(one) for one in found}) > 1):
            whole = [one for one in left if says(one).casefold() == word.casefold()]
            left = whole or [one for one in left if word.casefold() in says(one).casefold()]
    if wanted.tensor_parallel is not None:
        # A source that does not say its tensor parallelism may have any.
        left = [one for one in left if one.tensor_parallel in {None, wanted.tensor_parallel}]
    if len(left) == 1:
        return left[0]
    given = [*((option, word) for option, word, _ in by_text), ("--tp", wanted.tensor_parallel)]
    asked = " ".join(f"{option} {word}" for option, word in given if word)
    names = list(dict.fromkeys(_words(one, found) for one in left or found))
    more = f"; and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    known = ", ".join(names[:_LISTED]) + more
    if left:
        raise InputError(f"{path}: {len(left)} configurations (choose one of: {known})")
    raise InputError(f"{path}: no configuration with {asked} (expected one of: {known})")


def _words(one: Measurement, found: Sequence[Measurement]) -> str:
    """Return the options that tell this configuration from the others."""
    identities = [(other.model, other.gpu, other.tensor_parallel) for other in found]
    own = (one.model, one.gpu, one.tensor_parallel)
    words = [
        f"{option} {_quoted(str(value))}"
        for option, value, values in zip(
            ("--model", "--gpu", "--tp"), own, zip(*identities, strict=True), strict=True
        )
        if value and len(set(values)) > 1
    ]
    if identities.count(own) > 1 and one.variant:
        words.append(f"--config {_quoted(one.variant)}")
    return " ".join(words) or f"--tp {one.tensor_parallel}"


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text
