"""Public model shapes and GPUs that ``profile estimate`` knows by name, with where the figures are from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagescale.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What the roofline needs of a decoder-only transformer with grouped-query attention.

    ``parameters`` counts all, ``active_parameters`` those one token meets (fewer in a mixture of
    ``experts``); both include the token embedding and, unless ``tied``, the output head.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    parameters: float
    active_parameters: float
    experts: int = 1
    experts_per_token: int = 1
    tied: bool = False
    source: str = ""

    @property
    def table_parameters(self) -> float:
        """Embedding and output head, which are kept in 16 bits whatever the layers are in."""
        return float(self.vocab * self.hidden * (1 if self.tied else 2))

    @property
    def layer_parameters(self) -> float:
        """Parameters of all layers."""
        return self.parameters - self.table_parameters

    @property
    def active_layer_parameters(self) -> float:
        """Parameters of the layers that one token meets."""
        return self.active_parameters - self.table_parameters

    @property
    def expert_parameters(self) -> float:
        """Parameters in experts, of which a token meets ``experts_per_token / experts``; 0 without any."""
        idle = 1.0 - self.experts_per_token / self.experts
        return (self.parameters - self.active_parameters) / idle if idle else 0.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU's dense (not sparse) peaks. ``fp8_tflops`` None: no FP8 units, FP8 weights compute in bf16.

    ``memory_gib`` is what the driver reports; ``link_gb_s`` is one direction, to all other GPUs together.
    """

    name: str
    memory_gib: float
    bandwidth_gb_s: float
    bf16_tflops: float
    fp8_tflops: float | None
    link_gb_s: float
    source: str = ""


def transformer(
    name: str,
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    vocab: int,
    mlp: int,
    head_dim: int = 128,
    experts: int = 1,
    experts_per_token: int = 1,
    tied: bool = False,
    source: str = "",
) -> ModelShape:
    """Count the parameters of a gated-MLP transformer from its configuration (norms and biases left out).

    ``mlp`` is the intermediate size, of one expert in a mixture.
    """
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    expert = 3 * hidden * mlp
    router = hidden * experts if experts > 1 else 0
    tables = vocab * hidden * (1 if tied else 2)
    return ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        parameters=float(layers * (attention + router + experts * expert) + tables),
        active_parameters=float(layers * (attention + router + experts_per_token * expert) + tables),
        experts=experts,
        experts_per_token=experts_per_token,
        tied=tied,
        source=source or f"config.json of {name}",
    )


_LLAMA3, _QWEN2, _QWEN3 = 128256, 152064, 151936
"""Vocabularies."""

# fmt: off
_MODELS = (
    transformer("Llama-3.1-8B", layers=32, hidden=4096, heads=32, kv_heads=8, mlp=14336, vocab=_LLAMA3),
    transformer("Llama-3.3-70B", layers=80, hidden=8192, heads=64, kv_heads=8, mlp=28672, vocab=_LLAMA3),
    transformer("Llama-3.1-405B", layers=126, hidden=16384, heads=128, kv_heads=8, mlp=53248, vocab=_LLAMA3),
    transformer("Qwen2.5-7B", layers=28, hidden=3584, heads=28, kv_heads=4, mlp=18944, vocab=_QWEN2),
    transformer("Qwen2.5-14B", layers=48, hidden=5120, heads=40, kv_heads=8, mlp=13824, vocab=_QWEN2),
    transformer("Qwen2.5-32B", layers=64, hidden=5120, heads=40, kv_heads=8, mlp=27648, vocab=_QWEN2),
    transformer("Qwen2.5-72B", layers=80, hidden=8192, heads=64, kv_heads=8, mlp=29568, vocab=_QWEN2),
    transformer("Qwen3-8B", layers=36, hidden=4096, heads=32, kv_heads=8, mlp=12288, vocab=_QWEN3),
    transformer("Qwen3-14B", layers=40, hidden=5120, heads=40, kv_heads=8, mlp=17408, vocab=_QWEN3),
    transformer("Qwen3-32B", layers=64, hidden=5120, heads=64, kv_heads=8, mlp=25600, vocab=_QWEN3),
    transformer("Qwen3-30B-A3B", layers=48, hidden=2048, heads=32, kv_heads=4, mlp=768, vocab=_QWEN3,
                experts=128, experts_per_token=8),
    transformer("Mistral-7B-v0.3", layers=32, hidden=4096, heads=32, kv_heads=8, mlp=14336, vocab=32768),
    transformer("Mixtral-8x7B", layers=32, hidden=4096, heads=32, kv_heads=8, mlp=14336, vocab=32000,
                experts=8, experts_per_token=2),
)
# fmt: on

