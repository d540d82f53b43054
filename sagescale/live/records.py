"""What the journal keeps, and how it is read back: checked, so that a damaged record costs only itself."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sagescale.fleet import DISAGGREGATED, STATES, PoolCounts, Pools, Sizes
from sagescale.json_guard import BadJsonError, parse_json
from sagescale.live.actuators.protocol import MAX_INSTANCES
from sagescale.live.secret import foreign_text
from sagescale.planner import AutoscalerConfig, Observation, keys_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_ID = 2**53
"""Ids count up from 1; one beyond this was never given."""

_MAX_TIME_S = 2.5e11
"""The last moment that has a date."""

SETTINGS_KEPT = (
    "target_ttft_ms", "target_itl_ms", "adjustment_interval_sec", "min_prefill_instances",
    "max_prefill_instances", "min_decode_instances", "max_decode_instances", "max_gpu_budget",
    "prefill_gpus_per_instance", "decode_gpus_per_instance", "load_predictor_type", "policy",
    "min_instances", "max_instances", "gpus_per_instance",
)  # fmt: skip
"""Configuration values that explain a decision."""

_CHECKED = re.compile(r',"crc":"([0-9a-f]{8})"\}\Z')


class BadRecordError(ValueError):
    """A record is damaged, or of a version that keeps other things: what is wrong, in a few words."""


@dataclass(frozen=True, slots=True)
class Note:
    """Why the loop did something else than the planner asked, or what was wrong; like a reason."""

    code: str
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", foreign_text(self.text, 1000))


@dataclass(frozen=True, slots=True)
class TickRecord:
    """One tick: what was seen, what the planner decided, and what the loop made of it.

    Attributes:
        id: Counts up, across restarts.
        time_s: When it was decided, seconds since 1970 (of the pools' own time, where that is scaled).
        observation: What the planner was given.
        problems: What was wrong with the metrics.
        decision: The planner's decision, in plain JSON types.
        goal: The sizes to go for, after the loop's own rules.
        notes: What those rules changed.
        acted: Whether anything was to act on it.
        settings: The configuration values that explain it (``SETTINGS_KEPT``).
        kind: ``look`` is a burst check between ticks: a short window, and instances are only added.
        last_burst_check: The short window right before a tick, where the planner was shown one.
    """

    id: int
    time_s: float
    observation: Observation
    problems: tuple[Note, ...]
    decision: Mapping[str, Any]
    goal: Sizes
    notes: tuple[Note, ...]
    acted: bool
    settings: Mapping[str, Any]
    kind: Literal["tick", "look"] = "tick"
    last_burst_check: Observation | None = None

    @property
    def current(self) -> Sizes:
        """The sizes found."""
        return self.observation.pools.asked

    @property
    def moves(self) -> list[tuple[str, int, int]]:
        """Every pool with the size found and the size to go for."""
        return [(pool, now, to) for (pool, now), to in zip(self.current.items(), self.goal, strict=True)]

    def to_json(self) -> str:
        """Return what is not in columns of its own."""
        return json.dumps(
            {
                "goal": self.goal.as_dict(),
                "observation": self.observation.to_dict(),
                "problems": [dataclasses.asdict(item) for item in self.problems],
                "decision": self.decision,
                "notes": [dataclasses.asdict(item) for item in self.notes],
                "settings": self.settings,
                "kind": self.kind,
                "last_look": None if self.last_burst_check is None else self.last_burst_check.to_dict(),
            },
            separators=(",", ":"),
        )

    def to_row(self) -> tuple[int, float, int, int, int, str]:
        """Return ``id, time_s, prefill, decode, acted, record``, which ends with a checksum of them all."""
        # The columns are of before there could be other pools; the goal of all of them is in the record.
        prefill, decode = (int(self.goal.as_dict().get(pool, 0)) for pool in DISAGGREGATED)
        columns = (self.id, float(self.time_s), prefill, decode, int(self.acted))
        text = self.to_json()
        return *columns, f'{text[:-1]},"crc":"{_checksum(columns, text)}"}}'


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened between ticks: an order, a failure, a start or an end."""

    time_s: float
    tick: int | None
    kind: str
    text: str
    detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", foreign_text(self.text, 1000))

    @property
    def is_usual(self) -> bool:
        """Whether it is nothing that anybody need look at."""
        return self.kind in {"started", "stopped", "resumed", "warm_start", "order"}


def read_tick(row: Sequence[Any]) -> TickRecord:
    """Build a record from a row ``id, time_s, prefill, decode, acted, record``; unknown parts are left out.

    Raises:
        BadRecordError: it is damaged, or not what this version keeps.
    """
    identity, time_s, prefill, decode, acted, text = row
    if type(identity) is not int or not 0 < identity <= MAX_ID:
        raise BadRecordError("an id that was never given")
    if not isinstance(text, str):
        raise BadRecordError("no text")
    columns = (identity, time_s, prefill, decode, acted)
    if found := _CHECKED.search(text):
        text = text[: found.start()] + "}"
        if _checksum(columns, text) != found[1]:
            raise BadRecordError("its checksum does not fit: bytes of it have changed")
    kept = _object(_parsed(text), "record")
    last_burst_check = kept.get("last_look")
    goal = read_goal(prefill, decode, kept.get("goal"))
    observation = _observation(kept.get("observation"))
    if set(observation.pools.names) != set(goal.names):
        raise BadRecordError("its pools are not those of its goal")
    kind = kept.get("kind", "tick")
    if not isinstance(kind, str) or kind not in {"tick", "look"}:
        raise BadRecordError(f"neither a tick nor a burst check: {foreign_text(kind, 40)}")
    return TickRecord(
        id=identity,
        time_s=_time(time_s),
        observation=observation,
        problems=_notes(kept.get("problems")),
        decision=_decision(kept.get("decision")),
        goal=goal,
        notes=_notes(kept.get("notes")),
        acted=bool(_count(acted)),
        settings=_settings(kept.get("settings"), goal.names),
        kind="look" if kind == "look" else "tick",
        last_burst_check=None if last_burst_check is None else _observation(last_burst_check),
    )


def read_event(row: Sequence[Any]) -> Event:
    """Build an event from a row ``time_s, tick, kind, text, detail``.

    Raises:
        BadRecordError: it is damaged.
    """
    time_s, tick, kind, text, detail = row
    if not all(isinstance(part, str) for part in (kind, text, detail)) or not (
        tick is None or type(tick) is int
    ):
        raise BadRecordError("no event")
    return Event(_time(time_s), tick, foreign_text(kind, 40), text, _object(_parsed(detail), "detail"))


def _checksum(columns: tuple[Any, ...], text: str) -> str:
    return f"{zlib.crc32(f'{columns!r}{text}'.encode('utf-8', 'replace')):08x}"


def _parsed(text: str) -> object:
    try:
        return parse_json(text)
    except BadJsonError as error:
        raise BadRecordError(f"not JSON: {foreign_text(error, 100)}") from None


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRecordError(f"its {name} is no object")
    return value


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadRecordError(f"its {name} are no list")
    return value


def _time(value: object) -> float:
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 <= value <= _MAX_TIME_S:
        raise BadRecordError("its time is no date")
    return float(value)


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INSTANCES:
        raise BadRecordError("a count that no pool has")
    return value


def _number(value: object, name: str) -> float | int:
    if not isinstance(value, float | int) or isinstance(value, bool):
        raise BadRecordError(f"its {name} is no number")
    return value


def _notes(value: object) -> tuple[Note, ...]:
    return tuple(Note(code, text) for code, text in _reasons(value, "notes"))


def _reasons(value: object, name: str) -> list[tuple[str, str]]:
    found = []
    for item in _list(value, name):
        code, text = (_object(item, name).get(part) for part in ("code", "text"))
        if not isinstance(code, str) or not isinstance(text, str):
            raise BadRecordError(f"its {name} are not codes and texts")
        found.append((code, text))
    return found


def _observation(value: object) -> Observation:
    seen = _object(value, "observation")
    known: dict[str, Any] = {}
    if "pools" not in seen:  # before there could be other pools
        seen = {"pools": {pool: seen.get(pool) for pool in DISAGGREGATED}} | seen
    for field in dataclasses.fields(Observation):
        if field.name not in seen:
            continue
        part = seen[field.name]
        if field.name == "pools":
            pools = _object(part, field.name)
            known["pools"] = Pools.of({name: _counts(counts, name) for name, counts in pools.items()})
        elif field.name == "lengths":
            known["lengths"] = (
                None if part is None else tuple(_lengths(pair) for pair in _list(part, "lengths"))
            )
        elif part is None and field.name not in {"time_s", "window_s"}:
            known[field.name] = None
        else:
            known[field.name] = _number(part, field.name)
    if not {"time_s", "window_s", "pools"} <= known.keys():
        raise BadRecordError("its observation is not whole")
    _time(known["time_s"])
    if not 0 < known["window_s"] < math.inf:
        raise BadRecordError("its window has no length")
    return Observation(**known)


def _counts(value: object, pool: str) -> PoolCounts:
    counts = _object(value, pool)
    read = PoolCounts(**{"ready": -1} | {name: _count(counts[name]) for name in STATES if name in counts})
    _count(read.ready)
    return read


def read_goal(prefill: object, decode: object, goal: object) -> Sizes:
    """Read sizes by pool; an older version kept no others than those in the two columns.

    Raises:
        BadRecordError: they are no sizes.
    """
    if goal is None:
        return Sizes(_count(prefill), _count(decode))
    return Sizes.of({pool: _count(size) for pool, size in _object(goal, "goal").items()})


def _lengths(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(part) is int for part in value):
        raise BadRecordError("its lengths are no pairs")
    return value[0], value[1]


def _decision(value: object) -> dict[str, Any]:
    """Check what is shown of a decision."""
    decision = _object(value, "decision")
    _reasons(decision.get("reasons"), "reasons")
    forecast = _object(decision.get("forecast"), "forecast")
    for name in ("requests", "isl", "osl"):
        if forecast.get(name, "") is not None:
            _number(forecast.get(name), f"forecast of {name}")
    for part in ("corrections", "raw"):
        for size in _object(decision.get(part), part).values():
            _number(size, part)
    for role in DISAGGREGATED:
        _number(decision["corrections"].get(role), "corrections")
    return decision


_DEFAULTS = {name: getattr(AutoscalerConfig(), name) for name in SETTINGS_KEPT}


def _settings(value: object, pools: Iterable[str]) -> dict[str, Any]:
    """Return settings, those of each pool among them, with what an older version did not keep by default."""
    settings = _DEFAULTS | _object(value, "settings")
    for name, default in _DEFAULTS.items():
        if isinstance(default, str) != isinstance(settings[name], str):
            raise BadRecordError(f"its setting {name} is of another type")
    amounts = [name for name, default in _DEFAULTS.items() if not isinstance(default, str)]
    for keys in map(keys_of, pools):
        amounts += [keys.least, keys.most, keys.gpus]
    for name in amounts:
        if not math.isfinite(_number(settings.get(name), name)):
            raise BadRecordError(f"its {name} is no number")
    return settings
