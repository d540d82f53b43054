"""A profile: what one engine on one GPU type was measured to do, and the surfaces fitted to it.

The tree mirrors the YAML documents ``sagescale.profile/v1`` and ``/v2`` key by key (``document.py`` reads and
writes them; v2 adds the aggregated section and unequal lengths). Every part checks itself, so a profile that
exists is usable: knots increase, times are positive and never fall with more load.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

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
    increasing,
    knots,
    never_falls,
    not_negative,
    same_length,
)

SCHEMA = "sagescale.profile/v1"
SCHEMA_V2 = "sagescale.profile/v2"
"""A document is v2 where it has an aggregated section or knows unequal lengths, else v1."""

DEFAULT_MAX_NUM_SEQS = 256
"""Slots of a decode instance when the source does not say; always reported as assumed."""

DEFAULT_MAX_BATCHED_TOKENS = 2048
"""Tokens of a mixed step when the source does not say, as vLLM's default."""


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
    size holding the same KV tokens; above the last it is not padded. Empty: never padded. ``spread_ms[i]`` at
    ``spread_requests[i]`` is how much longer a step of so many requests takes for each token that the longest
    context is above the mean, straight between them and flat outside; empty: not known.
    """

    LIMITS: ClassVar[tuple[str, ...]] = ("max_num_seqs", "max_kv_tokens")

    gpus_per_instance: int
    concurrency: tuple[float, ...]
    context_tokens: tuple[float, ...]
    itl_ms: tuple[tuple[float, ...], ...]
    max_num_seqs: int = setting(
        DEFAULT_MAX_NUM_SEQS, doc="Slots of an instance.", unit="requests", needed=True
    )
    max_kv_tokens: int | None = None
    padded_batch_sizes: tuple[int, ...] = ()
    spread_requests: tuple[float, ...] = ()
    spread_ms: tuple[float, ...] = ()
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
        same_length(spread_requests=self.spread_requests, spread_ms=self.spread_ms)
        increasing("spread_requests", self.spread_requests, MAX_REQUESTS)
        for i, value in enumerate(self.spread_ms):
            not_negative(f"spread_ms[{i}]", value)
        for name in self.assumed:
            if name not in self.LIMITS:
                raise ValueError(f"assumed: '{name}' (expected {' or '.join(self.LIMITS)})")

    def but_assumed(self) -> dict[str, Any]:
        """Return what an aggregated section takes over, by name: everything but what was assumed."""
        return {
            item.name: getattr(self, item.name) for item in fields(DecodeProfile) if item.name != "assumed"
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatedMeasured:
    """Measured steps with prompt chunks in them, one row an index; sums are over the step's chunks.

    ``longest_tokens`` is the longest context of the step, decoding requests (before it) and chunks (with what
    they compute) alike; ``cross_tokens2`` is the sum of tokens x tokens already there, ``square_tokens2``
    that of tokens squared.
    """

    requests: tuple[float, ...] = setting((), doc="Requests decoding.", needed=True)
    kv_tokens: tuple[float, ...] = setting((), doc="They hold before the step.", unit="tokens", needed=True)
    chunk_tokens: tuple[float, ...] = setting((), doc="Of all chunks.", unit="tokens", needed=True)
    chunks: tuple[float, ...] = setting((), doc="Prompt chunks in the step.", needed=True)
    cross_tokens2: tuple[float, ...] = setting((), doc="Sum of c times p.", needed=True)
    square_tokens2: tuple[float, ...] = setting((), doc="Sum of c squared.", needed=True)
    longest_tokens: tuple[float, ...] = setting((), doc="Longest context.", unit="tokens", needed=True)
    step_ms: tuple[float, ...] = setting((), doc="Time of the step.", unit="ms", needed=True)

    def __post_init__(self) -> None:
        same_length(**{item.name: getattr(self, item.name) for item in fields(self)})
        all_positive("step_ms", self.step_ms, MAX_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepError:
    """How far steps of one kind are from their measurements, fitted to and (None: not tried) left out."""

    kind: str
    fitted: FitError
    left_out: FitError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatedProfile(DecodeProfile):
    """An instance that prefills and decodes: its decode steps, and what steps with prompt chunks take.

    Decode steps without chunks are those of the decode surface in it. A step of n decoding requests with K KV
    tokens and chunks of c tokens, p of their prompts already there, takes

        tokens_ms(n + sum c) + running_ms n + kv_ms K + cross_ms sum(c p) + square_ms sum(c^2) / 2
        + longest_ms (longest context)

    ``tokens_ms[i]`` at ``tokens[i]`` never falls, is straight between knots, flat before the first and goes
    on straight after the last. ``estimated``: made from a prefill curve and a decode surface, not measured.
    """

    LIMITS: ClassVar[tuple[str, ...]] = ("max_num_seqs", "max_kv_tokens", "max_batched_tokens")

    max_batched_tokens: int = DEFAULT_MAX_BATCHED_TOKENS
    tokens: tuple[float, ...] = setting((), doc="Knots of tokens_ms.", unit="tokens", needed=True)
    tokens_ms: tuple[float, ...] = setting((), doc="Time of so many tokens.", unit="ms", needed=True)
    running_ms: float = 0.0
    kv_ms: float = 0.0
    cross_ms: float = 0.0
    square_ms: float = 0.0
    longest_ms: float = 0.0
    estimated: bool = False
    measured_steps: AggregatedMeasured = AggregatedMeasured()
    step_errors: tuple[StepError, ...] = ()

    def __post_init__(self) -> None:
        DecodeProfile.__post_init__(self)
        at_least("max_batched_tokens", self.max_batched_tokens, 1, MAX_TOKENS)
        knots("tokens", self.tokens, MAX_TOKENS)
        same_length(tokens=self.tokens, tokens_ms=self.tokens_ms)
        all_positive("tokens_ms", self.tokens_ms, MAX_MS)
        never_falls("tokens_ms", self.tokens_ms, "tokens", self.tokens)
        for name in ("running_ms", "kv_ms", "cross_ms", "square_ms", "longest_ms"):
            not_negative(name, getattr(self, name))


Pool = TypeVar("Pool", bound=DecodeProfile)


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
    aggregated: AggregatedProfile | None = None
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
    def is_aggregated(self) -> bool:
        """Whether its engines are aggregated instances, as ``perf.aggregated_engines`` makes them."""
        return self.decode == self.aggregated

    @property
    def assumed(self) -> tuple[str, ...]:
        """Everything the source did not give and that was assumed instead, as words to report."""
        words = _assumed_words(self.decode)
        if self.aggregated is not None:
            known = set(words)
            own = [word for word in _assumed_words(self.aggregated) if word not in known]
            words += [f"aggregated {word}" for word in own]
        if self.kv_transfer.assumed and not self.is_aggregated:  # aggregated ones hand nothing over
            kv = self.kv_transfer
            words.append(f"kv_transfer {kv.latency_ms:g} ms + {kv.ms_per_1k_tokens:g} ms per 1000 tokens")
        return tuple(words)

    def with_limits(self, *, max_num_seqs: int | None = None, max_kv_tokens: int | None = None) -> Profile:
        """Return the profile with other limits of decoding; None keeps the profile's own.

        A limit given by the user is no longer assumed. Raises ValueError for a limit below 1.
        """
        given = {
            name
            for name, value in (("max_num_seqs", max_num_seqs), ("max_kv_tokens", max_kv_tokens))
            if value is not None
        }

        def limited(pool: Pool) -> Pool:
            return replace(
                pool,
                max_num_seqs=pool.max_num_seqs if max_num_seqs is None else max_num_seqs,
                max_kv_tokens=pool.max_kv_tokens if max_kv_tokens is None else max_kv_tokens,
                assumed=tuple(name for name in pool.assumed if name not in given),
            )

        aggregated = None if self.aggregated is None else limited(self.aggregated)
        return replace(self, decode=limited(self.decode), aggregated=aggregated)


def _assumed_words(pool: DecodeProfile) -> list[str]:
    limits = {name: getattr(pool, name) for name in pool.LIMITS if name in pool.assumed}
    return [f"{name} {'unlimited' if limit is None else limit}" for name, limit in limits.items()]
