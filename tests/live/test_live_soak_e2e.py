"""A soak of real processes: faults and kills at random while a planner scales the emulator.

The load is a stair: lengths never vary, and the rate takes another step every interval, each in the middle
between two sizes. With policy ``classic``, predictor ``constant`` and nothing learned or corrected, a
decision depends on the last window alone, so it must equal the simulator's as soon as two windows have been
complete, whatever went wrong before. Sizes change at most ticks: who holds for ever is wrong at most of them.

The emulator is given a larger budget than the planner, so that it is the planner who keeps it.

``SAGESCALE_SOAK="hours=30 kills=30 speed=120"`` is the long one (``make soak``); ``sources=direct`` takes one
kind of source only, ``kinds=crash,ranks`` those faults (``none`` none), and ``seed=N`` other times.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import re
import signal
import sys
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from live_processes import Process, World, begin, free_port, get_json, post_json, wait_for
from live_proxy import HOSTILE, Proxy
from sagescale.live.journal import read_journal
from sagescale.live.setup import configured
from sagescale.planner import Sizes, initial_targets
from sagescale.sim.simulate import simulate
from sagescale.trace import read_trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from sagescale.live.records import TickRecord
    from sagescale.live.setup import Configured

    Fault = Callable[["Soak"], Callable[[], None]]

pytestmark = pytest.mark.soak

OPTIONS = {
    "hours": "4",
    "kills": "4",
    "speed": "150",
    "seed": "1",
    "sources": "prometheus,direct",
    "kinds": "all",
}
OPTIONS |= dict(text.split("=", 1) for text in os.environ.get("SAGESCALE_SOAK", "").split())
INTERVAL_S = 300
SPEED = float(OPTIONS["speed"])
WALL_S = INTERVAL_S / SPEED
SCRAPE_S = 0.25
TICKS = round(float(OPTIONS["hours"]) * 3600 / INTERVAL_S)
ISL, OSL = 24_000, 400
BUDGET = 10
SETTINGS: dict[str, object] = {
    "adjustment_interval_sec": INTERVAL_S,
    "target_itl_ms": 6,
    "policy": "classic",
    "load_predictor_type": "constant",
    "load_headroom": 1.3,
    "enable_online_learning": "false",
    "enable_correction": "false",
    "max_gpu_budget": BUDGET,
}
AGAIN = """- job_name: again
  honor_labels: true
  metrics_path: /again/metrics
  static_configs: [{{targets: ['{}']}}]
"""
LIVE: dict[str, object] = {
    "metrics_preset": "vllm",
    "metrics_timeout_s": 0.5 * WALL_S,
    "actuator_timeout_s": 0.4 * WALL_S,
    "webhook_attempts": 2,
    "metrics_max_bytes": 4_000_000,
    "no_data_timeout_s": 4 * INTERVAL_S,
}


# --- faults ------------------------------------------------------------------------------------------


def _mode(link: str, *modes: str) -> Fault:
    """One of the links of the planner's world does something else than hand on."""

    def start(soak: Soak) -> Callable[[], None]:
        mode = soak.one_of(modes)
        soak.tell(mode)
        proxy = getattr(soak, link)
        proxy.mode = mode
        return lambda: setattr(proxy, "mode", "pass")

    return start


def _emulated(**document: object) -> Fault:
    """The emulator's own fault."""

    def start(soak: Soak) -> Callable[[], None]:
        soak.fault(**document)
        return lambda: soak.fault(kind="none")

    return start


def _lies(true: float | None, **lies: float) -> Fault:
    """Pages say something that cannot be."""

    def start(soak: Soak) -> Callable[[], None]:
        def end() -> None:
            for name in lies:
                setattr(soak.pages.lies, name, true)

        for name, lie in lies.items():
            setattr(soak.pages.lies, name, lie)
        return end

    return start


def _double(soak: Soak) -> Callable[[], None]:
    """Every engine is read by a second job too."""
    if soak.source == "direct":
        return _emulated(kind="double")(soak)
    soak.pages.again = True
    return lambda: setattr(soak.pages, "again", False)


