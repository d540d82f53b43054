"""A profile: what one engine on one GPU type was measured to do, and the surfaces fitted to it.

The tree mirrors the YAML document ``sagescale.profile/v1`` key by key (``document.py`` reads and writes
it). Every part checks itself, so a profile that exists is usable: knots increase, times are positive
and never fall with more load.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

from sagescale.declare import setting
from sagescale.perf.checks import (
    MAX_GPUS,
    MAX_KV_TOKENS,
    MAX_MS,
    MAX_REQUESTS,
    MAX_TABLE,
    MAX_TOKENS,
    all_positive,
    at_least,
    knots,
    never_falls,
    not_negative,
    same_length,
)

__all__ = [
    "DEFAULT_MAX_NUM_SEQS",
    "SCHEMA",
    "DecodeMeasured",
    "DecodeProfile",
    "FitError",
    "KvTransfer",
    "PrefillMeasured",
    "PrefillProfile",
    "Profile",
    "Source",
    "SourceFile",
]

SCHEMA = "sagescale.profile/v1"

DEFAULT_MAX_NUM_SEQS = 256
"""Slots of a decode instance when the source does not say; always reported as assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file the profile was built from: its base name and the sha256 of its bytes."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the numbers come from, and the command that builds the profile from them again."""

    title: str = ""
    description: str = ""
    licence: str = ""
    tool: str = ""
    tool_version: str = ""
    format: str = ""
    command: str = ""
    files: tuple[SourceFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FitError:
    """Relative error ``|fitted - measured| / measured`` over ``n`` measured points."""

    n: int
    median: float
    p90: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillMeasured:
    """Measured batches of ``batch`` equal prompts of ``isl_tokens`` each, one row an index."""

    isl_tokens: tuple[int, ...] = setting((), doc="Of each prompt.", unit="tokens", needed=True)
    batch: tuple[int, ...] = setting((), doc="Prompts in the batch.", needed=True)
    ttft_ms: tuple[float, ...] = setting((), doc="Time of the batch.", unit="ms", needed=True)

    def __post_init__(self) -> None:
        same_length(isl_tokens=self.isl_tokens, batch=self.batch, ttft_ms=self.ttft_ms)
        all_positive("isl_tokens", self.isl_tokens, MAX_TOKENS)
        all_positive("batch", self.batch, MAX_REQUESTS)
        all_positive("ttft_ms", self.ttft_ms, MAX_MS)

    @property
    def alone(self) -> tuple[tuple[int, float], ...]:
        """Prompt tokens and TTFT in ms of every prompt measured alone."""
        rows = zip(self.isl_tokens, self.batch, self.ttft_ms, strict=True)
        return tuple((isl, ms) for isl, batch, ms in rows if batch == 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeMeasured:
    """Measured decode points as used by the fit (concurrency after Little's law), one row an index."""

    concurrency: tuple[float, ...] = setting((), doc="Requests decoding.", unit="requests", needed=True)
    context_tokens: tuple[float, ...] = setting((), doc="Mean of a request.", unit="tokens", needed=True)
    itl_ms: tuple[float, ...] = setting((), doc="Time of a step.", unit="ms", needed=True)

    def __post_init__(self) -> None:
        same_length(concurrency=self.concurrency, context_tokens=self.context_tokens, itl_ms=self.itl_ms)
        all_positive("concurrency", self.concurrency, MAX_REQUESTS)
        all_positive("context_tokens", self.context_tokens, MAX_TOKENS)
        all_positive("itl_ms", self.itl_ms, MAX_MS)

    @property
    def points(self) -> tuple[tuple[float, float, float], ...]:
        """Concurrency, context tokens and ITL in ms of every row."""
        return tuple(zip(self.concurrency, self.context_tokens, self.itl_ms, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillProfile:
    """Prefill of one prompt measured alone: ``ttft_ms[i]`` at ``isl_tokens[i]``.

    ``quadratic_ms`` is the attention coefficient b in ms per token squared. ``floor_ms`` bounds every
    batch from below; None takes the fitted curve at one token.
    """

    gpus_per_instance: int
    isl_tokens: tuple[float, ...]
    ttft_ms: tuple[float, ...]
    quadratic_ms: float = 0.0
    floor_ms: float | None = None
    measured: PrefillMeasured = PrefillMeasured()
    fit_error: FitError | None = None
    batch_error: FitError | None = None

    def __post_init__(self) -> None:
        at_least("gpus_per_instance", self.gpus_per_instance, 1, MAX_GPUS)
        same_length(isl_tokens=self.isl_tokens, ttft_ms=self.ttft_ms)
        knots("isl_tokens", self.isl_tokens, MAX_TOKENS)
        all_positive("ttft_ms", self.ttft_ms, MAX_MS)
        never_falls("ttft_ms", self.ttft_ms, "isl_tokens", self.isl_tokens)
        not_negative("quadratic_ms", self.quadratic_ms)
        if self.floor_ms is not None and not 0 < self.floor_ms <= self.ttft_ms[0]:
            raise ValueError(
                f"floor_ms: {self.floor_ms} (expected above 0, at most the first ttft_ms {self.ttft_ms[0]})"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeProfile:
    """Decode step times: ``itl_ms[i][j]`` at ``concurrency[i]`` requests of ``context_tokens[j]`` each.

    ``assumed`` names the limits (``max_num_seqs``, ``max_kv_tokens``) that the source does not give.
    ``padded_batch_sizes``: a batch is padded up to the next of these (CUDA graphs) and costs a step of that
    size holding the same KV tokens; above the last it is not padded. Empty: never padded.
    """

    gpus_per_instance: int
    concurrency: tuple[float, ...]
    context_tokens: tuple[float, ...]
    itl_ms: tuple[tuple[float, ...], ...]
    max_num_seqs: int = setting(
        DEFAULT_MAX_NUM_SEQS, doc="Slots of an instance.", unit="requests", needed=True
    )
    max_kv_tokens: int | None = None
    padded_batch_sizes: tuple[int, ...] = ()
    assumed: tuple[str, ...] = ()
    measured: DecodeMeasured = DecodeMeasured()
    fit_error: FitError | None = None

    def __post_init__(self) -> None:
        at_least("gpus_per_instance", self.gpus_per_instance, 1, MAX_GPUS)
        at_least("max_num_seqs", self.max_num_seqs, 1, MAX_REQUESTS)
        if self.max_kv_tokens is not None:
            at_least("max_kv_tokens", self.max_kv_tokens, 1, MAX_KV_TOKENS)
        if self.padded_batch_sizes:
            at_least("padded_batch_sizes[0]", self.padded_batch_sizes[0], 1, MAX_REQUESTS)
            at_least("padded_batch_sizes[-1]", self.padded_batch_sizes[-1], 1, MAX_REQUESTS)
            if any(a >= b for a, b in itertools.pairwise(self.padded_batch_sizes)):
                raise ValueError(
                    f"padded_batch_sizes: {list(self.padded_batch_sizes)} (expected numbers that increase)"
                )
        knots("concurrency", self.concurrency, MAX_REQUESTS)
        knots("context_tokens", self.context_tokens, MAX_TOKENS)
        if self.max_num_seqs * len(self.context_tokens) > MAX_TABLE:
            raise ValueError(
                f"max_num_seqs: {self.max_num_seqs} at {len(self.context_tokens)} contexts "
                f"(expected at most {MAX_TABLE} of both together)"
            )
        if len(self.itl_ms) != len(self.concurrency):
            raise ValueError(
                f"itl_ms: {len(self.itl_ms)} rows (expected {len(self.concurrency)}, one per concurrency)"
            )
        for i, row in enumerate(self.itl_ms):
            name = f"itl_ms[{i}]"
            if len(row) != len(self.context_tokens):
                raise ValueError(
                    f"{name}: {len(row)} values (expected {len(self.context_tokens)}, one per context)"
                )
            all_positive(name, row, MAX_MS)
            never_falls(name, row, "context_tokens", self.context_tokens)
        for j, context in enumerate(self.context_tokens):
            column = [row[j] for row in self.itl_ms]
            never_falls(f"itl_ms at context {context:g}", column, "concurrency", self.concurrency)
        for name in self.assumed:
            if name not in {"max_num_seqs", "max_kv_tokens"}:
                raise ValueError(f"assumed: '{name}' (expected max_num_seqs or max_kv_tokens)")


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTransfer:
    """Cost of handing a request's KV cache from prefill to decode.

    ``latency_ms + isl * ms_per_1k_tokens / 1000 + decode_steps * (current step of the receiver)``.
    ``blocks_prefill``: the prefill instance waits for the copies. ``assumed``: nothing was measured.
    """

    latency_ms: float = setting(0.0, doc="Fixed part.", unit="ms", needed=True)
    ms_per_1k_tokens: float = setting(0.0, doc="For every 1000 tokens.", unit="ms", needed=True)
    decode_steps: float = 0.0
    blocks_prefill: bool = False
    assumed: bool = True

    def __post_init__(self) -> None:
        for name in ("latency_ms", "ms_per_1k_tokens", "decode_steps"):
            not_negative(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One engine, model and GPU: identity, source, and what each pool's instances do."""

    name: str
    model: str = ""
    gpu: str = ""
    engine: str = ""
    engine_version: str = ""
    precision: str = ""
    tensor_parallel: int = 1
    source: Source = Source()
    prefill: PrefillProfile
    decode: DecodeProfile
    kv_transfer: KvTransfer = KvTransfer()
    join_ms_per_1k_tokens: float = 0.0
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name: '' (expected a name)")
        at_least("tensor_parallel", self.tensor_parallel, 1, MAX_GPUS)
        not_negative("join_ms_per_1k_tokens", self.join_ms_per_1k_tokens)

    @property
    def is_estimate(self) -> bool:
        """Whether it was computed (``profile estimate``) and nothing was measured."""
        return self.source.format == "estimate"

    @property
    def assumed(self) -> tuple[str, ...]:
        """Everything the source did not give and that was assumed instead, as words to report."""
        words = []
        if "max_num_seqs" in self.decode.assumed:
            words.append(f"max_num_seqs {self.decode.max_num_seqs}")
        if "max_kv_tokens" in self.decode.assumed:
            limit = self.decode.max_kv_tokens
            words.append(f"max_kv_tokens {'unlimited' if limit is None else limit}")
        if self.kv_transfer.assumed:
            kv = self.kv_transfer
            words.append(f"kv_transfer {kv.latency_ms:g} ms + {kv.ms_per_1k_tokens:g} ms per 1000 tokens")
        return tuple(words)

    def with_limits(self, *, max_num_seqs: int | None = None, max_kv_tokens: int | None = None) -> Profile:
        """Return the profile with other decode limits; None keeps the profile's own.

        A limit given by the user is no longer assumed. Raises ValueError for a limit below 1.
        """
        given = {
            name
            for name, value in (("max_num_seqs", max_num_seqs), ("max_kv_tokens", max_kv_tokens))
            if value is not None
        }
        decode = replace(
            self.decode,
            max_num_seqs=self.decode.max_num_seqs if max_num_seqs is None else max_num_seqs,
            max_kv_tokens=self.decode.max_kv_tokens if max_kv_tokens is None else max_kv_tokens,
            assumed=tuple(name for name in self.decode.assumed if name not in given),
        )
        return replace(self, decode=decode)
