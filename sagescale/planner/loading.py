"""Fills configuration classes from files and `key=value` overrides; all share one flat set of keys."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sagescale.declare import Located, Setting, coerce, declared
from sagescale.errors import InputError, did_you_mean
from sagescale.key_file import parse_scalar, parse_value, read_key_file
from sagescale.planner.config import AutoscalerConfig
from sagescale.planner.plugins import PluginKeys, plugin_keys
from sagescale.planner.policy import default_predictor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sagescale.perf import PerfModel
    from sagescale.planner.config import Serving

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What was given for each class, checked, and where; what was not is left to the defaults."""

    given: Mapping[type[Any], Mapping[str, Located]]

    @property
    def explicit(self) -> frozenset[str]:
        """The keys that were given, even if with their default value."""
        return frozenset(name for keys in self.given.values() for name in keys)

    def where(self, name: str) -> str | None:
        """Say where a key was given; ``None`` if it was not."""
        return next((keys[name].where for keys in self.given.values() if name in keys), None)

    def build(self, cls: type[T], **defaults: object) -> T:
        """Build one of the classes; ``defaults`` stand in for keys that were not given.

        Raises:
            InputError: keys contradict one another.
        """
        values = {name: item.value for name, item in self.given[cls].items()}
        return self.checked(cls, **(defaults | values))

    def checked(self, make: Callable[..., T], *arguments: object, **keys: object) -> T:
        """Return what a function makes of values of the keys; what it refuses gets the keys' places.

        Raises:
            InputError: as the function does.
        """
        try:
            return make(*arguments, **keys)
        except InputError as error:
            # The function knows which keys clash but not where they stand.
            words = str(error).split()
            found = itertools.chain(*(given.items() for given in self.given.values()))
            places = [item.where for name, item in found if name in words]
            raise InputError(
                f"{', '.join(dict.fromkeys(places))}: {error}" if places else str(error)
            ) from None


def load_settings(
    types: Sequence[type[Any]],
    files: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    options: Mapping[str, tuple[str, object]] = MappingProxyType({}),
) -> Settings:
    """Read files, then ``key=value`` overrides, then options of their own; what comes later wins.

    Args:
        types: Configuration classes made of :func:`~sagescale.declare.setting`; their keys and those of
            plug-ins share one namespace.
        files: Flat YAML files.
        overrides: Texts as after ``--set``.
        options: Key and value by the option that gave them.

    Raises:
        InputError: a file is unreadable, a key unknown or a value refused; says where.
    """
    owners: dict[str, tuple[type[Any], Setting]] = {}
    plugins = tuple(cls for cls in plugin_keys() if cls not in types)
    types = (*types, *plugins)
    for cls in types:
        for name, key in declared(cls).items():
            if name in owners:
                mistake = InputError if cls in plugins else TypeError  # another's, or ours
                raise mistake(f"{name} is declared by {owners[name][0].__name__} and {cls.__name__}")
            owners[name] = (cls, key)
    entries = [entry for path in files for entry in read_key_file(path).items()]
    entries += [_split(override, owners) for override in overrides]
    entries += [(name, Located(value, option)) for option, (name, value) in options.items()]
    given: dict[type[Any], dict[str, Located]] = {cls: {} for cls in types}
    for name, item in entries:
        if name not in owners:
            hint = did_you_mean(name, owners) or "; `sagescale config schema` lists the keys"
            raise InputError(f"{item.where}: unknown key '{name}'{hint}")
        cls, key = owners[name]
        try:
            given[cls][name] = Located(coerce(key, item.value), item.where)
        except InputError as error:
            raise InputError(f"{item.where}: {error}") from None
    return Settings(given)


def serving_of(settings: Settings) -> Serving:
    """Return the way of serving that settings ask for."""
    given = settings.given[AutoscalerConfig].get("serving")
    return "disaggregated" if given is None else cast("Serving", given.value)


def autoscaler_config(settings: Settings, perf_model: PerfModel) -> AutoscalerConfig:
    """Build the autoscaler's configuration for instances that are replicas of the profile.

    GPUs an instance that were not given are the profile's. A ``prediction_window_size`` that was given
    bounds the fitted predictors too, unless ``history_points`` says otherwise. The predictor is the one that
    the policy comes with, unless it was given.

    Raises:
        InputError: GPUs an instance were given and are not the profile's, or keys contradict one another.
    """
    given = settings.given[AutoscalerConfig]
    if serving_of(settings) == "aggregated":
        profile = {"gpus_per_instance": perf_model.decode_gpus}
    else:
        profile = {
            "prefill_gpus_per_instance": perf_model.prefill_gpus,
            "decode_gpus_per_instance": perf_model.decode_gpus,
        }
    for name, gpus in profile.items():
        if name in given and given[name].value != gpus:
            raise InputError(
                f"{given[name].where}: {name} is {given[name].value} but the profile's instances have {gpus} "
                f"GPUs; expected {gpus}, or the key left out"
            )
    forecasts: dict[str, object] = {}
    if "policy" in given and (predictor := default_predictor(str(given["policy"].value))) is not None:
        forecasts["load_predictor_type"] = predictor
    if "prediction_window_size" in given:
        forecasts["history_points"] = given["prediction_window_size"].value
    plugins = PluginKeys(tuple(settings.build(cls) for cls in plugin_keys()))
    return settings.build(AutoscalerConfig, **profile, **forecasts, plugins=plugins)


def _split(override: str, owners: Mapping[str, tuple[type[Any], Setting]]) -> tuple[str, Located]:
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals or not name:
        raise InputError(f"--set {override}: expected key=value")
    key = owners[name][1] if name in owners else None
    value: object = text  # of a key of text, too: a folder named 2024 is still a name
    if key is not None and key.kind.json == "array" and not text.lstrip().startswith("["):
        value = parse_value(f"[{text}]", "--set")
    elif key is not None and (key.kind.json != "string" or (key.optional and parse_scalar(text) is None)):
        value = parse_value(text, "--set")
    return name, Located(value, "--set")