def _scrapes_missed(soak: Soak) -> Callable[[], None]:
    """One instance or another does not answer, again and again."""
    over = threading.Event()

    def miss() -> None:
        while not over.wait(SCRAPE_S * 2):
            if name := soak.an_instance():
                soak.fault(kind="miss", instance=name)

    thread = threading.Thread(target=miss, daemon=True)
    thread.start()

    def end() -> None:
        over.set()
        thread.join()

    return end


def _crash(soak: Soak) -> Callable[[], None]:
    """An instance dies; discovery may go on to list it for a while."""
    if name := soak.an_instance():
        soak.fault(kind="crash", instance=name, value=soak.random.choice([0, 120, 600]))
    return lambda: None


def _reset(soak: Soak) -> Callable[[], None]:
    """Every engine restarts, and counts from nothing."""
    soak.fault(kind="reset")
    return lambda: None


def _prometheus_stands_still(soak: Soak) -> Callable[[], None]:
    assert soak.world.prometheus is not None
    process = soak.world.prometheus.running
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    return lambda: process.send_signal(signal.SIGCONT)


def _prometheus_killed(soak: Soak) -> Callable[[], None]:
    assert soak.world.prometheus is not None
    soak.world.prometheus.stop()

    def end() -> None:
        assert soak.world.prometheus is not None
        began_s = time.time()
        soak.world.prometheus.start()
        # It takes seconds until it scrapes again; what it answers before that is from before.
        url = f"{soak.world.prometheus_url}/api/v1/query?query=max(timestamp(up))"
        wait_for(
            lambda: any(float(found["value"][1]) > began_s for found in get_json(url)["data"]["result"]),
            "Prometheus has scraped again",
        )

    return end


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Attributes:
        start: How it begins; it returns how it ends.
        blind: Whether nobody can know the load of a window that lies in it.
        whole: Whether it begins and ends with windows: of half a window it would only be said that there is
            less load, and nothing in the window contradicts it.
        source: The only kind of source that it is one for.
    """

    start: Fault
    blind: bool
    whole: bool = False
    source: str = ""


KINDS: dict[str, Kind] = {
    "scrapes_missed": Kind(_scrapes_missed, blind=False),
    "scrapes_blocked": Kind(_mode("pages", "refuse", "hang"), blind=True),
    "scrapes_hostile": Kind(_mode("pages", *HOSTILE), blind=True, source="direct"),
    "queries_blocked": Kind(_mode("queries", "refuse", "hang"), blind=True, source="prometheus"),
    "queries_hostile": Kind(_mode("queries", *HOSTILE), blind=True, source="prometheus"),
    "prometheus_stands_still": Kind(_prometheus_stands_still, blind=True, source="prometheus"),
    "prometheus_killed": Kind(_prometheus_killed, blind=True, source="prometheus"),
    "orders_blocked": Kind(_mode("orders", "refuse", "hang"), blind=True),
    "orders_hostile": Kind(_mode("orders", *HOSTILE), blind=True),
    "half_the_instances": Kind(_emulated(kind="half"), blind=True),
    "negative_running": Kind(_lies(None, running=-15.0), blind=True),
    "lengths_of_zero": Kind(_lies(1.0, prompt=0.0, generation=0.0), blind=True, whole=True),
    "osl_too_small": Kind(_lies(1.0, generation=1 / 700), blind=True, whole=True),
    "error": Kind(_emulated(kind="error"), blind=True),
    "nan": Kind(_emulated(kind="nan"), blind=True),
    "frozen": Kind(_emulated(kind="frozen"), blind=True, whole=True),
    "reset": Kind(_reset, blind=False),
    "ranks": Kind(_emulated(kind="ranks", value=3), blind=False),
    "double": Kind(_double, blind=False),
    "crash": Kind(_crash, blind=False),
}


# --- the run -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Episode:
    """A fault from one time to another, in ticks; a kill's is until the planner is up again."""

    kind: str
    begins: float
    ends: float
    detail: str = ""


