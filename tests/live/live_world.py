"""A made-up cluster, source, actuator and clock: the live loop in virtual time, without sleeps or sockets."""

from __future__ import annotations

from planner_world import ONE_GPU, RoundNumbers
from sagescale import fleet
from sagescale.live.actuators.protocol import ActuatorError, PoolStates
from sagescale.live.config import LiveConfig
from sagescale.live.journal import Journal
from sagescale.live.loop import ControlLoop
from sagescale.live.metrics.observe import Metrics
from sagescale.live.metrics.window import Problem, Reports
from sagescale.planner import AutoscalerConfig, PoolCounts, Sizes
from sagescale.planner.policy.classic import initial_targets
from slo_world import RoundTwin


def reporting(prefill, decode, listed=None):
    """Say that so many report, of so many that discovery lists."""
    found = {}
    for at, (group, count) in enumerate({"prefill": prefill, "decode": decode}.items()):
        names = frozenset(f"{group}-{number}" for number in range(count))
        known = listed and frozenset(f"{group}-{number}" for number in range(listed[at]))
        found[group] = Reports(names, names, known)
    return found


class VirtualClock:
    """Time passes only when somebody waits; ``every`` is called with each moment reached."""

    def __init__(self, wall_s: float = 1_000_000.0) -> None:
        self.now = 1000.0
        self.offset = wall_s - self.now
        self.stopped = False
        self.on_wait = None

    def monotonic_s(self) -> float:
        return self.now

    def wall_s(self) -> float:
        return self.now + self.offset

    def wait_until(self, monotonic_s: float) -> bool:
        self.now = max(self.now, monotonic_s)
        if self.on_wait is not None:
            self.on_wait(self.now)
        return self.stopped


class ToyPools:
    """Two pools that take ``startup_s`` to start and ``drain_s`` to drain, and an actuator of them."""

    target = "made-up pools"

    def __init__(self, clock, prefill=2, decode=2, startup_s=60.0, drain_s=30.0) -> None:
        self.clock = clock
        self.startup_s, self.drain_s = startup_s, drain_s
        self.pools = [[0.0] * prefill, [0.0] * decode]  # when each is ready
        self.leaving = [[], []]  # until when each holds its GPUs
        self.orders = []
        self.fail_orders = self.fail_states = False
        self.knows = True
        self.most_gpus = 0

    @property
    def sizes(self) -> Sizes:
        return Sizes(*(len(pool) for pool in self.pools))

    def states(self):
        if self.fail_states:
            raise ActuatorError("the pools cannot be seen")
        return self.look() if self.knows else None

    def look(self) -> PoolStates:
        now = self.clock.now
        counts = []
        for pool, leaving in zip(self.pools, self.leaving, strict=True):
            leaving[:] = [until for until in leaving if until > now]
            ready = sum(at <= now for at in pool)
            counts.append(PoolCounts(ready, len(pool) - ready, len(leaving)))
        self.most_gpus = max(self.most_gpus, sum(c.ready + c.starting + c.draining for c in counts))
        return PoolStates(fleet.Pools(*counts))

    def carry_out(self, order) -> None:
        if self.fail_orders:
            raise ActuatorError("the pools do not answer")
        self.orders.append(order)
        self.set(order.sizes)

    def set(self, sizes) -> None:
        now = self.clock.now
        for pool, leaving, size in zip(self.pools, self.leaving, sizes, strict=True):
            while len(pool) > size:
                if pool.pop() <= now:
                    leaving.append(now + self.drain_s)
            pool.extend([now + self.startup_s] * (size - len(pool)))
        self.look()

    def close(self) -> None:
        pass


class Load:
    """A source that reports the load it is told to, or fails as it is told to."""

    def __init__(self, requests=600.0, isl=1000.0, osl=200.0) -> None:
        self.requests, self.isl, self.osl = requests, isl, osl
        self.broken = ""
        self.past = []
        self.reads = 0
        self.surge, self.blind = 1.0, False
        self.pools = None  # whose instances report
        self.silent = Sizes(0, 0)  # how many of them do not
        self.listed = None  # how many discovery lists
        self.looks = []

    def describe(self) -> str:
        return "a made-up source"

    def prime(self) -> None:
        pass

    def collect(self, window_s, late_s=0.0):
        self.reads += 1
        if self.broken:
            return Metrics({}, (Problem("source_failed", self.broken),), {}), window_s
        values = {
            "requests": self.requests,
            "isl_mean": self.isl if self.requests else None,
            "osl_mean": self.osl if self.requests else None,
            "completed": self.requests,
        }
        return Metrics(values, (), self.reports()), window_s

    def reports(self):
        if self.pools is None:
            return reporting(2, 2, self.listed)
        there = self.pools.look()
        counts = (pool.ready - silent for pool, silent in zip(there.pools, self.silent, strict=True))
        return reporting(*counts, self.listed)

    def collect_burst(self, window_s, late_s=0.0):
        """The short window since the last burst check, at ``surge`` times the load that ticks see."""
        self.looks.append(window_s)
        if self.broken or self.blind:
            return Metrics({}, (Problem("source_failed", self.broken),), {}), window_s
        values = {"requests": self.surge * self.requests * window_s / 60.0, "isl_mean": self.isl}
        return Metrics(values, (), self.reports()), window_s

    def history(self, window_s, windows):
        return self.past[-windows:] if windows else []

    def close(self) -> None:
        pass


class LinearTwin(RoundTwin):
    """Requests that a pool cannot get through, at four fifths of what it could, are those that miss."""

    def prefill_misses(self, instances, requests_per_s, lengths) -> float:
        return max(0.0, 1.0 - 0.8 * instances * self.prefill_limit_rps(lengths) / requests_per_s)

    def decode_misses(self, instances, requests_per_s, lengths) -> float:
        return max(0.0, 1.0 - 0.8 * instances * self.decode_limit_rps(lengths) / requests_per_s)


class Log:
    """Keeps everything it is told."""

    def __init__(self) -> None:
        self.records, self.events, self.decisions = [], [], []

    def ticked(self, record, decision, states) -> None:
        self.records.append(record)
        self.decisions.append(decision)

    def happened(self, event) -> None:
        self.events.append(event)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


class LiveWorld:
    """Everything a loop needs, with handles on it; ``run`` ticks so many times."""

    def __init__(self, path=":memory:", clock=None, pools=None, live=None, **config) -> None:
        self.clock = clock or VirtualClock()
        self.config = AutoscalerConfig(**(ONE_GPU | config))
        self.live = LiveConfig(**({"actuator": "export", "lock_dir": "/tmp"} | (live or {})))
        self.pools = pools or ToyPools(self.clock)
        self.load = Load()
        self.load.pools = self.pools
        self.log = Log()
        self.path = path
        self.loop = self.new_loop()

    def new_loop(self) -> ControlLoop:
        if hasattr(self, "journal"):
            self.journal._unlock()  # as the system does for a process that is killed
        self.journal = Journal(self.path, self.pools.target, self.live.journal_retention_days * 86400)
        return ControlLoop(
            self.config,
            self.live,
            RoundNumbers(),
            self.load,
            self.pools,
            self.journal,
            self.clock,
            (self.log,),
            LinearTwin(decode_tokens_per_s=1600.0),
        )

    def wanted(self, requests: float) -> Sizes:
        return initial_targets(self.config, RoundNumbers(), requests, self.load.isl, self.load.osl)

    def ticks(self, count: int, start: int = 1) -> None:
        for number in range(start, start + count):
            self.loop._wait_for(number)
            self.loop.tick(number)
