"""The simulator's own keys: what the modelled cluster does, beside the autoscaler's."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from sagescale.declare import check, setting
from sagescale.errors import InputError
from sagescale.sim.startup import StartupDelay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagescale.perf import Profile
    from sagescale.planner import Serving

T = TypeVar("T")

SchedulingPolicy = Literal["fifo", "priority", "slo_aware", "adaptive"]
"""In which order an instance, of either pool, serves the requests that wait for it."""

RoutingStrategy = Literal[
    "load_balanced", "least_tokens", "round_robin", "kv_aware", "prefix_affinity", "session_affinity"
]
"""Which READY instance of a pool a request goes to."""

EngineScheduler = Literal["batch", "vllm", "sglang"]
"""What forms an instance's batches or steps."""

ItlStatistic = Literal["mean", "p99", "max"]
"""Which of a request's gaps between tokens the ITL target binds."""

ScaleDownChoice = Literal["least_outstanding", "least_cache_hits"]

_MOST_PRICE = 1e9
_PRICE_EXPECTED = (
    f"expected the price of a GPU-hour, 0 to {_MOST_PRICE:g}, or one by GPU type: h100:2.5,h200:3.2"
)


@dataclass(frozen=True, slots=True)
class GpuHourPrice:
    """Prices by GPU type in lower case, in any one currency; ``""`` is that of every other type."""

    prices: tuple[tuple[str, float], ...]

    @classmethod
    def parse(cls, value: object) -> GpuHourPrice | None:
        """Read ``2.5``, ``h100:2.5,h200:3.2`` or a mapping from GPU type to price; null is no price.

        Raises:
            ValueError: with what was expected, as one line.
        """
        if value is None or isinstance(value, cls):
            return value
        if isinstance(value, dict):
            return cls(_prices(value))
        if isinstance(value, str) and ":" in value:
            return cls(_prices(dict(part.partition(":")[::2] for part in value.split(","))))
        return cls(_prices({"": value}))

    def of(self, gpu: str) -> float:
        """Return the price of an hour of a GPU.

        Raises:
            InputError: there is none for it.
        """
        prices = dict(self.prices)
        found = prices.get(gpu.lower(), prices.get(""))
        if found is None:
            raise InputError(
                f"gpu_hour_price: has {', '.join(prices)}, and the profile's GPU is {gpu or 'not named'}; "
                f"expected gpu_hour_price={gpu.lower() or 'TYPE'}:PRICE, or one number for all"
            )
        return found

    def __str__(self) -> str:
        return ",".join(f"{gpu}:{price:g}" if gpu else f"{price:g}" for gpu, price in self.prices)


def _prices(given: Mapping[object, object]) -> tuple[tuple[str, float], ...]:
    prices = []
    for gpu, item in given.items():
        price = getattr(item, "plain", item)  # a value from a file remembers its line
        if isinstance(price, bool) or not isinstance(price, int | float | str):
            raise ValueError(_PRICE_EXPECTED)  # noqa: TRY004  # the protocol of settings.setting(parse=...)
        try:
            number = float(price)
        except ValueError:
            raise ValueError(_PRICE_EXPECTED) from None
        if not 0.0 <= number <= _MOST_PRICE:
            raise ValueError(_PRICE_EXPECTED)
        prices.append((str(gpu).strip().lower(), number))
    if not prices:
        raise ValueError(_PRICE_EXPECTED)
    return tuple(prices)


_SPANS_EXPECTED = "expected start:end,start:end in seconds, each start before its end"


