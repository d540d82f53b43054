"""The emulated cluster: the simulator's kernel, with each engine's metrics counted beside it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sagescale.live.emulator.engine_metrics import EngineMetrics
from sagescale.perf import ProfileModel
from sagescale.sim.engine import Cluster, ServiceLoad
from sagescale.sim.initial import sized_start
from sagescale.sim.scheduler import check_engines, check_trace
from sagescale.sim.startup import StartupDraws
from sagescale.sim.state import DONE, DRAINING, FREE, IN_HANDOFF, IN_PREFILL, READY, RUNNING, WAITING_PREFILL
from sagescale.sim.world import build_world, computed_tokens, engine_pools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sagescale.fleet import Pools
    from sagescale.perf import Profile
    from sagescale.planner import AutoscalerConfig, Sizes
    from sagescale.sim.config import SimulatorConfig
    from sagescale.trace import Trace

_STEP_S = 0.02
"""The kernel is read this often, so that who served a prompt is known before it moves on."""

_COUNT_S, _COUNT_DRAINING_S = 2.0, 0.5
"""What the engines did is added up this often, and before every page; more often while one drains, whose slot
is another's once it has stopped."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went so far; ``gpu_hours`` by pool."""

    time_s: float
    arrived: int
    completed: int
    attainment: float | None
    gpu_hours: dict[str, float]
    max_gpus_used: int
    finished: bool


