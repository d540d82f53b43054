"""A performance model of instances that are several replicas of the profile's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError

if TYPE_CHECKING:
    from sagescale.perf import DecodeCapacity, PerfModel
    from sagescale.planner import AutoscalerConfig
    from sagescale.planner.policy.twin import EngineTwin, Lengths


class ReplicatedModel:
    """Instances of whole multiples of the profile's GPUs: replicas side by side that share the load.

    This is what the guide's formulas say of an instance (throughput a GPU times GPUs): each prompt takes
    what it takes on one replica, and running requests are spread evenly.
    """

    def __init__(self, model: PerfModel, prefill_replicas: int, decode_replicas: int) -> None:
        self._model = model
        self._decode_replicas = decode_replicas
        self.prefill_gpus = model.prefill_gpus * prefill_replicas
        self.decode_gpus = model.decode_gpus * decode_replicas
        self.max_num_seqs = model.max_num_seqs * decode_replicas
        self.max_kv_tokens = None if model.max_kv_tokens is None else model.max_kv_tokens * decode_replicas

    def ttft_ms(self, isl: float) -> float:
        """Prefill time in ms of one prompt."""
        return self._model.ttft_ms(isl)

    def itl_ms(self, concurrency: float, context_tokens: float) -> float:
        """Time of one decode step in ms, the requests spread over the replicas."""
        return self._model.itl_ms(concurrency / self._decode_replicas, context_tokens)

    def prefill_throughput_per_gpu(self, isl: float) -> float:
        """Prompt tokens a second and GPU."""
        return self._model.prefill_throughput_per_gpu(isl)

    def decode_throughput_per_gpu(self, itl_ms: float, context_tokens: float) -> DecodeCapacity:
        """Return the largest throughput whose ITL is at most ``itl_ms``."""
        return self._model.decode_throughput_per_gpu(itl_ms, context_tokens)


class ReplicatedTwin:
    """A twin of such instances: as many engines of the profile as all their replicas are.

    Args:
        twin: the profile's engines.
        perf: a model of an instance.
        prefill_replicas: engines of a prefill instance.
        decode_replicas: engines of a decode instance.
    """

    def __init__(
        self, twin: EngineTwin, perf: PerfModel, prefill_replicas: int, decode_replicas: int
    ) -> None:
        self.perf = perf
        self.startup_s = twin.startup_s
        self._twin = twin
        self._prefill_replicas, self._decode_replicas = prefill_replicas, decode_replicas

    def prefill_misses(self, instances: int, requests_per_s: float, lengths: Lengths) -> float:
        """See ``EngineTwin``."""
        return self._twin.prefill_misses(instances * self._prefill_replicas, requests_per_s, lengths)

    def decode_misses(self, instances: int, requests_per_s: float, lengths: Lengths) -> float:
        """See ``EngineTwin``."""
        return self._twin.decode_misses(instances * self._decode_replicas, requests_per_s, lengths)

    def prefill_misses_alone(self, lengths: Lengths) -> float:
        """See ``EngineTwin``."""
        return self._twin.prefill_misses_alone(lengths)

    def decode_misses_alone(self, lengths: Lengths) -> float:
        """See ``EngineTwin``."""
        return self._twin.decode_misses_alone(lengths)

    def prefill_limit_rps(self, lengths: Lengths) -> float:
        """See ``EngineTwin``."""
        return self._prefill_replicas * self._twin.prefill_limit_rps(lengths)

    def decode_limit_rps(self, lengths: Lengths) -> float:
        """See ``EngineTwin``."""
        return self._decode_replicas * self._twin.decode_limit_rps(lengths)


def model_for(config: AutoscalerConfig, model: PerfModel, name: str) -> PerfModel:
    """Return a model of instances with the configuration's GPUs.

    Raises:
        InputError: they are no whole multiple of the profile's (called ``name``).
    """
    replicas = []
    for key, gpus in (
        ("prefill_gpus_per_instance", model.prefill_gpus),
        ("decode_gpus_per_instance", model.decode_gpus),
    ):
        count, rest = divmod(getattr(config, key), gpus)
        if rest:
            raise InputError(
                f"{key} is {getattr(config, key)} but an instance of profile {name} has {gpus} GPUs; "
                f"expected a multiple of {gpus}"
            )
        replicas.append(count)
    return model if replicas == [1, 1] else ReplicatedModel(model, *replicas)