@dataclass
class Soak:
    """The world, what was done to it, and what was seen from outside."""

    world: World
    source: str
    random: random.Random
    pages: Proxy
    queries: Proxy
    orders: Proxy
    exporter_port: int
    planner: Process | None = None
    episodes: list[Episode] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    memory: list[tuple[float, int, float]] = field(default_factory=list)  # tick, process, MB
    peak_mb: float = 0.0
    failures: float | None = None  # of the loop's catch-all
    _modes: dict[tuple[str, ...], list[str]] = field(default_factory=dict)

    @property
    def tick(self) -> float:
        """Now, in ticks since the trace began."""
        return (time.time() - self.world.began_s) / WALL_S

    def one_of(self, modes: tuple[str, ...]) -> str:
        """Choose at random, but each as often as the others."""
        left = self._modes.setdefault(modes, [])
        if not left:
            left.extend(self.random.sample(modes, len(modes)))
        return left.pop()

    def tell(self, detail: str) -> None:
        self._current.detail = detail

    def fault(self, **document: object) -> None:
        try:
            post_json(f"{self.world.emulator_url}/fault", document)
        except OSError as error:  # an instance that has just gone
            if document["kind"] not in {"miss", "crash"}:
                raise AssertionError(f"{document}: {error}") from None

    def an_instance(self) -> str | None:
        listed = get_json(f"{self.world.emulator_url}/sd")
        serving = [
            entry["labels"]["instance"]
            for entry in listed
            if entry["labels"]["__meta_sagescale_state"] == "ready"
        ]
        return self.random.choice(serving) if serving else None

    # --- doing ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Carry out what was planned, and look at the planner all the while."""
        plan = self._plan()
        for at, action, argument in plan:
            self._watch_until(at)
            whole = action == self._begin and KINDS[argument].whole
            if whole or (action == self._end and KINDS[self._current.kind].whole):
                self._watch_until(math.ceil(self.tick - 0.2) + 0.05)  # if a kill came between
            action(argument)
        self._watch_until(TICKS + 0.5)

    def _plan(self) -> list[tuple[float, Callable[[str], None], str]]:
        """Faults one after another, each kind as often as the others, with a few quiet windows between."""
        actions: list[tuple[float, Callable[[str], None], str]] = []
        wished = OPTIONS["kinds"].split(",")
        names = [
            name
            for name, kind in KINDS.items()
            if kind.source in {"", self.source} and (wished == ["all"] or name in wished)
        ]
        at = 3.0 + self.random.random()
        left: list[str] = []
        while names and at < TICKS - 4:
            if not left:
                left = self.random.sample(names, len(names))
            end = min(at + self.random.uniform(0.3, 5.0), TICKS - 3.5)
            if KINDS[left[-1]].whole:  # while the trace stands still around a tick
                at, end = round(at) + 0.1, round(end) + 1.1
            actions += [(at, self._begin, left.pop()), (end, self._end, "")]
            at = end + self.random.uniform(3.0, 5.5)
        # The last third is left to one process, whose memory is looked at.
        actions += [
            (self.random.uniform(1.5, 0.66 * TICKS), self._kill, "") for _ in range(int(OPTIONS["kills"]))
        ]
        return sorted(actions, key=lambda action: action[0])

    def _begin(self, kind: str) -> None:
        self._current = Episode(kind, self.tick, math.inf)
        self.episodes.append(self._current)
        self._undo = KINDS[kind].start(self)

    def _end(self, _: str) -> None:
        self._undo()
        self._current.ends = self.tick

    def _kill(self, _: str) -> None:
        assert self.planner is not None
        episode = Episode("kill", self.tick, math.inf)
        self.episodes.append(episode)
        starts = self.planner.log.count('"started"')
        self.planner.end(signal.SIGKILL)
        self.planner.start()
        wait_for(lambda: self.planner.log.count('"started"') > starts, "the planner is up again", 60)
        episode.ends = self.tick

    def _watch_until(self, tick: float) -> None:
        while self.tick < tick:
            assert self.planner is not None
            assert self.planner.running is not None
            if (code := self.planner.running.poll()) is not None:
                raise AssertionError(f"the planner ended with {code}: {self.planner.log[-3000:]}")
            self._measure(self.planner.running.pid)
            time.sleep(min(0.3, max(0.0, tick - self.tick) * WALL_S))

    def _measure(self, pid: int) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            sizes = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status))
            url = f"http://127.0.0.1:{self.exporter_port}/metrics"
            with urllib.request.urlopen(url, timeout=2) as answer:
                found = re.search(
                    r"^sagescale_loop_failures_total(?:{.*})? (\S+)$", answer.read().decode(), re.MULTILINE
                )
        except OSError:
            return  # it is starting
        self.memory.append((self.tick, pid, int(sizes["VmRSS"]) / 1024))
        self.peak_mb = max(self.peak_mb, int(sizes["VmHWM"]) / 1024)
        if found is not None:
            self.failures = max(self.failures or 0.0, float(found[1]))


