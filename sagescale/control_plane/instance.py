"""What is registered: one engine that serves requests, and which of the two phases it serves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from sagescale.errors import InputError
from sagescale.live.config import check_url

__all__ = ["ExecutionInstance", "ExecutionInstanceType", "PoolName"]

PoolName = Literal["prefill", "decode"]


class ExecutionInstanceType(Enum):
    """The phase an instance serves; ``GENERAL`` serves both, where prefill and decode are not separated."""

    GENERAL = "general"
    PREFILLING = "prefilling"
    DECODING = "decoding"

    @property
    def pool(self) -> PoolName | None:
        """The pool it belongs to; ``None`` for ``GENERAL``."""
        names: dict[str, PoolName] = {"prefilling": "prefill", "decoding": "decode"}
        return names.get(self.value)


@dataclass(eq=False)
class ExecutionInstance:
    """One engine.

    Attributes:
        instance_id: Its name, unique among those registered.
        model_name: The model it serves; for people.
        host: Where it listens.
        port: Where it listens.
        instance_type: The phase it serves.
        gpu_count: GPUs it holds; ``None`` takes the configuration's for its type.
        metrics_path: Its metric page, read where metrics are collected directly.
        max_concurrent_requests: Requests given to it at once; ``None`` leaves the queueing to the engine.
        is_available: Set to ``False`` to have it given nothing and counted as serving nobody.
        is_healthy: Likewise, for whoever checks its health.

    Raises:
        InputError: the id is empty, or host and port are no address.
    """

    instance_id: str
    model_name: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    instance_type: ExecutionInstanceType = ExecutionInstanceType.GENERAL
    gpu_count: int | None = None
    metrics_path: str = "/metrics"
    max_concurrent_requests: int | None = None
    is_available: bool = True
    is_healthy: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.instance_id, str) or not self.instance_id:
            raise InputError(f"instance_id is {self.instance_id!r}; expected a name")
        if not isinstance(self.instance_type, ExecutionInstanceType):
            raise InputError(
                f"instance_type of {self.instance_id} is {self.instance_type!r}; "
                "expected an ExecutionInstanceType"
            )
        if self.max_concurrent_requests is not None and self.max_concurrent_requests < 1:
            raise InputError(
                f"max_concurrent_requests of {self.instance_id} is {self.max_concurrent_requests}; "
                "expected at least 1, or None"
            )
        check_url(f"the address of {self.instance_id}", self.metrics_url)

    @property
    def metrics_url(self) -> str:
        """The page its metrics are read from."""
        return f"http://{self.host}:{self.port}{self.metrics_path}"

    @property
    def serves(self) -> bool:
        """Whether it can be given requests."""
        return self.is_available and self.is_healthy
