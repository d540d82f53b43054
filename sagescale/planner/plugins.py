"""Predictors and policies by name: the built-in ones, and what other installed packages offer; their keys.

Names alone: what they stand for is imported when it is asked for, so that ``constant`` never pays for
statsmodels, nor ``classic`` for numpy.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from sagescale.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint, EntryPoints

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Registry:
    """Names of one kind of thing.

    Attributes:
        what: what they are names of, for messages.
        group: the entry points of other packages; a built-in name cannot be replaced.
        unknown: says in a message that a name is none of them.
        built_in: name to module and attribute.
    """

    what: str
    group: str
    unknown: str
    built_in: dict[str, tuple[str, str]]

    def names(self) -> tuple[str, ...]:
        """Return every name: built-in ones first, then others' in sorted order."""
        return (*self.built_in, *sorted(set(self._offered()) - set(self.built_in)))

    def load(self, name: str) -> Any:  # noqa: ANN401  # anybody's class
        """Import what a name stands for.

        Raises:
            InputError: nothing has that name, or another package's cannot be imported.
        """
        if name in self.built_in:
            module, attribute = self.built_in[name]
            return getattr(import_module(module), attribute)
        others = self._offered()
        if name not in others:
            known = self.names()
            meant = did_you_mean(name, known)
            unknown = self.unknown.format(name)
            raise InputError(f"{unknown} expected one of {', '.join(known)}{meant}")
        try:
            return others[name].load()
        except Exception as error:
            raise self.failed(name, error) from error

    def whose(self, name: str) -> str:
        """Say in words what a name stands for, and where another package has it."""
        point = None if name in self.built_in else self._offered().get(name)
        return f"{self.what} '{name}'" + ("" if point is None else f" (entry point {point.value})")

    def failed(self, name: str, error: Exception) -> InputError:
        """Return what to say where a name's thing cannot be made."""
        return InputError(f"{self.whose(name)} cannot be made: {type(error).__name__}: {error}")

    def _offered(self) -> dict[str, EntryPoint]:
        from importlib.metadata import entry_points

        return _points(entry_points, self.group, tuple(sys.path))


@functools.cache
def _points(
    entry_points: Callable[..., EntryPoints], group: str, path: tuple[str, ...]
) -> dict[str, EntryPoint]:
    """Read what packages on the path offer: all their metadata, so never at import, and once a process."""
    del path
    return {point.name: point for point in entry_points(group=group)}


_FORECAST = "sagescale.planner.forecast"
PREDICTORS = Registry(
    "predictor",
    "sagescale.predictors",
    "predictor '{}' is unknown,",
    {
        "constant": (f"{_FORECAST}.constant", "ConstantPredictor"),
        "moving_average": (f"{_FORECAST}.moving_average", "MovingAveragePredictor"),
        "exponential_smoothing": (f"{_FORECAST}.exponential_smoothing", "ExponentialSmoothingPredictor"),
        "arima": (f"{_FORECAST}.arima", "ArimaPredictor"),
        "prophet": (f"{_FORECAST}.prophet", "ProphetPredictor"),
        "kalman": (f"{_FORECAST}.kalman", "KalmanPredictor"),
        "seasonal_naive": (f"{_FORECAST}.seasonal_naive", "SeasonalNaivePredictor"),
        "auto": (f"{_FORECAST}.auto", "AutoPredictor"),
    },
)

_POLICY = "sagescale.planner.policy"
POLICIES = Registry(
    "policy",
    "sagescale.policies",
    "policy is '{}';",
    {
        "classic": (f"{_POLICY}.classic", "ClassicPolicy"),
        "reactive": (f"{_POLICY}.reactive", "ReactivePolicy"),
        "static": (f"{_POLICY}.static", "StaticPolicy"),
        "slo": (f"{_POLICY}.slo", "SloPolicy"),
    },
)

_KEYS = Registry("keys", "sagescale.keys", "keys '{}' are unknown,", {})


def plugin_keys() -> tuple[type[Any], ...]:
    """Return the keys that other packages declare for their predictors and policies, a class each.

    They are keys of the configuration like all others: in files, after ``--set`` and in ``config show``.

    Raises:
        InputError: what a package offers cannot be imported, or is no class of settings.
    """
    found: list[type[Any]] = []
    for name in _KEYS.names():
        cls = _KEYS.load(name)
        if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
            raise InputError(f"{_KEYS.whose(name)}: expected a frozen dataclass whose fields are settings")
        found.append(cls)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class PluginKeys:
    """What is configured of the keys that other packages declare."""

    configured: tuple[object, ...] = ()

    def of(self, cls: type[T]) -> T:
        """Return the keys of one such class, at their defaults unless they were given."""
        return next((one for one in self.configured if isinstance(one, cls)), None) or cls()


NO_KEYS = PluginKeys()