@dataclass(frozen=True, slots=True)
class TimeSpans:
    """Half-open spans ``[start, end)`` in seconds."""

    spans: tuple[tuple[float, float], ...]

    @classmethod
    def parse(cls, value: object) -> TimeSpans:
        """Read ``600:1200,1800:1900``; empty text is no span.

        Raises:
            ValueError: with what was expected, as one line.
        """
        if isinstance(value, cls):
            return value
        if value is None:
            return cls(())
        if not isinstance(value, str):
            raise ValueError(_SPANS_EXPECTED)  # noqa: TRY004  # the protocol of settings.setting(parse=...)
        spans = []
        for part in filter(None, value.split(",")):
            start, _, end = part.partition(":")
            try:
                span = (float(start), float(end))
            except ValueError:
                raise ValueError(_SPANS_EXPECTED) from None
            if not (0 <= span[0] < span[1] < math.inf):
                raise ValueError(_SPANS_EXPECTED)
            spans.append(span)
        return cls(tuple(spans))

    def __contains__(self, time_s: float) -> bool:
        return any(start <= time_s < end for start, end in self.spans)

    def __str__(self) -> str:
        return ",".join(f"{start:g}:{end:g}" for start, end in self.spans)


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """The modelled cluster; flat keys in the same YAML file as the autoscaler's.

    ``None`` takes the profile's own value.

    Raises:
        InputError: a value is refused; the message names the key, the value and what is accepted.
    """

    startup_delay_s: StartupDelay = setting(
        StartupDelay("constant", (60.0,)),
        doc="Launch to ready: seconds, uniform:low=A,high=B or lognormal:median=A,p90=B.",
        unit="s",
        parse=StartupDelay.parse,
        expected="seconds, uniform:low=A,high=B or lognormal:median=A,p90=B",
        schema={"type": ["number", "string"]},
    )
    gpu_hour_price: GpuHourPrice | None = setting(
        None,
        doc="Price of a GPU-hour, or by GPU type (h100:2.5,h200:3.2): reports put money beside hours.",
        parse=GpuHourPrice.parse,
        expected="a number of 0 or more, or TYPE:PRICE,TYPE:PRICE, or null",
        schema={"type": ["number", "string", "object", "null"]},
    )
    initial_prefill: int | None = setting(
        None,
        doc="Prefill instances ready at the start; null sizes for the true load at the start.",
        unit="instances",
        at_least=0,
    )
    initial_decode: int | None = setting(
        None,
        doc="Decode instances ready at the start; null sizes for the true load at the start.",
        unit="instances",
        at_least=0,
    )
    initial_instances: int | None = setting(
        None,
        doc="Aggregated instances ready at the start; null sizes for the true load at the start.",
        unit="instances",
        at_least=0,
    )
    engine_scheduler: EngineScheduler | None = setting(
        None,
        doc="How engines form batches: batch keeps prefill and decode apart, vllm and sglang take one step "
        "after the other; null is batch, and vllm of aggregated instances, which have no batch.",
    )
    max_batch_tokens: int = setting(
        8192,
        doc="Prompt tokens of one prefill batch; a longer prompt makes a batch of its own. Of "
        "engine_scheduler batch, and refused with another.",
        unit="tokens",
        at_least=1,
        at_most=1_000_000,
    )
    max_batched_tokens: int = setting(
        2048,
        doc="Tokens of one step of vllm or sglang, at least max_num_seqs; unset means the profile's where it "
        "has some.",
        unit="tokens",
        at_least=1,
        at_most=1_000_000,
    )
    long_prefill_token_threshold: int = setting(
        0,
        doc="Tokens of one prompt in a step of vllm or sglang, at most; 0 is max_batched_tokens.",
        unit="tokens",
        at_least=0,
        at_most=1_000_000,
    )
    chunked_prefill: bool = setting(
        True, doc="Whether steps of vllm and sglang may take a prompt in parts (false: whole or not at all)."
    )
    mixed_chunk: bool = setting(
        False, doc="Whether a step of sglang that prefills also decodes, as those of vllm do."
    )
    reserve_full_isl: bool = setting(
        True, doc="Whether vllm admits a request only when KV memory for all of its prompt is free."
    )
    kv_block_tokens: int = setting(
        16, doc="Tokens of a block of KV memory of vllm and sglang.", unit="tokens", at_least=1, at_most=65536
    )
    prefix_cache: bool = setting(
        False,
        doc="Whether instances of vllm and sglang keep prompts' KV for the next one that begins alike, as "
        "the trace's block hashes say.",
    )
    max_num_seqs: int | None = setting(
        None,
        doc="Slots of a decode or aggregated instance; null is the profile's.",
        unit="requests",
        at_least=1,
        at_most=16384,
    )
    max_kv_tokens: int | None = setting(
        None,
        doc="KV memory of a decode or aggregated instance; null is the profile's.",
        unit="tokens",
        at_least=1,
        at_most=10**12,
    )
    kv_transfer_latency_ms: float | None = setting(
        None, doc="Fixed part of a KV hand-off; null is the profile's.", unit="ms", at_least=0, at_most=1e6
    )
    kv_transfer_ms_per_1k_tokens: float | None = setting(
        None,
        doc="KV hand-off for every 1000 prompt tokens; null is the profile's.",
        unit="ms",
        at_least=0,
        at_most=1e6,
    )
    kv_transfer_decode_steps: float | None = setting(
        None,
        doc="Part of a KV hand-off that waits for the receiver's step; null is the profile's.",
        unit="steps",
        at_least=0,
        at_most=1e4,
    )
    kv_transfer_blocks_prefill: bool | None = setting(
        None, doc="Whether hand-offs hold the prefill instance, one after the other; null is the profile's."
    )
    join_ms_per_1k_tokens: float | None = setting(
        None,
        doc="What every 1000 prompt tokens that join add to a decode step; null is the profile's.",
        unit="ms",
        at_least=0,
        at_most=1e6,
    )
    first_token: Literal["prefill", "decode"] = setting(
        "prefill", doc="Which pool streams the first token; decode is how several proxies work."
    )
    scheduling_policy: SchedulingPolicy = setting(
        "fifo", doc="Who is next among those that wait at an instance (docs/simulator.md)."
    )
    routing_strategy: RoutingStrategy = setting(
        "load_balanced", doc="Which ready instance a request goes to, in every pool (docs/simulator.md)."
    )
    overlap_credit: float = setting(
        1.0,
        doc="What a cached block takes off an instance's cost with routing_strategy kv_aware, in blocks.",
        at_least=0,
        at_most=100,
    )
    prefill_load_scale: float = setting(
        1.0,
        doc="Weight of blocks to prefill beside those held for decoding with routing_strategy kv_aware.",
        at_least=0,
        at_most=1000,
    )
    router_temperature: float = setting(
        0.0,
        doc="Of the softmax that kv_aware draws an instance by; 0 takes the least cost.",
        at_least=0,
        at_most=1000,
    )
    router_staleness_s: float = setting(
        0.0,
        doc="Routers know load and caches as of the last multiple of this, and what they routed since; 0 is "
        "now.",
        unit="s",
        at_least=0,
        at_most=3600,
    )
    affinity_max_load: float = setting(
        1.5,
        doc="With session_affinity a session goes elsewhere where its instance has more than this times the "
        "mean load.",
        at_least=1,
        at_most=1000,
    )
    scale_down_choice: ScaleDownChoice = setting(
        "least_outstanding",
        doc="Which ready instance a scale-down drains: with the fewest outstanding tokens, or whose prefix "
        "cache has lately hit the fewest tokens.",
    )
    itl_statistic: ItlStatistic = setting(
        "mean",
        doc="Which of a request's gaps between tokens target_itl_ms binds: their mean (the guide's), "
        "their p99 or the largest.",
    )
    measure_gaps: bool = setting(
        False,
        doc="Whether gaps between tokens are measured for engines of scheduler batch too, as they are for "
        "others and for itl_statistic p99 and max: a run takes longer.",
    )
    prefix_hit_rate: float = setting(
        0.0,
        doc="Share of each prompt found in the prefix cache, for traces without cached_tokens. Block hashes "
        "are not gone by: prefix_cache does that, and is refused beside it.",
        at_least=0,
        below=1,
    )
    open_loop: bool = setting(
        False,
        doc="Whether turns of sessions arrive when the trace says; false: a time to think after the answer "
        "they wait for, as the trace says with after and think_s.",
    )
    concurrent_sessions: int | None = setting(
        None,
        doc="A closed population: sessions alive at a time, the next one begins as one ends; null begins "
        "them when the trace says.",
        unit="sessions",
        at_least=1,
        at_most=10**9,
    )
    request_timeout_s: float | None = setting(
        None, doc="A request without its first token by then gives up; null is never.", unit="s", above=0
    )
    until_s: float = setting(
        0.0, doc="Simulate at least this long, traffic or not.", unit="s", at_least=0, at_most=1e9
    )
    scrape_delay_s: float = setting(
        0.0, doc="Age of the metrics the planner sees at its tick.", unit="s", at_least=0, at_most=1e6
    )
    metric_outage_s: TimeSpans = setting(
        TimeSpans(()),
        doc="When no metric is known, as start:end,start:end.",
        unit="s",
        parse=TimeSpans.parse,
        expected="start:end,start:end in seconds",
        schema={"type": "string"},
    )
    simulation_seed: int = setting(0, doc="Seed of whatever is drawn: startup delays, routing.", at_least=0)

    def __post_init__(self) -> None:
        check(self)


