"""What an importer hands over: measured points in common units, and what the source says of itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from sagescale.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagescale.perf.profile import SourceFile

__all__ = ["DecodePoint", "KvPoint", "Measurement", "PrefillPoint", "joined"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One configuration of one source. What the source does not say is ``""`` or None.

    ``variant`` tells configurations apart beyond model, GPU and tensor parallelism. Lengths within the share
    ``length_tolerance`` of each other are one length: they are means of runs.
    """

    origin: str
    format: str
    files: tuple[SourceFile, ...]
    prefill: tuple[PrefillPoint, ...] = ()
    decode: tuple[DecodePoint, ...] = ()
    kv_transfer: tuple[KvPoint, ...] = ()
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
