"""The grid of a comparison: configurations by policies by predictors, and the baselines beside them."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sagescale.declare import declared
from sagescale.errors import InputError
from sagescale.experiment.tasks import RunTask, fixed_sizes
from sagescale.planner import AutoscalerConfig
from sagescale.planner.loading import load_settings
from sagescale.planner.policy import policy_keys, uses_forecast
from sagescale.sim.config import SimulatorConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sagescale.planner import Sizes

_TYPES = (AutoscalerConfig, SimulatorConfig)

_OF_PROFILE = ("prefill_gpus_per_instance", "decode_gpus_per_instance", "gpus_per_instance")
"""Keys that say no more than the profile and the way of serving do."""

_FORECAST_KEYS = (
    "load_predictor_type",
    "prediction_window_size",
    "history_points",
    "season_sec",
)
_CORRECTION_KEYS = ("enable_correction", "correction_bounds", "enable_online_learning")
_INTERVAL_KEY = "adjustment_interval_sec"
_STEERING_KEYS = (
    "policy",
    "load_headroom",
    "scale_up_stabilization_window_sec",
    "scale_down_stabilization_window_sec",
    "tolerance",
    *_FORECAST_KEYS,
    *_CORRECTION_KEYS,
    *policy_keys(),
)
"""Keys that change what a planner does, but not what a fixed pair or a schedule can do."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One configuration of the grid.

    Attributes:
        label: what tells it from the others; empty where it is the only one.
        differs: the keys in which the variants differ, with this one's values.
    """

    label: str
    config: AutoscalerConfig
    simulator: SimulatorConfig
    differs: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """A run of the comparison: what it is called and what there is to do."""

    name: str
    policy: str
    predictor: str
    kind: Literal["candidate", "hindsight"]
    task: RunTask
    differs: tuple[tuple[str, object], ...] = ()


def _expand_overrides(overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """Turn ``key=v1,v2`` texts into every combination of ``key=value`` texts.

    Values stand between commas outside of brackets, or between semicolons where a value itself has commas. A
    text that is a valid value as a whole (a pair, a distribution, spans of time) is one value.

    Raises:
        InputError: a key is unknown, or given values for what a comparison takes elsewhere.
    """
    columns = []
    for override in overrides:
        name, equals, text = override.partition("=")
        name = name.strip()
        values = _values(name, text) if equals else [text]
        if len(values) > 1 and name in {"policy", "load_predictor_type", "profile_data_dir"}:
            instead = {"policy": "--policies", "load_predictor_type": "--predictors"}.get(name)
            raise InputError(
                f"--set {override}: "
                + (
                    f"expected one value; {instead} takes a list"
                    if instead
                    else "one comparison has one profile"
                )
            )
        columns.append([f"{name}={value}" if equals else override for value in values])
    return list(itertools.product(*columns))


def _values(name: str, text: str) -> list[str]:
    if ";" in text:
        return [part.strip() for part in text.split(";")]
    if name == "profile":  # a text, of which a comma is rarely part
        return [part.strip() for part in text.split(",")]
    parts = _split_outside_brackets(text)
    if len(parts) == 1 or _is_value(f"{name}={text}"):
        return [text]
    return parts


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth = [""], 0
    for char in text:
        depth += (char in "[(") - (char in "])")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _is_value(override: str) -> bool:
    """Whether the whole text is one value of its key; free text with commas is, which ``;`` can part."""
    try:
        load_settings(_TYPES, (), (override,))
    except InputError:
        return False
    return True


def combinations(
    files: Sequence[Path], overrides: Sequence[str]
) -> Iterator[tuple[tuple[Path, ...], tuple[str, ...]]]:
    """Every file, or none, with every combination of overrides."""
    alternatives: list[tuple[Path, ...]] = [(path,) for path in files] or [()]
    for alternative in alternatives:
        for combination in _expand_overrides(overrides):
            yield alternative, combination


def label_variants(
    pairs: Sequence[tuple[str, AutoscalerConfig, SimulatorConfig]],
) -> list[Variant]:
    """Name each configuration by the keys in which it differs; a file's name, or '', comes first."""
    flat = [
        {
            name: getattr(part, name)
            for part in (config, simulator, *config.plugins.configured)
            for name in declared(type(part))
            if name not in _OF_PROFILE
        }
        for _, config, simulator in pairs
    ]
    varying = [key for key in flat[0] if any(keys[key] != flat[0][key] for keys in flat)]
    files = {file for file, _, _ in pairs}
    by_set = varying
    if len(files) > 1:
        # What differs between files is said by the file's name, unless it also differs under one name.
        by_set = [
            key
            for key in varying
            if any(
                one[key] != other[key]
                for (file, _, _), one in zip(pairs, flat, strict=True)
                for (twin, _, _), other in zip(pairs, flat, strict=True)
                if file == twin
            )
        ]
    variants = []
    for (file, config, simulator), keys in zip(pairs, flat, strict=True):
        words = [file] if len(files) > 1 else []
        words += [_WORDS.get((key, keys[key])) or f"{key}={_show(keys[key])}" for key in by_set]
        variants.append(
            Variant(" ".join(words), config, simulator, tuple((key, keys[key]) for key in varying))
        )
    return variants


_WORDS = {("open_loop", True): "open-loop", ("open_loop", False): "closed-loop"}
"""Values that have a name of their own, one word each."""


