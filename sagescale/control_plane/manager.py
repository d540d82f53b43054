"""The guide's control plane: registered instances, requests routed over them, and the autoscaler."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING

from sagescale.control_plane.instances import (
    ExecutionInstance,
    ExecutionInstanceType,
    PDSeparationConfig,
    Registry,
)
from sagescale.control_plane.loop_thread import LoopLog, LoopThread
from sagescale.control_plane.metrics import MetricsCollector
from sagescale.control_plane.pools import InstancePools
from sagescale.control_plane.replicas import ReplicatedTwin, model_for
from sagescale.control_plane.router import Router
from sagescale.declare import declared
from sagescale.errors import InputError, SagescaleError
from sagescale.live.actuators.callback import CallbackActuator
from sagescale.live.journal import Journal
from sagescale.live.loop import ControlLoop
from sagescale.live.twin import make_twin
from sagescale.perf import ProfileModel, sizing_profile
from sagescale.planner import AutoscalerConfig, Corrections
from sagescale.planner.planner import autoscaler_status
from sagescale.sim.config import SimulatorConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from sagescale.control_plane.pools import CreateInstance, RemoveInstance
    from sagescale.control_plane.router import Request
    from sagescale.live.clock import Clock
    from sagescale.planner import Decision
    from sagescale.planner.planner import AutoscalerStatus
    from sagescale.planner.policy.twin import EngineTwin
    from sagescale.sim.config import RoutingStrategy, SchedulingPolicy

logger = logging.getLogger(__name__)

_SECONDS_A_DAY = 86400.0


class ControlPlaneManager:
    """Prefill and decode instances, who serves which request, and how many there are.

    The autoscaler is ``sagescale plan``'s own loop: it reads Prometheus or the registered instances' metric
    pages, decides once an interval, and acts through the two callbacks. Without callbacks it only decides.

    Args:
        scheduling_policy: Who of those that wait is next: fifo, priority, slo_aware, adaptive.
        routing_strategy: Which instance takes it: load_balanced, round_robin.
        enable_auto_scaling: Whether ``start`` runs the autoscaler.
        autoscaler_config: The autoscaler's configuration. GPUs an instance are a whole multiple of those of
            the profile's instances: an instance is then that many of them side by side.
        enable_pd_separation: Whether instances are prefill or decode ones; needed by the autoscaler.
        pd_config: How they are separated.
        metrics_collector: Where metrics come from; left out, the registered instances' metric pages.
        create_instance: Creates an instance of the given type, waits until it is ready and returns it.
        remove_instance: Drains an instance, removes it and returns once its GPUs are free; it may return
            another instance, if the platform chose that one. Both may be coroutine functions.
        profile: The profile to size with, by name or path; left out, ``profile_data_dir`` or the default.
        live_settings: Any other key of the live configuration, e.g. ``{"journal": "decisions.sqlite"}``;
            without ``journal`` none is kept.

    Raises:
        InputError: something in it cannot be used; the message says what, and what was expected.
    """

    def __init__(
        self,
        scheduling_policy: SchedulingPolicy = "fifo",
        routing_strategy: RoutingStrategy = "load_balanced",
        *,
        enable_auto_scaling: bool = False,
        autoscaler_config: AutoscalerConfig | None = None,
        enable_pd_separation: bool = True,
        pd_config: PDSeparationConfig | None = None,
        metrics_collector: MetricsCollector | None = None,
        create_instance: CreateInstance | None = None,
        remove_instance: RemoveInstance | None = None,
        profile: str | None = None,
        live_settings: Mapping[str, object] | None = None,
    ) -> None:
        self._pd = pd_config or PDSeparationConfig()
        rules = SimulatorConfig(
            scheduling_policy=scheduling_policy,
            routing_strategy=routing_strategy,
            first_token=self._pd.first_token,
        )
        if enable_auto_scaling and not enable_pd_separation:
            raise InputError(
                "enable_auto_scaling is true but enable_pd_separation is false; expected both: "
                "the autoscaler sizes a prefill and a decode pool"
            )
        self.config = _with_history(autoscaler_config or AutoscalerConfig())
        self._enabled = enable_auto_scaling
        self._separated = enable_pd_separation
        self._settings = dict(live_settings or {})
        engines = sizing_profile(profile, self.config.profile_data_dir)
        self._engine = ProfileModel(engines)
        self._perf = model_for(self.config, self._engine, engines.name)
        self._profile_name = engines.name
        self._registry = Registry()
        self._router = Router(self._registry, rules, self.config, self._perf.ttft_ms)
        self._log = LoopLog()
        self._loop_thread: LoopThread | None = None
        self._pools: InstancePools | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self.use_metrics(metrics_collector or MetricsCollector())
        self.set_scaling_callbacks(create_instance, remove_instance)

    # --- before it starts ---------------------------------------------------------------------------

    def use_metrics(self, collector: MetricsCollector) -> None:
        """Read metrics from there.

        Raises:
            InputError: a key of ``live_settings`` does not go with it.
            SagescaleError: the manager has been started.
        """
        self._not_started()
        settings = {**collector.settings, **self._settings}
        acting = [name for name in settings if name.startswith("actuator") and name != "actuator_timeout_s"]
        if acting:
            raise InputError(f"{acting[0]}: the manager acts through its callbacks; use `sagescale plan`")
        self._collector = MetricsCollector(**settings)  # type: ignore[arg-type]  # it checks them itself
        self._live = self._collector.live
        self._keeps_journal = "journal" in settings

    def set_scaling_callbacks(
        self, create_instance: CreateInstance | None, remove_instance: RemoveInstance | None
    ) -> None:
        """Scale through these; without them the autoscaler decides and logs, and nothing is changed.

        Raises:
            InputError: only one is given.
            SagescaleError: the manager has been started.
        """
        self._not_started()
        if (create_instance is None) != (remove_instance is None):
            missing = "create_instance" if create_instance is None else "remove_instance"
            raise InputError(f"{missing} is not given; expected both callbacks, or neither")
        self._callbacks = (create_instance, remove_instance)

    # --- running --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the autoscaler, where it is enabled; requests are routed from then on in any case.

        It ends with ``stop``, or with the event loop.

        Raises:
            SagescaleError: it runs already, or the journal cannot be opened.
        """
        self._not_started()
        self._event_loop = asyncio.get_running_loop()
        if not self._enabled:
            return
        self._pools = InstancePools(
            self._registry,
            *self._callbacks,
            self._event_loop,
            self._router.idle,
            retry_s=min(10.0, self.config.adjustment_interval_sec / self._live.time_scale),
            patience_s=self.config.adjustment_interval_sec / self._live.time_scale,
        )
        if not self._acts:
            logger.warning("no create_instance and remove_instance: decisions are made but not acted on")
        logger.info("sized with profile %s", self._profile_name)
        thread = LoopThread(self._make_loop)
        try:
            await thread.start()
        except BaseException:
            self._event_loop = self._pools = None
            raise
        self._loop_thread = thread

    async def stop(self) -> None:
        """End the autoscaler and wait for what it has under way; the instances stay as they are.

        Raises:
            SagescaleError: the autoscaler had failed before; the message says why.
        """
        try:
            if self._loop_thread is not None:
                await self._loop_thread.stop()
        finally:
            if self._pools is not None:
                await self._pools.settle()
            self._event_loop = None

    # --- instances ------------------------------------------------------------------------------------

    def register_instance(self, instance: ExecutionInstance) -> None:
        """Add an instance; from now on it is given requests, counted and read. Safe from any thread.

        Raises:
            InputError: its id is taken, or its type or GPUs do not go with the configuration.
        """
        if not isinstance(instance, ExecutionInstance):
            raise InputError(f"{instance!r} is no ExecutionInstance")
        pool = instance.instance_type.pool
        if (pool is not None) != self._separated:
            expected = "PREFILLING or DECODING" if self._separated else "GENERAL"
            raise InputError(
                f"instance '{instance.instance_id}' is {instance.instance_type.name}; expected {expected}: "
                f"enable_pd_separation is {str(self._separated).lower()}"
            )
        if pool is not None and instance.gpu_count is not None:
            key = f"{pool}_gpus_per_instance"
            if instance.gpu_count != getattr(self.config, key):
                raise InputError(
                    f"instance '{instance.instance_id}' has {instance.gpu_count} GPUs but {key} is "
                    f"{getattr(self.config, key)}; expected the same"
                )
        self._registry.add(instance)
        if self._event_loop is not None:
            self._event_loop.call_soon_threadsafe(self._router.hand_out, instance.instance_type)

    def unregister_instance(self, instance_id: str) -> ExecutionInstance:
        """Forget an instance that has gone by itself, and return it; it is neither drained nor removed.

        Raises:
            InputError: there is none of this id.
        """
        return self._registry.remove(instance_id)

    def get_instances(self) -> list[ExecutionInstance]:
        """Return the registered instances, oldest first; draining ones are among them until they are gone."""
        return [entry.instance for entry in self._registry.entries()]

    def instance_for(
        self, request: Request, instance_type: ExecutionInstanceType
    ) -> AbstractAsyncContextManager[ExecutionInstance]:
        """Wait for an instance as scheduling policy and routing strategy say; use it as a context.

        The request has its place while the context lasts. An instance that drains is given no request
        and is removed only when the last request has left it::

            async with manager.instance_for(request, ExecutionInstanceType.PREFILLING) as instance:
                ...  # send it there
        """
        return self._router.instance_for(request, instance_type)

    # --- what it says ---------------------------------------------------------------------------------

    def get_autoscaler_status(self) -> AutoscalerStatus:
        """Return the guide's status dictionary."""
        loop = None if self._loop_thread is None else self._loop_thread.loop
        running = self._loop_thread is not None and self._loop_thread.running
        if loop is not None:
            return loop.planner.get_status(running=running)
        return autoscaler_status(self.config, Corrections(), None, enabled=self._enabled, running=False)

    @property
    def last_decision(self) -> Decision | None:
        """The planner's latest decision, ``None`` before the first."""
        return self._log.last_decision

    # --- inside ---------------------------------------------------------------------------------------

    @property
    def _acts(self) -> bool:
        return self._callbacks[0] is not None

    def _not_started(self) -> None:
        if self._event_loop is not None:
            raise SagescaleError("the control plane has been started; stop it first")

    def _make_loop(self, clock: Clock) -> ControlLoop:
        assert self._pools is not None
        live = self._live
        if self._acts:
            live = dataclasses.replace(live, actuator="callback", actuator_callback="ControlPlaneManager:")
        actuator = CallbackActuator(self._pools, live.actuator_timeout_s, "ControlPlaneManager")
        path: Path | str = live.journal if self._keeps_journal else ":memory:"
        journal = Journal(path, actuator.target, live.journal_retention_days * _SECONDS_A_DAY)
        source = self._collector.source(self._registry.scrape_targets, self._pd.first_token, self.config)
        return ControlLoop(
            self.config, live, self._perf, source, actuator, journal, clock, (self._log,), self._twin()
        )

    def _twin(self) -> EngineTwin | None:
        """Return simulated instances for a policy that tries sizes on them."""
        twin = make_twin(self.config, self._engine, SimulatorConfig(first_token=self._pd.first_token))
        if twin is None or self._perf is self._engine:
            return twin
        return ReplicatedTwin(
            twin,
            self._perf,
            self._perf.prefill_gpus // self._engine.prefill_gpus,
            self._perf.decode_gpus // self._engine.decode_gpus,
        )


def _with_history(config: AutoscalerConfig) -> AutoscalerConfig:
    """Let a window size that was chosen bound the fitted predictors too, as in a configuration file."""
    chosen = config.prediction_window_size
    if (
        config.history_points is not None
        or chosen == declared(AutoscalerConfig)["prediction_window_size"].default
    ):
        return config
    return dataclasses.replace(config, history_points=chosen)
