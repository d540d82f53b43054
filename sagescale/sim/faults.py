"""What goes wrong in a run: scripted faults, and rates at which more are drawn (DESIGN 5, Faults).

A fault file is YAML with the keys of :class:`Faults`; ``docs/faults.md`` says what each fault does.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from sagescale.declare import Located, check, fill, pairs, setting
from sagescale.errors import InputError, did_you_mean
from sagescale.files import shown_path
from sagescale.key_file import read_key_tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sagescale.sim.engine import Pool

StartKind = Literal["slow_starts", "stuck_starts", "failing_starts", "cold_starts"]
OutageKind = Literal["no_gpus", "metrics_vanish", "metrics_freeze", "metrics_lag"]

_LATEST_S = 1e9


@dataclass(frozen=True, slots=True)
class Crash:
    """Instances that crash at one instant, just before the tick if it is one.

    ``instance`` is counted from 0 in its pool, the initial ones first; None is the READY one with the
    most outstanding tokens, ties to the lowest number, ``count`` times over.
    """

    at_s: float = setting(0.0, doc="When.", unit="s", at_least=0, at_most=_LATEST_S, needed=True)
    pool: Literal["prefill", "decode", "aggregated"] = setting("decode", doc="Which pool.", needed=True)
    instance: int | None = setting(
        None, doc="Which instance, counted from 0 in its pool; null is the busiest.", at_least=0
    )
    count: int = setting(1, doc="How many of the busiest.", at_least=1, at_most=100_000)

    def __post_init__(self) -> None:
        check(self)
        if self.instance is not None and self.count > 1:
            raise InputError(f"count is {self.count}; expected 1 where an instance is named")


@dataclass(frozen=True, slots=True)
class StartFault:
    """What may befall the instances launched in ``[from_s, to_s)``."""

    kind: StartKind = setting("slow_starts", doc="What befalls them.", needed=True)
    from_s: float = setting(
        0.0, doc="Launched from then on.", unit="s", at_least=0, at_most=_LATEST_S, needed=True
    )
    to_s: float = setting(
        _LATEST_S, doc="Launched before then.", unit="s", at_least=0, at_most=_LATEST_S, needed=True
    )
    pool: Literal["prefill", "decode", "aggregated", "both"] = setting(
        "both", doc="Of which pool; both is every pool there is."
    )
    probability: float = setting(1.0, doc="How likely it is for each.", at_least=0, at_most=1)
    factor: float = setting(
        3.0, doc="slow_starts: how many times the startup delay it takes.", at_least=1, at_most=1e6
    )
    extra_s: float = setting(
        10.0, doc="cold_starts: what the first batch or step takes longer.", unit="s", at_least=0, at_most=1e6
    )

    def __post_init__(self) -> None:
        check(self)
        _check_span(self.from_s, self.to_s)

    def covers(self, pool: Pool, launch_s: float) -> bool:
        """Whether an instance of this pool launched then may be befallen."""
        return self.pool in {pool, "both"} and self.from_s <= launch_s < self.to_s


@dataclass(frozen=True, slots=True)
class Outage:
    """Something that is not to be had in ``[from_s, to_s)``: GPUs, or current metrics."""

    kind: OutageKind = setting("no_gpus", doc="What is not to be had.", needed=True)
    from_s: float = setting(0.0, doc="From then on.", unit="s", at_least=0, at_most=_LATEST_S, needed=True)
    to_s: float = setting(_LATEST_S, doc="Until then.", unit="s", at_least=0, at_most=_LATEST_S, needed=True)
    lag_s: float = setting(
        60.0, doc="metrics_lag: how much older the metrics are.", unit="s", at_least=0, at_most=86400
    )

    def __post_init__(self) -> None:
        check(self)
        _check_span(self.from_s, self.to_s)


@dataclass(frozen=True, slots=True)
class Rates:
    """How often each fault is drawn; all 0 unless given.

    Probabilities are for each launch. Outages of a kind come at random, each as long as ``*_s`` says,
    the next not before the last is over.
    """

    crash_per_instance_hour: float = setting(
        0.0, doc="Crashes in an hour of a READY instance.", unit="1/h", at_least=0, at_most=3600
    )
    slow_start_probability: float = setting(
        0.0, doc="A start takes slow_start_factor times its delay.", at_least=0, at_most=1
    )
    slow_start_factor: float = setting(
        3.0, doc="How many times the delay a slow start takes.", at_least=1, at_most=1e6
    )
    stuck_start_probability: float = setting(0.0, doc="A start never gets READY.", at_least=0, at_most=1)
    failing_start_probability: float = setting(
        0.0, doc="A start fails after its delay and is tried again.", at_least=0, at_most=1
    )
    cold_start_probability: float = setting(
        0.0, doc="The first batch or step takes cold_start_extra_s longer.", at_least=0, at_most=1
    )
    cold_start_extra_s: float = setting(
        10.0, doc="What a cold first batch or step takes longer.", unit="s", at_least=0, at_most=1e6
    )
    no_gpus_per_hour: float = setting(
        0.0, doc="Times that no GPUs are to be had.", unit="1/h", at_least=0, at_most=3600
    )
    no_gpus_s: float = setting(600.0, doc="How long each lasts.", unit="s", at_least=1, at_most=_LATEST_S)
    metrics_vanish_per_hour: float = setting(
        0.0, doc="Times that no metric is known.", unit="1/h", at_least=0, at_most=3600
    )
    metrics_vanish_s: float = setting(
        300.0, doc="How long each lasts.", unit="s", at_least=1, at_most=_LATEST_S
    )
    metrics_freeze_per_hour: float = setting(
        0.0, doc="Times that metrics repeat the last ones.", unit="1/h", at_least=0, at_most=3600
    )
    metrics_freeze_s: float = setting(
        300.0, doc="How long each lasts.", unit="s", at_least=1, at_most=_LATEST_S
    )
    metrics_lag_per_hour: float = setting(
        0.0, doc="Times that metrics are metrics_lag_by_s older.", unit="1/h", at_least=0, at_most=3600
    )
    metrics_lag_s: float = setting(300.0, doc="How long each lasts.", unit="s", at_least=1, at_most=_LATEST_S)
    metrics_lag_by_s: float = setting(
        60.0, doc="How much older lagging metrics are.", unit="s", at_least=0, at_most=86400
    )

    def __post_init__(self) -> None:
        check(self)

    def outage(self, kind: OutageKind) -> tuple[float, float]:
        """How many an hour there are of a kind, and how long each lasts in seconds."""
        return getattr(self, f"{kind}_per_hour"), getattr(self, f"{kind}_s")


_NO_RATES = Rates()


@dataclass(frozen=True, slots=True)
class Faults:
    """Everything that goes wrong in a run.

    Attributes:
        seed: with ``simulation_seed``, of whatever is drawn. A launch draws by its pool and number, so
            that equal launches draw the same in runs that otherwise differ.
        file: where it was read, "" if nowhere.

    A file has ``crashes``, ``starts`` and ``outages`` in one list, its ``script``.
    """

    seed: int = setting(0, doc="Seed of whatever is drawn.", at_least=0)
    start_timeout_s: float | None = setting(
        None, doc="A start not READY by then is given up and tried again; null is never.", unit="s", above=0
    )
    rates: Rates = _NO_RATES
    crashes: tuple[Crash, ...] = field(default=(), metadata={"key": False})
    starts: tuple[StartFault, ...] = field(default=(), metadata={"key": False})
    outages: tuple[Outage, ...] = field(default=(), metadata={"key": False})
    file: str = field(default="", metadata={"key": False})

    def check_pools(self, names: Sequence[str]) -> None:
        """Refuse what befalls a pool that there is not.

        Raises:
            InputError: names the pool, and those there are.
        """
        pools: list[str] = [*(crash.pool for crash in self.crashes), *(start.pool for start in self.starts)]
        for pool in pools:
            if pool not in {*names, "both"}:
                where = f"{self.file}: " if self.file else ""
                raise InputError(f"{where}pool is {pool}; expected {' or '.join(names)}, as served here")

    def of_replicate(self, number: int) -> Faults:
        """The faults of a replicate: each draws its own, or intervals would show the spread of one draw."""
        return replace(self, seed=self.seed + number)

    def metrics_only(self) -> Faults | None:
        """What becomes of the metrics, and nothing else; None where nothing does."""
        kinds = [kind for kind in get_args(OutageKind) if kind.startswith("metrics_")]
        drawn = [kind for kind in kinds if self.rates.outage(kind)[0] > 0]
        scripted = tuple(outage for outage in self.outages if outage.kind in kinds)
        if not drawn and not scripted:
            return None
        rates = {
            key.name: getattr(self.rates, key.name)
            for key in fields(Rates)
            if any(key.name.startswith(kind) for kind in drawn)
        }
        return Faults(seed=self.seed, rates=Rates(**rates), outages=scripted)


_SPECIFIC = {"factor": "slow_starts", "extra_s": "cold_starts", "lag_s": "metrics_lag"}
"""Keys that mean something to one kind only."""


def read_faults(path: Path) -> Faults:
    """Read a fault file.

    Raises:
        InputError: it cannot be read, or something in it is not understood: file, line and key are named.
    """
    tree = read_key_tree(path)
    read = fill(Faults, tree, also=("script",))
    script = pairs(tree, "").get("script", Located([], str(path)))
    if not isinstance(script.value, list):
        raise InputError(f"{script.where}: script: expected a list of faults, each `- {{kind: ..., ...}}`")
    faults = [_fault(item) for item in script.value]
    return replace(
        read,
        crashes=tuple(fault for fault in faults if isinstance(fault, Crash)),
        starts=tuple(fault for fault in faults if isinstance(fault, StartFault)),
        outages=tuple(fault for fault in faults if isinstance(fault, Outage)),
        file=shown_path(path),
    )


def _fault(item: Located) -> Crash | StartFault | Outage:
    keys = dict(pairs(item, "script"))
    kinds = ("crash", *get_args(StartKind), *get_args(OutageKind))
    kind = keys.get("kind", Located(None, item.where))
    if kind.value not in kinds:
        found, near = "missing", ""
        if "kind" in keys:
            found, near = repr(kind.plain), did_you_mean(str(kind.plain), kinds)
        raise InputError(f"{kind.where}: kind is {found}; expected one of {', '.join(kinds)}{near}")
    if kind.value == "crash":
        del keys["kind"]
        return fill(Crash, Located(keys, item.where))
    for name, owner in _SPECIFIC.items():
        if name in keys and kind.value != owner:
            raise InputError(
                f"{keys[name].where}: {name} is given for {kind.value}; expected it with {owner} only"
            )
    if kind.value in get_args(StartKind):
        return fill(StartFault, item)
    return fill(Outage, item)


def _check_span(from_s: float, to_s: float) -> None:
    if not from_s < to_s or math.isinf(to_s):
        raise InputError(f"to_s is {to_s:g}; expected more than from_s {from_s:g}")


_KINDS: tuple[OutageKind, ...] = get_args(OutageKind)


class Span(NamedTuple):
    """A half-open span ``[from_s, to_s)``; ``lag_s`` means something to lagging metrics only."""

    from_s: float
    to_s: float
    lag_s: float = 0.0


class Outages:
    """All outages of one kind. Drawn ones come at exponential intervals, each after the end of the last."""

    def __init__(self, kind: OutageKind, faults: Faults, simulation_seed: int) -> None:
        self.kind = kind
        self._scripted = [
            Span(outage.from_s, outage.to_s, outage.lag_s) for outage in faults.outages if outage.kind == kind
        ]
        self._lag_s = faults.rates.metrics_lag_by_s
        per_hour, self._each_s = faults.rates.outage(kind)
        self._rate = per_hour / 3600.0
        self._rng = np.random.default_rng((faults.seed, simulation_seed, 2, _KINDS.index(kind)))
        self._drawn: list[Span] = []

    def begun_by(self, time_s: float) -> list[Span]:
        """Every span that begins at ``time_s`` or before, scripted ones first."""
        self._draw_beyond(time_s)
        return [span for span in (*self._scripted, *self._drawn) if span.from_s <= time_s]

    def at(self, time_s: float) -> list[Span]:
        """The spans that cover an instant: scripted ones, and of the drawn ones the last at most."""
        if not self._scripted and not self._rate:
            return []
        self._draw_beyond(time_s)
        begun = bisect.bisect_right(self._drawn, (time_s, float("inf"), float("inf")))
        near = (*self._scripted, *self._drawn[begun - 1 : begun])
        return [span for span in near if span.from_s <= time_s < span.to_s]

    def next_edge_s(self, after_s: float) -> float:
        """The first instant after ``after_s`` at which a span begins or ends; inf if none does."""
        self._draw_beyond(after_s)
        begun = bisect.bisect_right(self._drawn, (after_s, float("inf"), float("inf")))
        near = (*self._scripted, *self._drawn[max(0, begun - 1) :])
        edges = [edge for span in near for edge in (span.from_s, span.to_s)]
        return min((edge for edge in edges if edge > after_s), default=float("inf"))

    @property
    def longest_lag_s(self) -> float:
        """The most that any span can lag by."""
        return max((self._lag_s if self._rate else 0.0, *(span.lag_s for span in self._scripted)))

    def _draw_beyond(self, time_s: float) -> None:
        while self._rate and (not self._drawn or self._drawn[-1].from_s <= time_s):
            free_s = self._drawn[-1].to_s if self._drawn else 0.0
            start_s = free_s + float(self._rng.exponential(1.0 / self._rate))
            self._drawn.append(Span(start_s, start_s + self._each_s, self._lag_s))