def staircase(path: Path, setup: Configured, rng: random.Random) -> None:
    """Write a trace whose rate takes a step every interval, in the middle between two sizes of the pools."""

    def sized(rps: float) -> Sizes:
        return initial_targets(setup.config, setup.model, rps * INTERVAL_S, ISL, OSL)

    rates, seen = [], set()
    for step in range(10, 400):
        rps = step / 50
        near = {sized(rps * (1 + percent / 100)) for percent in range(-8, 9)}
        if len(near) == 1 and not near & seen:
            seen |= near
            rates.append(rps)
    level = len(rates) // 2
    with path.open("w", encoding="ascii") as out:
        out.write("arrival_s,isl,osl\n")
        for window in range(TICKS):
            count = round(rates[level] * INTERVAL_S)
            for index in range(count):
                at_s = window * INTERVAL_S + (index + (0.5 if window else 0.0)) * (INTERVAL_S - 1) / count
                out.write(f"{at_s:.4f},{ISL},{OSL}\n")
            level = min(max(level + rng.choice([-2, -1, -1, 1, 1, 2]), 0), len(rates) - 1)


# --- what must be so ---------------------------------------------------------------------------------


class Verdict:
    """The journal and the log of orders, held against what was done and what the simulator decides."""

    def __init__(self, soak: Soak, reference: list[Sizes]) -> None:
        self.soak, self.reference = soak, reference
        self.decided = range(3, len(reference) + 1)
        self.records, events = read_journal(soak.world.folder / "journal.sqlite")
        self.ticks: dict[int, TickRecord] = {}
        self.by_id: dict[int, TickRecord] = {}
        began_s = float(journal_meta(soak.world.folder / "journal.sqlite")["began_s"])
        for record in self.records:
            wall_s = began_s + (record.time_s - began_s) / SPEED
            self.by_id[record.id] = record
            self.ticks[self.number(wall_s)] = record
        self.events = Counter(event.kind for event in events)

    def number(self, wall_s: float) -> int:
        return round((wall_s - self.soak.world.began_s) / WALL_S)

    def wants(self, tick: int) -> Sizes:
        return self.reference[min(max(tick, 1), len(self.reference)) - 1]

    def quiet(self, tick: int) -> bool:
        """Whether no fault was in force in the two windows before a tick."""
        slack = 2 * SCRAPE_S / WALL_S
        return tick > 2 and all(
            item.ends + slack <= tick - 2 or item.begins >= tick + 0.2 for item in self.soak.episodes
        )

    def blind(self, tick: int) -> str:
        """The fault that leaves nothing to know about a tick's whole window, if there is one."""
        for item in self.soak.episodes:
            inside = item.begins <= tick - 1 and item.ends >= tick
            if item.kind in KINDS and KINDS[item.kind].blind and inside:
                return f"{item.kind} {item.detail}".strip()
        return ""

    def partial(self, tick: int) -> bool:
        """Whether a window read directly is short: the planner began in it, or came late to the one before.

        Of a trace that pauses, a part of an interval is no measure.
        """
        return self.soak.source == "direct" and self.ticks[tick].observation.window_s < 0.95 * INTERVAL_S

    def around(self, tick: int) -> str:
        """What was going on in the windows before a tick, in words."""
        near = [
            f"{item.kind} {item.detail} {item.begins:.2f}-{item.ends:.2f}"
            for item in self.soak.episodes
            if item.begins < tick + 0.2 and item.ends > tick - 3
        ]
        return "; ".join(near) or "nothing"

    def describe(self, tick: int) -> str:
        record = self.ticks[tick]
        seen = record.observation
        return (
            f"tick {tick}: {tuple(record.current)} -> {tuple(record.goal)}, right is "
            f"{tuple(self.wants(tick))}, from {seen.requests} requests, "
            f"isl {seen.isl_mean}, osl {seen.osl_mean}, "
            f"{[(problem.code, problem.text[:160]) for problem in record.problems]} "
            f"{[note.code for note in record.notes]}; "
            f"faults: {self.around(tick)}"
        )

    def wrong(self) -> list[str]:
        """Whatever is not as it must be."""
        found = list(self.soak.complaints)
        for tick, record in sorted(self.ticks.items()):
            if tick not in self.decided:
                continue
            shrinks = any(to < at for to, at in zip(record.goal, record.current, strict=True))
            if shrinks and record.observation.requests is None:
                found.append(f"scale-down on an unknown load: {self.describe(tick)}")
            elif shrinks and self.blind(tick):
                found.append(f"scale-down in {self.blind(tick)}: {self.describe(tick)}")
            elif self.partial(tick):
                continue
            elif any(
                to < min(at, right)
                for to, at, right in zip(record.goal, record.current, self.wants(tick), strict=True)
            ):
                found.append(f"scale-down below what the load needs: {self.describe(tick)}")
            floor = any(note.code == "safe_floor" for note in record.notes)
            known = [self.wants(number) for number in range(tick - 2, tick + 1)]
            spare = any(item.kind == "crash" and tick - 3 < item.begins < tick for item in self.soak.episodes)
            if not floor and any(
                to > max(at, *(sizes[pool] for sizes in known)) + spare
                for pool, (to, at) in enumerate(zip(record.goal, record.current, strict=True))
            ):
                found.append(f"scale-up that no load asked for: {self.describe(tick)}")
        found += self._orders()
        found += self._logs()
        found += [
            f"not alive: {self.describe(tick)}"
            for tick in self.compared()
            if self.ticks[tick].goal != self.wants(tick) and tick not in self.held()
        ]
        return found

    def _orders(self) -> list[str]:
        found = []
        ids = sorted(self.by_id)
        if ids != list(range(ids[0], ids[-1] + 1)):
            found.append(f"records are missing: {len(ids)} from {ids[0]} to {ids[-1]}")
        for order in self.soak.orders.orders:
            record = self.by_id.get(int(re.split(r"[-.]", order.key)[1]))
            if record is None:
                found.append(f"no record of the order {order}")
            if order.prefill + order.decode > BUDGET:
                found.append(f"past the budget of {BUDGET}: {order}")
        most = self.soak.world.state()["max_gpus_used"]
        if most > BUDGET:
            found.append(f"{most} GPUs were held at once, {BUDGET} are allowed")
        return found

    def _logs(self) -> list[str]:
        found = []
        for process in self.soak.world.processes:
            if "Traceback" in process.log:
                at = process.log.index("Traceback")
                found.append(f"traceback in {process.name}: {process.log[at : at + 2000]}")
        assert self.soak.planner is not None
        said = sum(line.startswith('{"kind": "tick"') for line in self.soak.planner.log.splitlines())
        if said > len(self.by_id):
            found.append(f"{said} ticks were told of, {len(self.by_id)} are in the journal")
        if self.soak.failures != 0:
            found.append(f"sagescale_loop_failures_total is {self.soak.failures}, expected 0")
        return found

    def held(self) -> list[int]:
        """Quiet ticks at which the load was not known: the machine was busy elsewhere for too long."""
        late = {"source_failed", "window_incomplete", "scrapes_late", "pools_unknown"}
        return [
            tick
            for tick in self.compared()
            if (seen := self.ticks[tick]).goal == seen.current
            and late & {problem.code for problem in seen.problems}
        ]

    def compared(self) -> list[int]:
        """The ticks that have to equal the simulator's."""
        return [tick for tick in sorted(self.ticks) if tick in self.decided and self.quiet(tick)]


