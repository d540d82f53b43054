"""A profile from arithmetic alone: how fast a model's shape lets a GPU be, at efficiencies that are assumed.

With ``P`` the parameters a token meets in the layers, ``H d`` query heads times their size, ``L`` layers,
``T`` GPUs of ``F`` FLOP/s and ``B`` bytes/s, weights of ``W`` bytes and KV of ``k`` bytes a token:

* prefill of S tokens: the larger of launching its kernels and
  ``max(2 P S / (e_c F T), W / (e_m B T)) + 2 L H d S^2 / (e_a F16 T) + step overhead + all-reduces``;
  the attention term is half of ``4 L H d S^2`` because it is causal;
* decode step of n requests of c tokens: ``max(W(n) / (e_m B T), 2 P n / (e_c F T)) + n c k / (e_m B T)
  + step overhead + n * request overhead + all-reduces``. ``W(n)`` counts the experts that n tokens touch.

Weights and attention run one after the other, so their times add. Williams, Waterman and Patterson,
"Roofline: an insightful visual performance model", CACM 52(4), 2009.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.catalogue import GPUS, MODELS, known_name
from sagescale.perf.fit.regression import round_digits
from sagescale.perf.profile import DEFAULT_MAX_NUM_SEQS, DecodeProfile, PrefillProfile, Profile, Source

if TYPE_CHECKING:
    from sagescale.perf.catalogue import Gpu, ModelShape

PRECISIONS = {"bf16": 2.0, "fp8": 1.0}
"""Bytes of a layer's weight."""

_TABLE_BYTES = 2.0
_KV_BYTES = 2.0
_ACTIVATION_BYTES = 2.0
_GIB = 1024.0**3