def with_overrides(profile: Profile, config: SimulatorConfig, serving: Serving = "disaggregated") -> Profile:
    """Return the profile with the configuration's limits and hand-off costs in place of its own.

    Of aggregated serving it is that of aggregated instances (``perf.aggregated_engines``).

    Raises:
        InputError: it says nothing of aggregated instances and nothing can be estimated.
    """
    from sagescale.perf import KvTransfer, aggregated_engines

    if serving == "aggregated":
        profile = aggregated_engines(profile, config.max_batched_tokens)
    changed = profile.with_limits(max_num_seqs=config.max_num_seqs, max_kv_tokens=config.max_kv_tokens)
    own = profile.kv_transfer
    transfer = KvTransfer(
        latency_ms=_given(config.kv_transfer_latency_ms, own.latency_ms),
        ms_per_1k_tokens=_given(config.kv_transfer_ms_per_1k_tokens, own.ms_per_1k_tokens),
        decode_steps=_given(config.kv_transfer_decode_steps, own.decode_steps),
        blocks_prefill=_given(config.kv_transfer_blocks_prefill, own.blocks_prefill),
        assumed=own.assumed and config.kv_transfer_latency_ms is config.kv_transfer_ms_per_1k_tokens is None,
    )
    changed = replace(changed, kv_transfer=transfer)
    if config.join_ms_per_1k_tokens is not None:
        changed = replace(changed, join_ms_per_1k_tokens=config.join_ms_per_1k_tokens)
    return changed


def _given(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value