def journal_meta(path: Path) -> dict[str, str]:
    import sqlite3

    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as journal:
        return dict(journal.execute("SELECT key, value FROM meta").fetchall())


@pytest.mark.parametrize("source", OPTIONS["sources"].split(","))
def test_nothing_ends_stalls_or_misleads_it(source, tmp_path, capsys):
    began_s = time.monotonic()
    rng = random.Random(f"{OPTIONS['seed']} {source}")
    setup = configured(None, [], [f"{key}={value}" for key, value in SETTINGS.items()])
    trace = tmp_path / "stair.csv"
    staircase(trace, setup, rng)
    run = simulate(read_trace(trace), setup.profile, setup.config, setup.simulator)
    reference = [tick.decision.targets for tick in run.ticks]
    changes = sum(a != b for a, b in itertools.pairwise(reference))
    assert changes > 0.6 * len(reference), "who holds for ever is to be found out"

    world = World(tmp_path, SPEED)
    links: list[Proxy] = []
    try:
        roomy = {**SETTINGS, "max_gpu_budget": 4 * BUDGET}
        world.start_emulator(trace, "--tick-pause", "0.4", settings=roomy)
        links = [Proxy(port) for port in (world.emulator_port, world.prometheus_port, world.emulator_port)]
        soak = Soak(world, source, rng, *links, exporter_port=free_port())
        settings = {
            **SETTINGS,
            **world.live_settings(),
            **LIVE,
            "webhook_url": f"{soak.orders.url}/scale",
            "webhook_state_url": f"{soak.orders.url}/state",
            "exporter_port": soak.exporter_port,
        }
        if source == "prometheus":
            settings["prometheus_url"] = soak.queries.url
            world.start_prometheus(SCRAPE_S, target=soak.pages.host, jobs=AGAIN.format(soak.pages.host))
        else:
            del settings["prometheus_url"]
            settings["scrape_discovery_url"] = f"{soak.pages.url}/sd"
        soak.planner = begin(world, settings, WALL_S)
        soak.planner.words.remove("--standby")
        soak.run()
        ended = soak.planner.end()
        verdict = Verdict(soak, reference)
        wrong = verdict.wrong()
    finally:
        world.stop()
        for link in links:
            link.stop()

    compared = verdict.compared()
    possible = sum(verdict.quiet(tick) for tick in verdict.decided)
    moving = sum(reference[tick - 1] != reference[tick - 2] for tick in compared)
    last = [(at, size) for at, pid, size in soak.memory if pid == soak.memory[-1][1]]
    early = [size for at, size in last if at < last[0][0] + 0.25 * (last[-1][0] - last[0][0])]
    late = [size for at, size in last if at > last[0][0] + 0.75 * (last[-1][0] - last[0][0])]
    kinds = Counter(f"{item.kind} {item.detail}".strip() for item in soak.episodes)
    equal = sum(verdict.ticks[tick].goal == verdict.wants(tick) for tick in compared)
    hours = TICKS * INTERVAL_S / 3600
    took_s = time.monotonic() - began_s
    kills = kinds.pop("kill", 0)
    lines = [
        f"SOAK {source}: {hours:g} hours at {SPEED:g}x, seed {OPTIONS['seed']}, {took_s:.0f} s",
        f"{len(verdict.by_id)} records of {TICKS} ticks, {len(soak.orders.orders)} orders, {kills} kills",
        f"{sum(kinds.values())} faults: {json.dumps(dict(sorted(kinds.items())))}",
        f"{equal} of {len(compared)} decisions equal, {moving} of them changes, "  # noqa: ISC004
        f"{len(verdict.held())} held; {possible} ticks were quiet",
        *(f"held: {verdict.describe(tick)}" for tick in verdict.held()),
        f"RSS {min(early):.0f} MB early, {max(late):.0f} MB late in the last process, "  # noqa: ISC004
        f"{soak.peak_mb:.0f} MB at most",
        f"events {dict(verdict.events)}",
        *wrong,
    ]
    with capsys.disabled():
        print("", *lines, sep="\n", file=sys.stderr)
    assert ended == 0
    assert not wrong
    assert len(compared) - len(verdict.held()) >= 0.8 * possible - 1
    assert len(compared) >= 0.1 * TICKS
    assert max(late) <= min(early) + 30
    assert soak.peak_mb <= max(early) + 200