def _show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return "[" + ",".join(_show(item) for item in value) + "]"
    return (
        {None: "null", True: "true", False: "false"}.get(value, str(value))
        if isinstance(value, bool | None)
        else str(value)
    )


def grid_entries(
    variants: Sequence[Variant], policies: Sequence[str], predictors: Sequence[str]
) -> list[Entry]:
    """All candidates, ``reactive`` always among them, and the policies that see the true load.

    A policy that uses no forecast runs once for all predictors. Runs that would be equal are one.
    """
    entries: list[Entry] = []
    for variant in variants:
        for policy in dict.fromkeys((*policies, "reactive")):
            if policy == "static" and all(size is None for size in variant.config.static_sizes):
                continue  # the sizes found in hindsight stand for it
            own = policy_keys(policy)
            unread = tuple(key for key in policy_keys() if key not in own)
            config = _defaults(dataclasses.replace(variant.config, policy=policy), unread)
            if uses_forecast(policy):
                for predictor in predictors:
                    named = dataclasses.replace(config, load_predictor_type=predictor)
                    task = RunTask(named, variant.simulator, document=True)
                    entries.append(_entry(variant, policy, predictor, "candidate", task, unread))
                entries.append(_with_true_load(variant, config, unread))
            else:
                dropped = (*_FORECAST_KEYS, *_CORRECTION_KEYS, *unread)
                task = RunTask(_defaults(config, dropped), variant.simulator, document=True)
                entries.append(_entry(variant, policy, "none", "candidate", task, dropped))
    return _unique(entries)


def _with_true_load(variant: Variant, config: AutoscalerConfig, dropped: Sequence[str]) -> Entry:
    """The policy fed the true load of the next interval: the oracle."""
    task = RunTask(without_forecast(config), variant.simulator, load="true", document=True)
    return _entry(variant, config.policy, "oracle", "hindsight", task, (*_FORECAST_KEYS, *dropped))


def scenario_of(variant: Variant) -> Variant:
    """The variant without the keys that steer a planner: the scenario of fixed pairs and schedules."""
    differs = tuple(item for item in variant.differs if item[0] not in _STEERING_KEYS)
    config = _defaults(variant.config, _STEERING_KEYS)
    return Variant(_label(variant, _STEERING_KEYS), config, variant.simulator, differs)


def scenario_of_run(task: RunTask) -> tuple[AutoscalerConfig, SimulatorConfig]:
    """A run's scenario, as a fixed pair or schedule would meet it; equal for runs that can be compared."""
    simulator = dataclasses.replace(
        task.simulator, initial_prefill=None, initial_decode=None, initial_instances=None
    )
    return _defaults(task.config, _STEERING_KEYS), simulator


def static_scenario(base: Variant, interval_s: int) -> Variant:
    """A fixed pair's, with nothing going wrong: it is the same at whatever interval the planner ticks."""
    differs = tuple(item for item in base.differs if item[0] != _INTERVAL_KEY)
    config = dataclasses.replace(base.config, adjustment_interval_sec=interval_s)
    return Variant(_label(base, (_INTERVAL_KEY,)), config, base.simulator, differs)


def static_entry(base: Variant, which: str, sizes: Sizes) -> Entry:
    """Fixed sizes, chosen in hindsight."""
    config, simulator = fixed_sizes(base.config, base.simulator, sizes)
    name = " ".join(filter(None, (f"static/{which}", base.label)))
    keys = config.by_key("static", sizes).items()
    task = RunTask(config, simulator, document=True)
    return Entry(name, "static", which, "hindsight", task, (*base.differs, *keys))


def _entry(
    variant: Variant,
    policy: str,
    predictor: str,
    kind: Literal["candidate", "hindsight"],
    task: RunTask,
    dropped: Sequence[str],
) -> Entry:
    pair = policy if predictor == "none" else f"{policy}/{predictor}"
    name = " ".join(filter(None, (pair, _label(variant, dropped))))
    differs = tuple(item for item in variant.differs if item[0] not in dropped)
    return Entry(name, policy, predictor, kind, task, differs)


def _label(variant: Variant, dropped: Sequence[str]) -> str:
    """The variant's label without keys that make no difference."""
    words = variant.label.split(" ") if variant.label else []
    return " ".join(word for word in words if word.partition("=")[0] not in dropped)


def without_forecast(config: AutoscalerConfig) -> AutoscalerConfig:
    """The configuration without what its predictors are made from: they are not made."""
    return _defaults(config, _FORECAST_KEYS)


def _defaults(config: AutoscalerConfig, names: Sequence[str]) -> AutoscalerConfig:
    keys = declared(AutoscalerConfig)
    defaults: dict[str, Any] = {name: keys[name].default for name in names}
    return dataclasses.replace(config, **defaults)


def _unique(entries: Sequence[Entry]) -> list[Entry]:
    """The first of equal runs; where different runs have one name, they are numbered."""
    by_task = {entry.task: entry for entry in reversed(entries)}
    chosen = [entry for entry in entries if by_task[entry.task] is entry]
    names: dict[str, int] = {}
    unique = []
    for entry in chosen:
        names[entry.name] = names.get(entry.name, 0) + 1
        again = names[entry.name]
        unique.append(entry if again == 1 else dataclasses.replace(entry, name=f"{entry.name} #{again}"))
    return unique