MODELS: dict[str, ModelShape] = {model.name: model for model in _MODELS}
"""Model shapes by name."""

_NVIDIA = "NVIDIA data sheet, dense peaks (half of those stated with sparsity)"

# fmt: off
_GPUS = (
    Gpu("a100-40gb", 40.0, 1555.0, 312.0, None, 300.0, f"{_NVIDIA}: A100 SXM"),
    Gpu("a100-80gb", 80.0, 2039.0, 312.0, None, 300.0, f"{_NVIDIA}: A100 SXM"),
    Gpu("h100", 79.6, 3350.0, 989.0, 1979.0, 450.0, f"{_NVIDIA}: H100 SXM"),
    Gpu("h200", 140.4, 4800.0, 989.0, 1979.0, 450.0, f"{_NVIDIA}: H200 SXM"),
    Gpu("l40s", 45.0, 864.0, 362.0, 733.0, 32.0, f"{_NVIDIA}: L40S (PCIe 4)"),
    Gpu("b200", 179.0, 7700.0, 2250.0, 4500.0, 900.0, f"{_NVIDIA}: HGX B200"),
    Gpu("mi300x", 191.9, 5300.0, 1307.4, 2614.9, 448.0, "AMD Instinct MI300X data sheet, dense peaks"),
)
"""In the order of the fields: memory, bandwidth, bf16 and fp8 peaks, link."""
# fmt: on

GPUS: dict[str, Gpu] = {gpu.name: gpu for gpu in _GPUS}
"""GPUs by name."""


def known_name(words: str, names: Iterable[str]) -> str | None:
    """Return the longest of ``names`` that ``words``, less an owner, begin with; None where none does.

    ``nvidia/Llama-3.3-70B-Instruct-FP8`` begins with Llama-3.3-70B, ``h100_sxm`` with h100.
    """
    plain = words.rpartition("/")[2].casefold()
    found = [
        name
        for name in names
        if plain.startswith(name.casefold()) and not plain[len(name) : len(name) + 1].isalnum()
    ]
    return max(found, key=len, default=None)


def find_model(name: str) -> ModelShape:
    """Return a model by name in any case, with or without its owner and ``-Instruct``.

    Raises InputError listing the known ones.
    """
    plain = name.rpartition("/")[2].casefold().removesuffix("-instruct")
    for model in MODELS.values():
        if model.name.casefold() == plain:
            return model
    raise InputError(
        f"model '{name}': shape not known (expected one of: {', '.join(MODELS)}; or its numbers: "
        f"--parameters, --layers, --hidden, --heads, --kv-heads, --head-dim){did_you_mean(name, MODELS)}"
    )


def find_gpu(name: str) -> Gpu:
    """Return a GPU by name in any case. Raises InputError listing the known ones."""
    found = GPUS.get(name.casefold())
    if found is None:
        raise InputError(
            f"GPU '{name}': not known (expected one of: {', '.join(GPUS)}; or its numbers: --memory-gib, "
            f"--bandwidth-gb-s, --bf16-tflops){did_you_mean(name.casefold(), GPUS)}"
        )
    return found
