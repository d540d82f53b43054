"""A trace through the pools under the planner: the loop that joins the two.

The kernel runs from tick to tick; at a tick the planner sees the window just ended and its decision is
applied, last in that instant (DESIGN 5.7, 5.9).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.compiling import work_clock_s
from sagescale.errors import InputError
from sagescale.fleet import Role, check_names
from sagescale.perf import ProfileModel
from sagescale.planner import (
    LoadPredictors,
    Planner,
    make_load_predictors,
    pool_keys,
)
from sagescale.sim.engine import FleetCluster, ServiceLoad
from sagescale.sim.faults import Faults
from sagescale.sim.initial import sized_start
from sagescale.sim.injector import Injector
from sagescale.sim.run import Run, Tick, Timing
from sagescale.sim.scheduler import check_engines, check_trace
from sagescale.sim.scrapes import Scrapes
from sagescale.sim.startup import StartupDraws
from sagescale.sim.turns import as_it_came, as_recorded, check_thinking, clock_s, least_end_s
from sagescale.sim.twin import twin_for
from sagescale.sim.world import LARGEST, build_world, computed_tokens, engine_pools

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from numpy.typing import NDArray

    from sagescale.perf import PerfModel, Profile
    from sagescale.planner import AutoscalerConfig, Decision, LoadForecast
    from sagescale.planner.observation import Window
    from sagescale.planner.policy import Policy
    from sagescale.sim.config import SimulatorConfig
    from sagescale.sim.engine import Cluster, EnginePool, World
    from sagescale.sim.injector import FaultLog
    from sagescale.trace import Trace

_STALLED_TICKS = 60
"""After this many ticks at which nothing can happen and nothing is launched, work can never proceed."""

_MOST_INSTANCES = 1 << 20
"""Of a pool; their requests may take too much memory before (``engine.FleetCluster``)."""

_HOPELESS_S = 86400.0
"""With faults: after this long without a completion, none is to be expected."""

_NO_FAULTS = Faults()


@dataclass(frozen=True, slots=True, eq=False)
class ServiceRun:
    """A service to be simulated: what it is to serve, on which engines, under which planner.

    Attributes:
        trace: the requests.
        profile: the engines as the planner is given them, limits and hand-off costs already overridden
            (``config.with_overrides``).
        config: the autoscaler's configuration; GPUs an instance agree with the profile.
        simulator: the modelled world's configuration.
        name: within the fleet; what is drawn depends on it.
        gpu_type: which stock its instances take.
        world: the actual engines, overridden alike; None is as given.
        faults: what goes wrong; None is nothing.
        predictors: used in place of those the configuration names, e.g. to feed the true load.
        policy: used in place of the one the configuration names.
    """

    trace: Trace
    profile: Profile
    config: AutoscalerConfig
    simulator: SimulatorConfig
    name: str = "service"
    gpu_type: str = "gpu"
    world: Profile | None = None
    faults: Faults | None = None
    predictors: LoadPredictors | None = None
    policy: Policy | None = None


def simulate(
    trace: Trace,
    profile: Profile,
    config: AutoscalerConfig,
    simulator: SimulatorConfig,
    *,
    world: Profile | None = None,
    faults: Faults | None = None,
    progress: Callable[[float], None] | None = None,
    predictors: LoadPredictors | None = None,
    policy: Policy | None = None,
) -> Run:
    """Replay a trace through modelled pools under the planner: a fleet of one service.

    Args:
        trace: see ``ServiceRun``, as for all but the next.
        profile: as there.
        config: as there.
        simulator: as there.
        world: as there.
        faults: as there.
        progress: called now and then with the simulated time reached, in seconds.
        predictors: as there.
        policy: as there.

    Returns:
        The run; ``timing`` covers this whole call.

    Raises:
        InputError: the initial pools contradict the limits or the budget, or the configuration, the engines
            given and the actual ones differ in GPUs an instance.
    """
    service = ServiceRun(
        trace, profile, config, simulator, world=world, faults=faults, predictors=predictors, policy=policy
    )
    return simulate_fleet([service], {service.gpu_type: config.max_gpu_budget}, progress=progress)[0]


def simulate_fleet(
    services: Sequence[ServiceRun],
    stock: Mapping[str, int],
    *,
    progress: Callable[[float], None] | None = None,
) -> tuple[Run, ...]:
    """Replay the traces of several services, each under a planner of its own, on one stock of GPUs.

    With GPUs enough for all, each comes out as it would alone, request by request and bit for bit. Where they
    are short a launch waits, and who has waited longest for a type of GPU comes first.

    Args:
        services: in fleet order, which decides what happens first within an instant; names differ.
        stock: GPUs by type; never exceeded, draining and starting included. Each service's own
            ``max_gpu_budget`` holds besides.
        progress: called now and then with the simulated time reached, in seconds.

    Returns:
        The runs; ``timing.simulate_s`` of each covers this whole call.

    Raises:
        InputError: as ``simulate``; or there is no service, two have one name, or the initial pools need
            more GPUs than there are.
    """
    began = work_clock_s()
    _check_fleet(services, stock)
    makings = [_Making.of(service) for service in services]
    _check_stock([making.load for making in makings], stock)
    fleet = FleetCluster(
        [making.load for making in makings],
        {kind: min(gpus, LARGEST) for kind, gpus in stock.items()},
        watch_launches=any(service.faults is not None for service in services),
    )
    loops = [making.loop(cluster) for making, cluster in zip(makings, fleet.services, strict=True)]
    _drive(fleet, [loop.run(progress) for loop in loops])
    wall_s = work_clock_s() - began
    return tuple(making.run(loop, wall_s) for making, loop in zip(makings, loops, strict=True))


def _check_fleet(services: Sequence[ServiceRun], stock: Mapping[str, int]) -> None:
    if not services:
        raise InputError("simulate_fleet was given no service; expected one or more")
    check_names("services", [service.name for service in services])
    for service in services:
        if service.gpu_type not in stock:
            raise InputError(
                f"service {service.name!r} runs on GPUs of type {service.gpu_type!r}; expected one of "
                f"{', '.join(map(repr, stock))}"
            )


def _check_stock(loads: Sequence[ServiceLoad], stock: Mapping[str, int]) -> None:
    for kind, gpus in stock.items():
        needed = sum(
            size * pool.gpus
            for load in loads
            for size, pool in zip(load.initial, load.pools, strict=True)
            if pool.gpu_type == kind
        )
        if needed > gpus:
            raise InputError(
                f"the services need {needed} GPUs of type {kind!r} to begin with; there are {gpus}"
            )


def _drive(fleet: FleetCluster, loops: Sequence[Generator[float, bool, None]]) -> None:
    """Let time pass from one instant at which some loop has something to do to the next.

    A loop yields until when nothing is to be done; it is sent whether something was launched before that.
    """
    stops = {loop: next(loop) for loop in loops}
    while stops:
        until_s = min(stops.values())
        reached = fleet.advance(until_s)
        for loop, stop_s in list(stops.items()):
            if not reached or stop_s == until_s:
                try:
                    stops[loop] = loop.send(not reached)
                except StopIteration:
                    del stops[loop]


@dataclass(frozen=True, slots=True, eq=False)
class _Making:
    """A run in the making: everything about a service but what will happen."""

    service: ServiceRun
    model: ProfileModel
    actual: ProfileModel
    engines: World
    predictors: _TimedPredictors
    planner: Planner
    load: ServiceLoad

    @classmethod
    def of(cls, service: ServiceRun) -> _Making:
        config, simulator, trace = service.config, service.simulator, service.trace
        model = ProfileModel(service.profile)
        actual = model if service.world is None else ProfileModel(service.world)
        _check_same_gpus(config, model, actual)
        _check_gpus(config, model)
        check_engines(config, simulator, actual.max_num_seqs)
        check_trace(trace, simulator)
        engines = build_world(actual, simulator, config)
        predictors = _TimedPredictors.around(
            make_load_predictors(config) if service.predictors is None else service.predictors
        )
        planner = Planner(
            config,
            model,
            predictors=predictors,
            policy=service.policy,
            twin=twin_for(config, model, simulator) if service.policy is None else None,
        )
        closed = trace.turns is not None and not simulator.open_loop
        if closed:
            check_thinking(trace, simulator.concurrent_sessions)
        load = ServiceLoad(
            name=service.name,
            pools=engine_pools(config, engines, service.gpu_type),
            initial=_initial(trace, model, planner.learned, config, simulator),
            arrival_s=trace.arrival_s,
            isl=trace.isl,
            prompt=computed_tokens(trace, simulator),
            osl=trace.osl,
            startup_s=StartupDraws(simulator.startup_delay_s, simulator.simulation_seed, service.name),
            priority=trace.priority,
            prefixes=trace.prefixes if simulator.prefix_cache else None,
            session=trace.session_id,
            turns=trace.turns if closed else None,
            concurrent_sessions=simulator.concurrent_sessions if closed else None,
        )
        return cls(service, model, actual, engines, predictors, planner, load)

    def loop(self, cluster: Cluster) -> _Loop:
        service = self.service
        interval_s = float(service.config.adjustment_interval_sec)
        faults = service.faults
        return _Loop(
            cluster,
            self.planner,
            Scrapes(
                cluster,
                interval_s,
                self.actual.max_kv_tokens,
                service.simulator,
                faults or _NO_FAULTS,
                lengths=self.planner.uses_lengths,
            ),
            None if faults is None else Injector(faults, cluster, service.simulator.simulation_seed),
            interval_s,
            max(clock_s(service.trace, service.simulator), service.simulator.until_s),
        )

    def run(self, loop: _Loop, wall_s: float) -> Run:
        service, cluster, horizon_s = self.service, loop.cluster, loop.horizon_s
        counters = cluster.counters()
        trace, closed_loop, least_s = service.trace, None, loop.end_s
        if (rows := cluster.rows) is not None and self.load.turns is not None:
            trace, closed_loop = as_it_came(trace, rows, cluster.arrival_s, cluster.isl, cluster.osl)
            by_clock = service.simulator.concurrent_sessions is None
            least_s = max(least_s, least_end_s(service.trace, rows[cluster.completed], by_clock=by_clock))
        lifetimes = cluster.lifetimes(horizon_s)
        ticks = [tick for tick in loop.ticks if tick.observation.time_s <= horizon_s]
        stuck = len(ticks) < len(loop.ticks)  # it went on in case something might still be served
        return Run(
            trace=trace,
            config=service.config,
            simulator=service.simulator,
            given=self.model,
            planner=self.planner,
            actual=self.actual,
            world=self.engines,
            prompt=cluster.prompt,
            produced=cluster.produced,
            requests=cluster.requests,
            completed=cluster.completed,
            lifetimes=lifetimes,
            initial=self.load.initial,
            ticks=tuple(ticks),
            surges=tuple(surge for surge in loop.surges if surge.time_s <= horizon_s),
            horizon_s=horizon_s,
            least_s=least_s,
            max_gpus_used=_most_gpus(lifetimes, self.load.pools) if stuck else cluster.max_gpus_used,
            rejected=counters.rejected,
            timed_out=counters.timed_out,
            faults=loop.fault_log(),
            stepped=cluster.stepped(),
            gaps=cluster.gaps(),
            full_memory_s=tuple(loop.full_memory_s[: len(ticks)]),
            closed_loop=closed_loop,
            timing=Timing(wall_s, loop.planner_s, self.predictors.seconds),
        )


def _most_gpus(lifetimes: NDArray[np.void], pools: Sequence[EnginePool]) -> int:
    """The most GPUs that instances had at any instant; what stops at one makes room for what starts."""
    gpus = np.array([pool.gpus for pool in pools])[lifetimes["pool"]]
    at_s = np.concatenate([lifetimes["stop_s"], lifetimes["launch_s"]])
    change = np.concatenate([-gpus, gpus])[np.argsort(at_s, kind="stable")]
    return int(np.cumsum(change).max(initial=0))


def _initial(
    trace: Trace,
    model: ProfileModel,
    learned: PerfModel | None,
    config: AutoscalerConfig,
    simulator: SimulatorConfig,
) -> tuple[int, ...]:
    """As given, else sized for the first window's true load.

    Raises:
        InputError: what is given is beyond a limit, the budget, or what can be simulated.
    """
    pools = config.pools
    for pool in pools:
        keys = pool_keys(pool)
        given: int | None = getattr(simulator, keys.initial)
        if given is not None and not pool.least <= given <= pool.most:
            raise InputError(
                f"{keys.initial} is {given}; expected {keys.least} {pool.least} to {keys.most} {pool.most}"
            )
    sizes = sized_start(as_recorded(trace, simulator.concurrent_sessions), model, config, simulator, learned)
    _check_size(config, sizes)
    gpus = config.gpus_of(sizes)
    if gpus > config.max_gpu_budget:
        asked = " and ".join(f"{key} {size}" for key, size in config.by_key("initial", sizes).items())
        raise InputError(f"{asked} need {gpus} GPUs; expected at most max_gpu_budget {config.max_gpu_budget}")
    return tuple(sizes)


def _gpus(config: AutoscalerConfig, model: ProfileModel) -> tuple[int, ...]:
    """GPUs of an instance of each pool, as the engines have them."""
    return tuple(
        model.prefill_gpus if pool.role is Role.PREFILL else model.decode_gpus for pool in config.pools
    )


def _check_same_gpus(config: AutoscalerConfig, given: ProfileModel, actual: ProfileModel) -> None:
    expected, found = _gpus(config, given), _gpus(config, actual)
    if expected == found:
        return
    first, *others = zip(found, config.pools, strict=True)
    said = " and ".join(
        (f"{first[0]} GPUs of {first[1].name}", *(f"{gpus} of {pool.name}" for gpus, pool in others))
    )
    raise InputError(
        f"world {actual.profile.name}: {said} instances; expected {' and '.join(map(str, expected))}, "
        f"as profile {given.profile.name} says"
    )


def _check_gpus(config: AutoscalerConfig, model: ProfileModel) -> None:
    """An instance is one engine of the profile here: other GPUs an instance would be sized for, not run."""
    for pool, gpus in zip(config.pools, _gpus(config, model), strict=True):
        if pool.gpus != gpus:
            raise InputError(
                f"{pool_keys(pool).gpus} is {pool.gpus} but the instances of profile {model.profile.name} "
                f"have {gpus} GPUs; expected {gpus}: a simulated instance is one engine of the profile"
            )


def _check_size(config: AutoscalerConfig, sizes: Sequence[int]) -> None:
    """Refuse pools that would not fit this machine's memory, rather than run into it."""
    for pool, instances in zip(config.pools, sizes, strict=True):
        if instances > _MOST_INSTANCES:
            raise InputError(
                f"{pool_keys(pool).most} and max_gpu_budget allow the {instances} {pool.name} instances now "
                f"asked for; the simulator holds at most {_MOST_INSTANCES}: lower one of them"
            )