class EmulatedCluster:
    """A trace served by modelled pools, with vLLM's metrics for every instance.

    A prefill instance counts each request with OSL 1, as engines do whose proxy asks them for one token;
    the decode instance then counts it with its whole output. An aggregated instance counts each once; one
    that a crash threw back has no second first token. ``linger_s`` keeps the page of an instance that has
    stopped for that long, as a pod is given time to end.

    Raises:
        InputError: what a simulation refuses: keys that contradict one another, or a trace without what they
            go by.
    """

    def __init__(
        self,
        trace: Trace,
        profile: Profile,
        config: AutoscalerConfig,
        simulator: SimulatorConfig,
        linger_s: float = 30.0,
    ) -> None:
        self.config = config
        self.trace = trace
        self.linger_s = linger_s
        model = ProfileModel(profile)
        check_engines(config, simulator, model.max_num_seqs)
        check_trace(trace, simulator)
        self._max_kv_tokens = model.max_kv_tokens
        self._first_at_prefill = simulator.first_token == "prefill"
        self._aggregated = config.serving == "aggregated"
        initial = sized_start(trace, model, config, simulator)
        self._prompt = computed_tokens(trace, simulator)
        world = build_world(model, simulator, config)
        self._pools = engine_pools(config, world, "gpu")
        self.cluster = Cluster.alone(
            ServiceLoad(
                "service",
                self._pools,
                tuple(initial),
                trace.arrival_s,
                trace.isl,
                self._prompt,
                trace.osl,
                StartupDraws(simulator.startup_delay_s, simulator.simulation_seed, "service"),
                trace.priority,
                trace.prefixes if simulator.prefix_cache else None,
                trace.session_id,
            )
        )
        count = len(trace)
        self._prefill_of = np.full(count, -1, np.int64)  # the prefill instance's id, once known
        self._prefilled = np.zeros(count, bool)
        self._prefilled_s = np.full(count, np.nan)
        self._sent_s = trace.arrival_s.copy()  # to prefill; again after a crash, with what it has to compute
        self._sent_tokens = trace.isl.astype(np.float64)
        self._computed = self._prompt.astype(np.float64)
        self._asked = trace.osl.astype(np.float64)  # of the engines that have it now
        self._completed = 0
        self._oldest_prompt = 0  # every request before it has left prefill
        self._oldest = 0  # every request before it has ended
        self._engines: dict[tuple[str, int], EngineMetrics] = {}
        self._stopped_s: dict[tuple[str, int], float] = {}
        self._good = 0
        self._counted_s = 0.0
        self._born_s = time.monotonic()
        self._track()

    @property
    def now_s(self) -> float:
        """Seconds since the first arrival."""
        return self.cluster.now_s

    @property
    def finished(self) -> bool:
        """Whether every request has ended."""
        return self.cluster.settled

    def compile(self) -> None:
        """Have the whole kernel compiled before anybody waits for an answer: half a minute, once."""
        nothing = np.zeros(0, np.int32)
        ones = (1,) * len(self._pools)
        empty = ServiceLoad("service", self._pools, ones, np.zeros(0), nothing, nothing, nothing)
        Cluster.alone(empty).crash(self._pools[-1].name, 0)
        self.cluster.advance(0.0)
        self.engines()
        self.outcome()

    def advance(self, until_s: float) -> None:
        """Let the cluster work until then, in small steps."""
        while self.cluster.now_s < until_s:
            behind_s = until_s - self.cluster.now_s
            self.cluster.advance(min(until_s, self.cluster.now_s + max(_STEP_S, behind_s / 50)))
            if not self._aggregated:
                self._note_prefill()
            uncounted_s = self.cluster.now_s - self._counted_s
            if uncounted_s > _COUNT_S or (uncounted_s > _COUNT_DRAINING_S and self._draining()):
                self._count()
        self._track()

    def scale(self, sizes: Sizes) -> None:
        """Set both targets, as the simulator's planner would."""
        self._count()  # before a slot changes hands
        self.cluster.scale(*sizes)
        self._track()

    def crash(self, name: str) -> bool:
        """Lose an instance now, with its page and its counts; its requests go to prefill again.

        As a proxy that sends again what was made so far: prefill counts prompt and output tokens, from now.

        Returns:
            Whether there was such an instance.
        """
        role, _, number = name.partition("-")
        if (
            role not in self.cluster.pool_names
            or not number.isdigit()
            or (role, int(number)) not in self._engines
        ):
            return False
        self._count()
        before = self.cluster.requests["restarts"].copy()
        if not self.cluster.crash(role, int(number)):
            return False
        again = np.flatnonzero(self.cluster.requests["restarts"] != before)
        if len(again) and not self._aggregated:
            made = self.cluster.produced[again]
            self._sent_s[again] = self.now_s
            self._sent_tokens[again] = self.trace.isl[again] + made
            self._computed[again] = self._prompt[again] + made
            self._asked[again] = self.trace.osl[again] - made
            self._prefill_of[again] = -1
            self._prefilled[again] = False
            self._prefilled_s[again] = np.nan
            self._oldest_prompt = min(self._oldest_prompt, int(again[0]))
        del self._engines[role, int(number)]
        self._track()
        return True

    def reset(self) -> None:
        """Have every engine count again from nothing, as after a restart that only the counters show."""
        self._count()
        for key, engine in self._engines.items():
            self._engines[key] = EngineMetrics(engine.name, engine.role)

    def pools(self) -> Pools:
        """Return the pools by state."""
        return self.cluster.pools()

    def serving(self) -> dict[str, str]:
        """Return the engines that serve, by name: ``ready`` or ``draining``."""
        words = {READY: "ready", DRAINING: "draining"}
        return {
            f"{pool}-{number}": words[status]
            for pool in self.cluster.pool_names
            for number, status in zip(
                self.cluster.numbers(pool).tolist(),
                self.cluster.instances(pool)["status"].tolist(),
                strict=True,
            )
            if status in words
        }

    def engines(self) -> list[EngineMetrics]:
        """Return the engines that have a page now, all their numbers current."""
        self._count()
        self._gauge()
        return list(self._engines.values())

    def outcome(self) -> Outcome:
        """Sum up."""
        counters = self.cluster.counters()
        lives = self.cluster.lifetimes(self.now_s)
        hours = (lives["stop_s"] - lives["launch_s"]) / 3600.0
        return Outcome(
            time_s=self.now_s,
            arrived=counters.arrived,
            completed=counters.completed,
            attainment=self._good / counters.arrived if counters.arrived else None,
            gpu_hours={
                pool.name: float(hours[lives["pool"] == at].sum()) * pool.gpus
                for at, pool in enumerate(self._pools)
            },
            max_gpus_used=self.cluster.max_gpus_used,
            finished=self.finished,
        )

    # --- counting ------------------------------------------------------------------------------

    def _count(self) -> None:
        """Bring every engine's totals up to date."""
        self._counted_s = self.cluster.now_s
        if self._aggregated:
            self._count_first_tokens()
        else:
            self._count_prompts()
        self._count_completions()

    def _draining(self) -> bool:
        return bool((self.cluster.state.instances["status"] == DRAINING).any())

    def _note_prefill(self) -> None:
        """Note at which prefill instance requests are, before they move on."""
        window = slice(self._oldest_prompt, self.cluster.counters().arrived)
        records = self.cluster.requests[window]
        states = records["state"]
        at_prefill = (states == WAITING_PREFILL) | (states == IN_PREFILL)
        ids = self.cluster.numbers_by_slot
        self._prefill_of[window][at_prefill] = ids[records["bound"][at_prefill]]
        if not self._first_at_prefill:
            # No record says when prefill ended: when it was first seen to have, and before the first token.
            left = (states > IN_PREFILL) & np.isnan(self._prefilled_s[window])
            self._prefilled_s[window][left] = np.fmin(records["first_token_s"][left], self.cluster.now_s)

    def _count_prompts(self) -> None:
        """Find the requests that have left prefill since the last count."""
        window = slice(self._oldest_prompt, self.cluster.counters().arrived)
        states = self.cluster.requests["state"][window]
        if not len(states):
            return
        left = (states > IN_PREFILL) & (states <= DONE) & ~self._prefilled[window]
        if left.any():
            index = np.flatnonzero(left) + self._oldest_prompt
            self._prefilled[index] = True
            if self._first_at_prefill:
                first_s = self.cluster.requests["first_token_s"][index]
                # One sent again has had its first token: when it left prefill, no record says.
                self._prefilled_s[index] = np.where(first_s < self._sent_s[index], self.now_s, first_s)
            self._credit_prefill(index)
        gone = self._prefilled[window] | (states > DONE)
        self._oldest_prompt += int(np.argmin(gone)) if not gone.all() else len(gone)

    def _credit_prefill(self, index: NDArray[np.intp]) -> None:
        # Arrived and gone within one step: any instance that was ready may have served it.
        unknown = index[self._prefill_of[index] < 0]
        if len(unknown):
            ready = self._serving("prefill")
            self._prefill_of[unknown] = ready[unknown % len(ready)] if len(ready) else 0
        for identity in np.unique(self._prefill_of[index]).tolist():
            mine = index[self._prefill_of[index] == identity]
            engine = self._engine("prefill", identity)
            spent_s = self._prefilled_s[mine] - self._sent_s[mine]
            isl = self._sent_tokens[mine]
            computed = self._computed[mine]
            engine.completed += len(mine)
            engine.cache_queries += float(isl.sum())
            engine.cache_hits += float((isl - computed).sum())
            engine.ttft.observe(spent_s)
            engine.duration.observe(spent_s)
            engine.prompt.observe(isl)
            engine.generation.observe(np.ones(len(mine)))
            engine.request_itl.observe(np.zeros(len(mine)))

    def _count_first_tokens(self) -> None:
        """Find the requests that have had their first token, aggregated, since the last count."""
        window = slice(self._oldest_prompt, self.cluster.counters().arrived)
        records = self.cluster.requests[window]
        if not len(records):
            return
        index = np.flatnonzero(~np.isnan(records["first_token_s"]) & ~self._prefilled[window])
        index += self._oldest_prompt
        self._prefilled[index] = True
        requests = self.cluster.requests[index]
        for slot in np.unique(requests["bound"]).tolist():
            mine = index[requests["bound"] == slot]
            engine = self._engine("aggregated", int(self.cluster.numbers_by_slot[slot]))
            engine.ttft.observe(self.cluster.requests["first_token_s"][mine] - self.trace.arrival_s[mine])
            engine.cache_queries += float(self.trace.isl[mine].sum())
            engine.cache_hits += float((self.trace.isl[mine] - self._prompt[mine]).sum())
            engine.cache_hits += float(self._found(mine).sum())
        gone = self._prefilled[window] | (records["state"] >= DONE)
        self._oldest_prompt += int(np.argmin(gone)) if not gone.all() else len(gone)

    def _found(self, index: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return the tokens of requests that prefix caches held when they were first admitted."""
        stepped = self.cluster.state.stepped
        assert stepped is not None  # aggregated instances step
        found: NDArray[np.int64] = stepped.requests["hit_tokens"][index].astype(np.int64)
        return found

    def _count_completions(self) -> None:
        """Find the requests that have ended in decode since the last count."""
        index = self.cluster.completed[self._completed :].astype(np.intp)
        if not len(index):
            return
        self._completed += len(index)
        records = self.cluster.requests[index]
        osl = self.trace.osl[index].astype(np.float64)
        ttft_s = records["first_token_s"] - self.trace.arrival_s[index]
        in_time = ttft_s * 1000 <= self.config.target_ttft_ms
        self._good += int(np.count_nonzero(in_time & ~self.cluster.itl_misses(index)))
        # What engines know of one sent again begins there.
        again = self._sent_s[index] > self.trace.arrival_s[index]
        isl, osl = self._sent_tokens[index], self._asked[index]
        first_s = np.where(again, self._prefilled_s[index], records["first_token_s"])
        itl_s = _itl_s(first_s, records["done_s"], osl)
        if self._aggregated:
            self._count_aggregated(index, itl_s)
            return
        # With the first token from prefill, a request of one token never reaches decode.
        decoded = np.flatnonzero(osl > 1) if self._first_at_prefill else np.arange(len(osl))
        slots = records["bound"]
        ids = self.cluster.numbers_by_slot
        for slot in np.unique(slots[decoded]).tolist():
            mine = decoded[slots[decoded] == slot]
            engine = self._engine("decode", int(ids[slot]))
            duration_s = records["done_s"][mine] - self._prefilled_s[index[mine]]
            engine.answered(duration_s, isl[mine], osl[mine], itl_s[mine])
            if not self._first_at_prefill:
                fresh = mine[~again[mine]]
                engine.ttft.observe(records["first_token_s"][fresh] - self._prefilled_s[index[fresh]])

    def _count_aggregated(self, index: NDArray[np.intp], itl_s: NDArray[np.float64]) -> None:
        """Credit requests that have ended to the aggregated instances that served them."""
        records, stepped = self.cluster.requests[index], self.cluster.state.stepped
        assert stepped is not None  # aggregated instances step
        osl = self.trace.osl[index].astype(np.float64)
        for slot in np.unique(records["bound"]).tolist():
            mine = np.flatnonzero(records["bound"] == slot)
            engine = self._engine("aggregated", int(self.cluster.numbers_by_slot[slot]))
            duration_s = records["done_s"][mine] - self.trace.arrival_s[index[mine]]
            isl = self.trace.isl[index[mine]].astype(np.float64)
            engine.answered(duration_s, isl, osl[mine], itl_s[mine])
            engine.preemptions += float(stepped.requests["preemptions"][index[mine]].sum())

    # --- instances -----------------------------------------------------------------------------

    def _serving(self, pool: str) -> NDArray[np.int64]:
        """Return the numbers of a pool's instances that serve, draining ones included."""
        status = self.cluster.instances(pool)["status"]
        numbers: NDArray[np.int64] = self.cluster.numbers(pool)[(status == READY) | (status == DRAINING)]
        return numbers

    def _engine(self, role: str, identity: int) -> EngineMetrics:
        key = (role, identity)
        if key not in self._engines:
            self._engines[key] = EngineMetrics(f"{role}-{identity}", role)
        return self._engines[key]

    def _track(self) -> None:
        """Add pages of instances that are up, drop those of instances long stopped."""
        up = {(pool, number) for pool in self.cluster.pool_names for number in self._serving(pool).tolist()}
        for role, identity in up:
            self._engine(role, identity)
        for key in [key for key in self._engines if key not in up]:
            since_s = self._stopped_s.setdefault(key, self.now_s)
            if self.now_s - since_s > self.linger_s:
                del self._engines[key], self._stopped_s[key]

    def _gauge(self) -> None:
        """Bring the gauges, and tokens of requests in progress, up to date."""
        arrived, requests = self.cluster.counters().arrived, self.cluster.requests
        ended = requests["state"][self._oldest : arrived] >= DONE
        self._oldest += int(np.argmin(ended)) if not ended.all() else len(ended)
        if self._aggregated:
            self._gauge_aggregated()
            return
        records = requests[self._oldest : arrived]
        bound, states = records["bound"], records["state"]
        slots = len(self.cluster.numbers_by_slot)
        in_handoff = np.bincount(bound[states == IN_HANDOFF], minlength=slots)
        in_batch = np.bincount(bound[states == IN_PREFILL], minlength=slots)
        running = states == RUNNING
        prompts = np.bincount(bound[running], self._sent_tokens[self._oldest : arrived][running], slots)
        for engine in self._engines.values():
            engine.running = engine.waiting = 0.0
            engine.cpu_s = time.monotonic() - self._born_s  # it takes the clock's time to say anything
            engine.generated_tokens = max(engine.generated_tokens, engine.generation.total)
        for found, instance, slot in self._pages("prefill"):
            found.running = float(in_batch[slot])
            found.waiting = float(instance["queued"])
        decode = self.cluster.instances("decode")
        since = self.cluster.kv_tokens() - float(decode["kv"][decode["running"] > 0].sum())
        since /= max(1.0, float(decode["running"].sum()))
        for found, instance, slot in self._pages("decode"):
            found.running = float(instance["running"])
            found.waiting = float(instance["queued"] + in_handoff[slot])
            # The kernel counts tokens when an instance's batch changes; what was made since is shared out.
            kv_tokens = float(instance["kv"]) + since * found.running if found.running else 0.0
            # Whole requests are added up as they end; these are the tokens of those still running.
            made = kv_tokens - float(prompts[slot])
            found.generated_tokens = max(found.generated_tokens, found.generation.total + max(0.0, made))
            if self._max_kv_tokens is not None:
                found.kv_usage = kv_tokens / self._max_kv_tokens

    def _gauge_aggregated(self) -> None:
        state = self.cluster.state
        assert state.stepped is not None  # aggregated instances step
        engines, blocks = state.stepped.engines, int(state.pools["blocks"][0])
        # Tokens of the answers under way, which the kernel counts in all: shared out among those running.
        arrived = self.cluster.counters().arrived
        records = self.cluster.requests[self._oldest : arrived]
        answering = (records["state"] == RUNNING) & ~np.isnan(records["first_token_s"])
        prompts = float(self.trace.isl[self._oldest : arrived][answering].sum())
        running = max(1.0, float(sum(engines["running"])))
        made = max(0.0, self.cluster.kv_tokens() - prompts) / running
        for found in self._engines.values():
            found.running = found.waiting = 0.0
            found.cpu_s = time.monotonic() - self._born_s
        for found, instance, slot in self._pages("aggregated"):
            found.running = float(engines["running"][slot])
            found.waiting = float(instance["queued"])
            whole = found.generation.total + made * found.running
            found.generated_tokens = max(found.generated_tokens, whole)
            if self._max_kv_tokens is not None:
                found.kv_usage = min(1.0, float(engines["used"][slot]) / blocks)

    def _pages(self, pool: str) -> Iterator[tuple[EngineMetrics, np.void, int]]:
        """The engines of a pool that have a page, with their records and slots."""
        instances, numbers = self.cluster.instances(pool), self.cluster.numbers(pool)
        for at in np.flatnonzero(instances["status"] != FREE).tolist():
            found = self._engines.get((pool, int(numbers[at])))
            if found is not None:
                yield found, instances[at], self.cluster.slots(pool).start + at


def _itl_s(
    first_s: NDArray[np.float64], done_s: NDArray[np.float64], tokens: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean time between tokens, a request; 0 where there is one token only."""
    return np.divide(done_s - first_s, tokens - 1, out=np.zeros(len(tokens)), where=tokens > 1)
