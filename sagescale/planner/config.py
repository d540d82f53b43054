"""The autoscaler's configuration: the guide's keys with the guide's defaults, then ours."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from sagescale.declare import check, setting
from sagescale.errors import InputError
from sagescale.fleet import Fleet, PoolSpec, Role, Service
from sagescale.planner.plugins import NO_KEYS, POLICIES, PREDICTORS, PluginKeys

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")

Serving = Literal["disaggregated", "aggregated"]
"""Whether prefill and decode are pools of their own, or every instance of one pool does both."""

SERVING: dict[Serving, tuple[tuple[str, Role], ...]] = {
    "disaggregated": (("prefill", Role.PREFILL), ("decode", Role.DECODE)),
    "aggregated": (("aggregated", Role.AGGREGATED),),
}
"""The pools, names and roles, of each way of serving."""


@dataclass(frozen=True, slots=True)
class AutoscalerConfig:
    """What the operator owes, may spend and prefers; the fields are the flat keys of the YAML file.

    ``plugins`` has the keys that predictors and policies of other packages declare.

    Raises:
        InputError: a value is refused; the message names the key, the value and what is accepted.
    """

    target_ttft_ms: float = setting(200.0, doc="Target TTFT (time to first token).", unit="ms", above=0)
    target_itl_ms: float = setting(
        50.0, doc="Target ITL (inter-token latency, mean over a request).", unit="ms", above=0
    )
    adjustment_interval_sec: int = setting(60, doc="Interval between decisions.", unit="s", at_least=1)
    min_prefill_instances: int = setting(1, doc="Smallest prefill pool.", unit="instances", at_least=0)
    max_prefill_instances: int = setting(10, doc="Largest prefill pool.", unit="instances", at_least=1)
    min_decode_instances: int = setting(1, doc="Smallest decode pool.", unit="instances", at_least=0)
    max_decode_instances: int = setting(20, doc="Largest decode pool.", unit="instances", at_least=1)
    max_gpu_budget: int = setting(
        32,
        doc="GPUs both pools together may hold at any moment, starting and draining instances included.",
        unit="GPUs",
        at_least=1,
    )
    prefill_gpus_per_instance: int = setting(
        4,
        doc="GPUs of a prefill instance; on the command line unset means the profile's, and another value "
        "than the profile's is refused.",
        unit="GPUs",
        at_least=1,
    )
    decode_gpus_per_instance: int = setting(
        1,
        doc="GPUs of a decode instance; on the command line unset means the profile's, and another value "
        "than the profile's is refused.",
        unit="GPUs",
        at_least=1,
    )
    load_predictor_type: str = setting(
        "constant",
        doc="The predictor of requests, ISL and OSL. On the command line and in files, policy slo takes auto "
        "where it is not given.",
        choices=functools.cache(PREDICTORS.names),
    )
    prediction_window_size: int = setting(
        10,
        doc="History of moving_average and exponential_smoothing; of the fitted predictors only where it is "
        "given and history_points is not.",
        unit="windows",
        at_least=1,
    )
    profile_data_dir: str | None = setting(
        None, doc="Profile data to size with: anything `sagescale profile import` accepts."
    )
    enable_online_learning: bool = setting(
        True,
        doc="Learn how fast instances are from what is observed: a measured profile is left where it is "
        "plainly wrong, an estimate at once.",
    )
    enable_correction: bool = setting(
        True, doc="Correct the profile by measured over expected latency; false leaves both factors at 1."
    )
    no_operation: bool = setting(False, doc="Dry run: decide and explain, never act.")

    profile: str | None = setting(
        None,
        doc="The engines, a name of `sagescale profile list` or a file, as by --profile; null is "
        "profile_data_dir, else the default.",
    )
    serving: Serving = setting(
        "disaggregated",
        doc="Whether prefill and decode are pools of their own, or every instance of one pool does both: "
        "then min_instances, max_instances and gpus_per_instance stand for the keys of the two pools.",
    )
    min_instances: int = setting(1, doc="Smallest aggregated pool.", unit="instances", at_least=0)
    max_instances: int = setting(20, doc="Largest aggregated pool.", unit="instances", at_least=1)
    gpus_per_instance: int = setting(
        1,
        doc="GPUs of an aggregated instance; on the command line unset means the profile's, and another "
        "value than the profile's is refused.",
        unit="GPUs",
        at_least=1,
    )

    policy: str = setting("classic", doc="The sizing policy.", choices=functools.cache(POLICIES.names))
    correction_bounds: tuple[float, float] = setting(
        (0.5, 2.0), doc="Bounds of both correction factors; they must include 1.", above=0
    )
    load_headroom: float = setting(
        1.0, doc="Multiplies the demand sized for: 1.2 keeps a fifth in hand.", above=0
    )
    history_points: int | None = setting(
        None,
        doc="History of the fitted predictors; null is each one's own default.",
        unit="windows",
        at_least=1,
    )
    season_sec: float | None = setting(
        None,
        doc="Period of the load, e.g. 86400, for predictors with a season; null leaves it to be found.",
        unit="s",
        above=0,
    )
    scale_up_stabilization_window_sec: int = setting(
        0, doc="Scale up to the lowest size recommended in this window; 0 at once.", unit="s", at_least=0
    )
    scale_down_stabilization_window_sec: int = setting(
        0, doc="Scale down to the highest size recommended in this window; 0 at once.", unit="s", at_least=0
    )
    tolerance: float = setting(
        0.0,
        doc="A pool stays as it is while demand over its size is within 1 plus or minus this share.",
        at_least=0,
    )

    target_attainment: float = setting(
        0.99,
        doc="Share of all requests that the slo policy keeps within both targets.",
        at_least=0.5,
        below=1,
    )
    fast_interval_sec: int = setting(
        15,
        doc="How often the slo policy looks between decisions, to add instances where load has plainly "
        "risen; 0 is never.",
        unit="s",
        at_least=0,
    )
    static_prefill: int | None = setting(
        None,
        doc="Prefill instances of the static policy; null keeps those found at its first decision.",
        unit="instances",
        at_least=0,
    )
    static_decode: int | None = setting(
        None,
        doc="Decode instances of the static policy; null keeps those found at its first decision.",
        unit="instances",
        at_least=0,
    )
    static_instances: int | None = setting(
        None,
        doc="Aggregated instances of the static policy; null keeps those found at its first decision.",
        unit="instances",
        at_least=0,
    )
    reactive_prefill_requests: float = setting(
        1.0,
        doc="Requests queued or in service that the reactive policy means a prefill instance to have.",
        unit="requests",
        above=0,
    )
    reactive_decode_usage: float = setting(
        0.5,
        doc="Share of its slots and KV memory that the reactive policy means a decode or aggregated instance "
        "to use.",
        above=0,
        at_most=1,
    )
    plugins: PluginKeys = field(default=NO_KEYS, metadata={"key": False})

    def __post_init__(self) -> None:
        check(self)
        for pool in self.pools:
            keys = pool_keys(pool)
            if pool.least > pool.most:
                raise InputError(
                    f"{keys.least} is {pool.least} but {keys.most} is {pool.most}; "
                    f"expected {keys.least} <= {keys.most}"
                )
        if self.minimum_gpus > self.max_gpu_budget:
            needs = " + ".join(
                f"{keys.least} {pool.least} x {keys.gpus} {pool.gpus}"
                for pool, keys in ((pool, pool_keys(pool)) for pool in self.pools)
            )
            raise InputError(
                f"max_gpu_budget is {self.max_gpu_budget} but the minima need {self.minimum_gpus} GPUs "
                f"({needs}); expected at least that many"
            )
        if self.season_sec is not None and self.season_sec < 2 * self.adjustment_interval_sec:
            raise InputError(
                f"season_sec is {self.season_sec:g} but adjustment_interval_sec is "
                f"{self.adjustment_interval_sec}; expected a period of at least two intervals"
            )
        low_bound, high_bound = self.correction_bounds
        if not low_bound <= 1.0 <= high_bound:
            raise InputError(
                f"correction_bounds is [{low_bound:g}, {high_bound:g}]; expected low <= 1 <= high"
            )

    @property
    def minimum_gpus(self) -> int:
        """GPUs that the minima hold."""
        return self.gpus_of([pool.least for pool in self.pools])

    def gpus_of(self, sizes: Iterable[int]) -> int:
        """GPUs that pools of these sizes hold."""
        return sum(size * pool.gpus for size, pool in zip(sizes, self.pools, strict=True))

    @property
    def pools(self) -> tuple[PoolSpec, ...]:
        """The pools that the flat keys describe: ``prefill`` and ``decode``, or ``aggregated``."""
        return tuple(
            PoolSpec(
                name,
                role,
                gpus=getattr(self, keys.gpus),
                least=getattr(self, keys.least),
                most=getattr(self, keys.most),
            )
            for name, role in SERVING[self.serving]
            for keys in [keys_of(name)]
        )

    @property
    def pool_names(self) -> tuple[str, ...]:
        """The pools in order."""
        return tuple(name for name, _ in SERVING[self.serving])

    def by_key(self, which: str, values: Iterable[T]) -> dict[str, T]:
        """Return a value of each pool by one of the keys that describe it, a field of :class:`PoolKeys`."""
        names = [getattr(pool_keys(pool), which) for pool in self.pools]
        return dict(zip(names, values, strict=True))

    @property
    def static_sizes(self) -> tuple[int | None, ...]:
        """What the static policy is to keep, a pool; None is what it finds."""
        return tuple(getattr(self, pool_keys(pool).static) for pool in self.pools)

    @property
    def fleet(self) -> Fleet:
        """The fleet that the flat keys describe: one service, on GPUs of one type."""
        service = Service("service", self.pools, self.target_ttft_ms, self.target_itl_ms)
        return Fleet((service,), {"gpu": self.max_gpu_budget})


class PoolKeys(NamedTuple):
    """The flat keys that describe a pool, by name."""

    least: str
    most: str
    gpus: str
    initial: str
    static: str


def pool_keys(pool: PoolSpec) -> PoolKeys:
    """Return the keys that a pool of the flat keys is described by, as messages name them."""
    return _AGGREGATED_KEYS if pool.role is Role.AGGREGATED else keys_of(pool.name)


@functools.cache
def keys_of(name: str) -> PoolKeys:
    """Return the keys of a pool by its name."""
    if name == "aggregated":
        return _AGGREGATED_KEYS
    return PoolKeys(
        f"min_{name}_instances",
        f"max_{name}_instances",
        f"{name}_gpus_per_instance",
        f"initial_{name}",
        f"static_{name}",
    )


_AGGREGATED_KEYS = PoolKeys(
    "min_instances", "max_instances", "gpus_per_instance", "initial_instances", "static_instances"
)