@dataclass(slots=True)
class _TimedPredictors(LoadPredictors):
    """Load predictors that add up the wall time they take."""

    seconds: float = 0.0

    @classmethod
    def around(cls, plain: LoadPredictors) -> _TimedPredictors:
        return cls(plain.requests, plain.isl, plain.osl)

    def observe(self, window: Window) -> None:
        began = work_clock_s()
        LoadPredictors.observe(self, window)
        self.seconds += work_clock_s() - began

    def forecast(self, horizon: int = 1) -> LoadForecast:
        began = work_clock_s()
        load = LoadPredictors.forecast(self, horizon)
        self.seconds += work_clock_s() - began
        return load


class _Loop:
    """Ticks until the trace is over and served."""

    def __init__(
        self,
        cluster: Cluster,
        planner: Planner,
        scrapes: Scrapes,
        injector: Injector | None,
        interval_s: float,
        end_s: float,
    ) -> None:
        self.cluster = cluster
        self.planner = planner
        self.scrapes = scrapes
        self.injector = injector
        self.interval_s = interval_s
        self.end_s = end_s
        self.ticks: list[Tick] = []
        self.full_memory_s: list[float] = []
        self.surges: list[Decision] = []
        self.planner_s = 0.0

    @property
    def horizon_s(self) -> float:
        """DESIGN 5.10: the last completion, the end of the trace or ``until_s``, whichever is latest.

        Of turns the end of the trace is when its last session begins.
        """
        return max(self.cluster.last_completion_s, self.cluster.last_session_s, self.end_s)

    def run(self, progress: Callable[[float], None] | None) -> Generator[float, bool, None]:
        """Tick until the trace is over and served; see ``_drive``."""
        cluster = self.cluster
        stalled = 0
        number = 0
        while True:
            number += 1
            tick_s = number * self.interval_s
            yield from self._until(number)
            if tick_s > self.horizon_s:
                if cluster.settled or stalled >= _STALLED_TICKS or self._hopeless(tick_s):
                    return
                stalled = stalled + 1 if self._nothing_due() else 0
            self._tick(number)
            if progress is not None:
                progress(tick_s)

    def _until(self, number: int) -> Generator[float, bool, None]:
        """Go on to a tick, with the scrapes and the burst checks that are due before it."""
        start_s, tick_s = (number - 1) * self.interval_s, number * self.interval_s
        scrapes = set(self.scrapes.due(number))
        # Before the first tick nothing can be decided: one check right before it, where the next begins.
        checks = {start_s + after_s for after_s in self.planner.burst_checks_s[-1 if number == 1 else 0 :]}
        for time_s in sorted({*scrapes, *checks, tick_s}):
            yield from self._advance(time_s)
            if time_s in scrapes:
                self.scrapes.take()
            if time_s in checks:
                self._check_for_burst(tick_s)

    def _check_for_burst(self, tick_s: float) -> None:
        seen = self.scrapes.burst_check()
        if seen is None or (seen.time_s > self.end_s and not self.cluster.turns_to_come):
            return
        began = work_clock_s()
        decision = self.planner.check(seen)
        self.planner_s += work_clock_s() - began
        if decision is not None and seen.time_s < tick_s:
            self.surges.append(decision)
            self._act(decision)

    def _act(self, decision: Decision) -> None:
        if not decision.no_operation:
            _check_size(self.planner.config, decision.targets)
            target = self.cluster if self.injector is None else self.injector
            target.scale(*decision.targets)

    def fault_log(self) -> FaultLog | None:
        """What went wrong by the horizon; None where nothing was to."""
        if self.injector is None:
            return None
        return self.injector.log(self.horizon_s, self.scrapes.events(self.horizon_s))

    def _advance(self, until_s: float) -> Generator[float, bool, None]:
        if self.injector is not None:
            yield from self.injector.advance(until_s)
            return
        while (yield until_s):
            pass  # launches are nothing to this service

    def _nothing_due(self) -> bool:
        relief_s = np.inf if self.injector is None else self.injector.next_relief_s
        return min(self.cluster.next_event_s, relief_s) == np.inf

    def _hopeless(self, tick_s: float) -> bool:
        """Starts that fail for ever, or crashes that come before anything is done, must come to an end."""
        return self.injector is not None and tick_s > self.horizon_s + _HOPELESS_S

    def _tick(self, number: int) -> None:
        observation = self.scrapes.observation(number)
        began = work_clock_s()
        decision = self.planner.step(observation)
        self.planner_s += work_clock_s() - began
        self.ticks.append(Tick(observation, decision))
        self.full_memory_s.append(self.cluster.full_memory_s)
        self._act(decision)