_ISL = (16, 64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768)
_CONTEXTS = (64, 512, 1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What arithmetic cannot know. The defaults were set by eye on the two measured H200 profiles."""

    compute_efficiency: float = 0.5
    attention_efficiency: float = 0.35
    memory_efficiency: float = 0.8
    link_efficiency: float = 0.7
    step_ms_per_layer: float = 0.065
    request_ms: float = 0.03
    launch_ms_per_layer: float = 0.4
    all_reduce_ms: float = 0.01
    memory_used: float = 0.9
    reserved_gib: float = 2.0

    def __post_init__(self) -> None:
        for name in ("compute_efficiency", "attention_efficiency", "memory_efficiency", "link_efficiency"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise InputError(f"{name}: {getattr(self, name)} (expected above 0, at most 1)")
        if not 0.0 < self.memory_used <= 1.0:
            raise InputError(f"memory_used: {self.memory_used} (expected above 0, at most 1)")

    def __str__(self) -> str:
        words = (f"{item.name} {getattr(self, item.name):g}" for item in fields(self))
        return ", ".join(words)


def estimate_profile(
    shape: ModelShape,
    gpu: Gpu,
    *,
    precision: str = "bf16",
    tensor_parallel: int = 1,
    max_num_seqs: int = DEFAULT_MAX_NUM_SEQS,
    assumptions: Assumptions | None = None,
    name: str = "",
    command: str = "",
) -> Profile:
    """Estimate a profile; it says of itself that it is one, and on which assumptions.

    Prefill and decode instances have ``tensor_parallel`` GPUs each. KV and activations are 16 bits. Raises
    InputError for an unknown precision, or when the weights leave no room for one request.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision '{precision}': unknown (expected one of: {', '.join(PRECISIONS)})")
    if tensor_parallel < 1 or shape.heads % tensor_parallel:
        raise InputError(f"tensor parallel {tensor_parallel}: does not divide {shape.heads} heads")
    roofline = _Roofline(shape, gpu, precision, tensor_parallel, assumptions or Assumptions())
    kv_tokens = roofline.max_kv_tokens()
    loads = tuple(sorted({2**i for i in range(max_num_seqs.bit_length())} | {2, max_num_seqs}))
    return Profile(
        name=name or f"estimate-{gpu.name}-{shape.name}-{precision}-tp{tensor_parallel}".lower(),
        model=shape.name,
        gpu=gpu.name,
        engine="none",
        precision=precision,
        tensor_parallel=tensor_parallel,
        source=Source(
            title="Roofline estimate: nothing was measured",
            description=f"Model: {shape.source or 'numbers given'}. GPU: {gpu.source or 'numbers given'}",
            tool="sagescale profile estimate",
            format="estimate",
            command=command,
        ),
        prefill=PrefillProfile(
            gpus_per_instance=tensor_parallel,
            isl_tokens=tuple(map(float, _ISL)),
            ttft_ms=tuple(round_digits(roofline.prefill_ms(isl)) for isl in _ISL),
            quadratic_ms=round_digits(roofline.attention_ms(1.0)),
        ),
        decode=DecodeProfile(
            gpus_per_instance=tensor_parallel,
            concurrency=tuple(map(float, loads)),
            context_tokens=tuple(map(float, _CONTEXTS)),
            itl_ms=tuple(tuple(round_digits(roofline.step_ms(n, c)) for c in _CONTEXTS) for n in loads),
            max_num_seqs=max_num_seqs,
            max_kv_tokens=kv_tokens,
            assumed=("max_num_seqs", "max_kv_tokens"),
        ),
        notes=(
            "an estimate: measure the engine before trusting a plan to it",
            f"assumed: {roofline.assumed}",
        ),
    )


def estimate_of(profile: Profile) -> Profile:
    """Estimate the engine that a profile is of, from its identity alone: no time in it is looked at.

    Slots and KV memory are the profile's: an engine is started with them, they are not measured. Raises
    InputError where its model or GPU is not in the catalogue.
    """
    model, gpu = known_name(profile.model, MODELS), known_name(profile.gpu, GPUS)
    if model is None or gpu is None:
        raise InputError(
            f"profile {profile.name}: model '{profile.model}' on '{profile.gpu}' is not one of those known "
            "(see `sagescale profile estimate --help`): give --profile"
        )
    estimate = estimate_profile(
        MODELS[model],
        GPUS[gpu],
        precision=profile.precision,
        tensor_parallel=profile.tensor_parallel,
        max_num_seqs=profile.decode.max_num_seqs,
    )
    return estimate.with_limits(max_num_seqs=None, max_kv_tokens=profile.decode.max_kv_tokens)


class _Roofline:
    """The formulas of the module's docstring for one model on one instance; times in ms."""

    def __init__(
        self, shape: ModelShape, gpu: Gpu, precision: str, tensor_parallel: int, assumed: Assumptions
    ) -> None:
        self.shape, self.gpu, self.gpus, self.assumed = shape, gpu, tensor_parallel, assumed
        self.weight_bytes = PRECISIONS[precision]
        peak = gpu.fp8_tflops if precision == "fp8" and gpu.fp8_tflops else gpu.bf16_tflops
        self.flop_ms = 1.0 / (peak * 1e9 * assumed.compute_efficiency * tensor_parallel)
        self.attention_flop_ms = 1.0 / (
            gpu.bf16_tflops * 1e9 * assumed.attention_efficiency * tensor_parallel
        )
        self.byte_ms = 1.0 / (gpu.bandwidth_gb_s * 1e6 * assumed.memory_efficiency * tensor_parallel)
        # KV heads cannot be split further than one a GPU; beyond that they are copied.
        self.kv_shards = min(tensor_parallel, shape.kv_heads)
        self.kv_token_bytes = 2.0 * shape.layers * shape.kv_heads * shape.head_dim * _KV_BYTES

    def prefill_ms(self, tokens: int) -> float:
        """One prompt alone."""
        compute = 2.0 * self.shape.active_layer_parameters * tokens * self.flop_ms
        memory = self.weights_read(tokens) * self.byte_ms
        time = max(compute, memory) + self.attention_ms(tokens) + self.step_overhead_ms(tokens)
        return max(time, self.assumed.launch_ms_per_layer * self.shape.layers)

    def attention_ms(self, tokens: float) -> float:
        """Causal attention of one prompt."""
        width = self.shape.heads * self.shape.head_dim
        return 2.0 * self.shape.layers * width * tokens**2 * self.attention_flop_ms

    def step_ms(self, n: int, context: float) -> float:
        """One decode step."""
        head = self.shape.vocab * self.shape.hidden
        compute = 2.0 * (self.shape.active_layer_parameters + head) * n * self.flop_ms
        weights = max(compute, self.weights_read(n) * self.byte_ms)
        kv = n * context * self.kv_token_bytes * self.byte_ms * self.gpus / self.kv_shards
        return weights + kv + self.step_overhead_ms(n) + n * self.assumed.request_ms

    def step_overhead_ms(self, tokens: float) -> float:
        """What kernels and the all-reduces (two a layer, ring) cost beside arithmetic."""
        own = self.assumed.step_ms_per_layer * self.shape.layers
        if self.gpus == 1:
            return own
        sent = tokens * self.shape.hidden * _ACTIVATION_BYTES * 2.0 * (self.gpus - 1) / self.gpus
        one = self.assumed.all_reduce_ms + sent / (self.gpu.link_gb_s * 1e6 * self.assumed.link_efficiency)
        return own + 2.0 * self.shape.layers * one

    def weights_read(self, tokens: int) -> float:
        """Bytes of weights that a step of so many tokens reads: all, or of experts those that are met."""
        shape = self.shape
        missed = (1.0 - shape.experts_per_token / shape.experts) ** tokens if shape.experts > 1 else 0.0
        layers = shape.layer_parameters - shape.expert_parameters * missed
        return layers * self.weight_bytes + shape.vocab * shape.hidden * _TABLE_BYTES

    def max_kv_tokens(self) -> int:
        """Return what is left of memory beside weights and reserve, in KV tokens."""
        memory = (
            (self.gpu.memory_gib * self.assumed.memory_used - self.assumed.reserved_gib) * _GIB * self.gpus
        )
        weights = self.shape.layer_parameters * self.weight_bytes + self.shape.table_parameters * _TABLE_BYTES
        # A model's tables and layers are split over its GPUs; so is KV, as far as it has heads.
        tokens = int((memory - weights) / self.kv_token_bytes * self.kv_shards / self.gpus)
        if tokens < 1:
            there = f"{self.gpus} x {self.gpu.name} have {max(memory, 0.0) / _GIB:.1f} GiB for them"
            raise InputError(
                f"{self.shape.name}: {weights / _GIB:.1f} GiB of weights, {there} (expected more; raise --tp)"
            )
        return tokens
