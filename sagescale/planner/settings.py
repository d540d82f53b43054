"""Declares configuration keys as dataclass fields and checks the values given for them.

A configuration is a frozen dataclass whose fields are made by :func:`setting`; its ``__post_init__``
calls :func:`check`. The same declarations give the file's comments, the JSON schema, the
documentation's table and the error messages, so that none can disagree with another.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from sagescale.errors import InputError, did_you_mean

__all__ = ["Choices", "Range", "Setting", "check", "coerce", "declared", "setting"]

Choices = tuple[str, ...] | Callable[[], tuple[str, ...]]
Kind = Literal["bool", "int", "float", "str", "pair", "custom"]

_KIND_WORDS: dict[Kind, str] = {
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "pair": "two numbers [low, high]",
    "custom": "another value",
}


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers a key accepts; an ``*_open`` end is not itself accepted."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        parts = []
        if self.low > -math.inf:
            parts.append(f"{'>' if self.low_open else '>='} {self.low:g}")
        if self.high < math.inf:
            parts.append(f"{'<' if self.high_open else '<='} {self.high:g}")
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key as declared: what it means and what it accepts."""

    name: str
    kind: Kind
    optional: bool
    default: object
    doc: str
    unit: str
    range: Range
    choices: Choices | None
    parse: Callable[[object], object] | None
    expected: str
    schema: Mapping[str, object] | None

    def choice_names(self) -> tuple[str, ...]:
        """Return the accepted names, or ``()`` where any text is accepted."""
        if self.choices is None:
            return ()
        return self.choices() if callable(self.choices) else self.choices

    def accepts(self) -> str:
        """Say in words what the key accepts, for messages and comments."""
        words = self.expected or _KIND_WORDS[self.kind]
        if names := self.choice_names():
            words = "one of " + ", ".join(names)
        words = " ".join(part for part in (words, str(self.range)) if part)
        return f"{words}, or null" if self.optional else words


def setting(
    default: object,
    *,
    doc: str,
    unit: str = "",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: Choices | None = None,
    parse: Callable[[object], object] | None = None,
    expected: str = "",
    schema: Mapping[str, object] | None = None,
) -> Any:  # noqa: ANN401  # a dataclass field stands for a value of the annotated type
    """Declare a configuration key: a dataclass field that carries its own documentation.

    Args:
        default: The value where none is given; immutable.
        doc: What the key means, in one sentence or two.
        unit: The unit of a number, e.g. ``"s"``.
        at_least: Smallest value accepted (``above``: excluded).
        above: Lower bound that is itself refused.
        at_most: Largest value accepted (``below``: excluded).
        below: Upper bound that is itself refused.
        choices: Accepted names of a ``str`` key, or a function that lists them when needed.
        parse: For a key of no plain type: turns what the file or the caller gave into the field's
            value; raises ``ValueError`` (its text goes into the message) on anything it cannot read.
            It must accept its own result.
        expected: What ``parse`` accepts, in words.
        schema: JSON schema of what ``parse`` accepts.
    """
    low, low_open = (above, True) if above is not None else (at_least, False)
    high, high_open = (below, True) if below is not None else (at_most, False)
    metadata = {
        "doc": doc,
        "unit": unit,
        "range": Range(
            -math.inf if low is None else low, math.inf if high is None else high, low_open, high_open
        ),
        "choices": choices,
        "parse": parse,
        "expected": expected,
        "schema": schema,
    }
    return dataclasses.field(default=default, metadata=metadata)


_DECLARED: dict[type[Any], dict[str, Setting]] = {}


def declared(cls: type[Any]) -> dict[str, Setting]:
    """Return the keys a configuration class declares, by name, in their order."""
    if cls not in _DECLARED:
        _DECLARED[cls] = _read_declarations(cls)
    return _DECLARED[cls]


def _read_declarations(cls: type[Any]) -> dict[str, Setting]:
    hints = typing.get_type_hints(cls)
    found = {}
    for field in dataclasses.fields(cls):
        meta = field.metadata
        parse = meta.get("parse")
        where = f"{cls.__name__}.{field.name}"
        kind, optional = ("custom", False) if parse else _kind(hints[field.name], where)
        found[field.name] = Setting(
            name=field.name,
            kind=typing.cast("Kind", kind),
            optional=optional,
            default=field.default,
            doc=meta.get("doc", ""),
            unit=meta.get("unit", ""),
            range=meta.get("range") or Range(),
            choices=meta.get("choices") or _literal_names(hints[field.name]),
            parse=parse,
            expected=meta.get("expected", ""),
            schema=meta.get("schema"),
        )
    return found


def coerce(key: Setting, value: object) -> object:
    """Turn a value given for a key into the key's type, or refuse it.

    Raises:
        InputError: names the key, the value and what is accepted.
    """
    if key.parse is not None:
        try:
            return key.parse(value)
        except ValueError as error:
            wanted = str(error) or f"expected {key.accepts()}"
            raise InputError(f"{key.name} is {_show(value)}; {wanted}") from None
    if value is None and key.optional:
        return None
    match key.kind:
        case "bool":
            result: object = value if isinstance(value, bool) else None
        case "int":
            result = _integer(value)
        case "float":
            result = _number(value)
        case "pair":
            result = _pair(value)
        case _:
            result = value if isinstance(value, str) else None
    if result is None:
        raise InputError(f"{key.name} is {_show(value)}; expected {key.accepts()}")
    if key.kind == "str" and (names := key.choice_names()) and result not in names:
        hint = did_you_mean(str(result), names)
        raise InputError(f"{key.name} is {_show(value)}; expected {key.accepts()}{hint}")
    numbers = result if isinstance(result, tuple) else (result,) if key.kind in {"int", "float"} else ()
    if any(number not in key.range for number in numbers):
        raise InputError(f"{key.name} is {_show(value)}; expected {key.accepts()}")
    return result


def check(config: Any) -> None:  # noqa: ANN401  # any configuration class
    """Check and coerce every field of a configuration in place; call it from ``__post_init__``.

    Raises:
        InputError: names the first key whose value is refused.
    """
    for name, key in declared(config.__class__).items():
        given = getattr(config, name)
        value = coerce(key, given)
        if value is not given:
            object.__setattr__(config, name, value)


def _show(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _integer(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # what is no integer raises TypeError
    except TypeError:
        return None


def _number(value: object) -> float | None:
    if isinstance(value, bool | str | bytes):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number raises TypeError
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _pair(value: object) -> tuple[float, float] | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = _number(value[0]), _number(value[1])
    return None if low is None or high is None else (low, high)


def _literal_names(hint: object) -> tuple[str, ...] | None:
    options = [hint, *typing.get_args(hint)]
    return next((typing.get_args(option) for option in options if typing.get_origin(option) is Literal), None)


def _kind(hint: object, where: str) -> tuple[Kind, bool]:
    optional = False
    if typing.get_origin(hint) in {Union, types.UnionType}:
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        optional = len(members) < len(typing.get_args(hint))
        hint = members[0] if len(members) == 1 else None
    if typing.get_origin(hint) is Literal:
        return "str", optional
    kinds: dict[object, Kind] = {
        bool: "bool",
        int: "int",
        float: "float",
        str: "str",
        tuple[float, float]: "pair",
    }
    if hint not in kinds:
        raise TypeError(f"{where}: a key of this type needs setting(parse=...)")
    return kinds[hint], optional
