"""Declares what a configuration or document holds, once, and turns what a file says into it.

A configuration or a part of a document is a frozen dataclass; its fields, made by :func:`setting` where the
type alone does not say everything, carry default, range, unit, choices and meaning. The same declarations
give the file's comments, the JSON schema, the documentation's tables, the checks and what is said of a
mistake, so that none can disagree with another. :func:`fill` makes one of a mapping that remembers its lines,
:func:`check` holds a class to its declaration when Python code makes it.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar, Union

from sagescale.errors import InputError, did_you_mean

T = TypeVar("T")
Choices = tuple[str, ...] | Callable[[], tuple[str, ...]]


class Located(NamedTuple):
    """A value from a file or a command line, and where it stands; its parts have places too."""

    value: object
    where: str

    @property
    def plain(self) -> object:
        """The value without places."""
        if isinstance(self.value, dict):
            return {name: item.plain for name, item in self.value.items()}
        return [item.plain for item in self.value] if isinstance(self.value, list) else self.value


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
class Kind(Generic[T]):
    """A kind of value.

    Attributes:
        words: how to say it to whoever gave something else; ``many`` the same of several.
        read: makes the value of what was given; None where that is of another kind.
        json: its JSON type.
    """

    words: str
    read: Callable[[object], T | None]
    json: str = ""
    many: str = ""

    def listed(self) -> Kind[tuple[T, ...]]:
        """Return the kind of a list of these."""

        def read(value: object) -> tuple[T, ...] | None:
            items = [self.read(item) for item in value] if isinstance(value, list | tuple) else [None]
            known = tuple(item for item in items if item is not None)
            return known if len(known) == len(items) else None

        return Kind(f"a list of {self.many}", read, "array", f"rows of {self.many}")


@dataclass(frozen=True, slots=True, eq=False)
class Wording:
    """What plain types mean in one sort of file, and how its mistakes are said.

    The texts may name the key's ``name`` or dotted ``path``, the ``value`` found and what was ``wanted``.
    """

    kinds: Mapping[object, Kind[Any]]
    refused: str
    missing: str
    unknown: str
    show: Callable[[object], str]


def shown(value: object, most: int = 60) -> str:
    """Return a value as messages show it, text in quotes, cut to ``most`` characters."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _as_yaml(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return shown(value, 80)


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


LARGEST_NUMBER = 1e30
"""Given or in a result: sums and products of such are numbers too."""

_ANY = Range()
_BOOL = Kind("true or false", lambda value: value if isinstance(value, bool) else None, "boolean")
_TEXT = Kind("text", lambda value: value if isinstance(value, str) else None, "string")
_PART: Kind[Any] = Kind("`key: value` pairs", lambda _: None, many="mappings")
_CUSTOM = Kind("another value", lambda value: value)

SETTINGS = Wording(
    kinds={
        bool: _BOOL,
        int: Kind("an integer", _integer, "integer"),
        float: Kind("a number", _number, "number"),
        str: _TEXT,
        tuple[float, float]: Kind("two numbers [low, high]", _pair, "array"),
    },
    refused="{name} is {value}; {wanted}",
    missing="{name} is missing; {wanted}",
    unknown="unknown key '{name}'{wanted}",
    show=_as_yaml,
)
"""Of configurations and fault files: one line names the key, its line says where it stands."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key as declared: what it means and what it accepts. ``part`` is the class of a mapping's value."""

    name: str = ""
    kind: Kind[Any] = _CUSTOM
    optional: bool = False
    part: type[Any] | None = None
    default: object = None
    needed: bool = False
    doc: str = ""
    unit: str = ""
    range: Range = _ANY
    choices: Choices | None = None
    parse: Callable[[object], object] | None = None
    expected: str = ""
    schema: Mapping[str, object] | None = None

    def choice_names(self) -> tuple[str, ...]:
        """Return the accepted names, or ``()`` where any text is accepted."""
        if self.choices is None:
            return ()
        return self.choices() if callable(self.choices) else self.choices

    def accepts(self) -> str:
        """Say in words what the key accepts, for messages and comments."""
        words = self.expected or self.kind.words
        if names := self.choice_names():
            words = "one of " + ", ".join(names)
        words = " ".join(part for part in (words, str(self.range)) if part)
        return f"{words}, or null" if self.optional else words

    def read(self, value: object) -> object:
        """Turn a value given for the key into the key's type.

        Raises:
            ValueError: it is not accepted; the text says what was expected.
        """
        if self.parse is not None:
            try:
                return self.parse(value)
            except ValueError as error:
                raise ValueError(str(error) or f"expected {self.accepts()}") from None
        if value is None and self.optional:
            return None
        result = self.kind.read(value)
        names = self.choice_names() if isinstance(result, str) else ()
        numbers = result if isinstance(result, tuple) else (result,) if type(result) in {int, float} else ()
        bounded = self.range == _ANY or all(number in self.range for number in numbers)
        if result is None or not bounded or (names and result not in names):
            hint = did_you_mean(str(result), names) if names else ""
            raise ValueError(f"expected {self.accepts()}{hint}")
        if any(type(number) in {int, float} and abs(number) > LARGEST_NUMBER for number in numbers):
            raise ValueError(f"expected {self.accepts()}, at most {LARGEST_NUMBER:g} in size")
        return result


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
    needed: bool = False,
    parse: Callable[[object], object] | None = None,
    expected: str = "",
    schema: Mapping[str, object] | None = None,
) -> Any:  # noqa: ANN401  # a dataclass field stands for a value of the annotated type
    """Declare a key: a dataclass field that carries its own documentation.

    Args:
        default: The value where none is given; immutable.
        doc: What the key means, in one sentence or two.
        unit: The unit of a number, e.g. ``"s"``.
        at_least: Smallest value accepted (``above``: excluded).
        above: Lower bound that is itself refused.
        at_most: Largest value accepted (``below``: excluded).
        below: Upper bound that is itself refused.
        choices: Accepted names of a ``str`` key, or a function that lists them when needed.
        needed: A file must have the key, though Python code may leave it out.
        parse: For a key of no plain type: turns what the file or the caller gave into the field's
            value; raises ``ValueError`` (its text goes into the message) on anything it cannot read.
            It must accept its own result.
        expected: What ``parse`` accepts, in words.
        schema: JSON schema of what ``parse`` accepts.
    """
    low, low_open = (above, True) if above is not None else (at_least, False)
    high, high_open = (below, True) if below is not None else (at_most, False)
    bounds = Range(-math.inf if low is None else low, math.inf if high is None else high, low_open, high_open)
    key = Setting(
        doc=doc,
        unit=unit,
        range=bounds,
        choices=choices,
        needed=needed,
        parse=parse,
        expected=expected,
        schema=schema,
    )
    return dataclasses.field(default=default, metadata={"setting": key})


_DECLARED: dict[tuple[type[Any], Wording], dict[str, Setting]] = {}


def declared(cls: type[Any], wording: Wording = SETTINGS) -> dict[str, Setting]:
    """Return the keys a class declares, by name, in their order."""
    if (cls, wording) not in _DECLARED:
        hints = typing.get_type_hints(cls)
        _DECLARED[cls, wording] = {
            field.name: _declaration(field, hints[field.name], f"{cls.__name__}.{field.name}", wording)
            for field in dataclasses.fields(cls)
            if field.metadata.get("key", True)
        }
    return _DECLARED[cls, wording]


def _declaration(field: dataclasses.Field[Any], hint: object, where: str, wording: Wording) -> Setting:
    members = [hint]
    if typing.get_origin(hint) in {Union, types.UnionType}:
        members = [member for member in typing.get_args(hint) if member is not types.NoneType]
    key: Setting = field.metadata.get("setting", Setting())
    literal = next((typing.get_args(one) for one in members if _is_literal(one)), None)
    kind, part = (_CUSTOM, None) if key.parse else _kind(members, where, wording)
    return dataclasses.replace(
        key,
        name=field.name,
        kind=kind,
        optional=members != [hint] and key.parse is None,
        part=part,
        default=field.default,
        needed=key.needed or field.default is dataclasses.MISSING,
        choices=key.choices or literal,
    )


def _kind(members: list[Any], where: str, wording: Wording) -> tuple[Kind[Any], type[Any] | None]:
    """Return the kind of value a type stands for, and the class of the mappings in it."""
    (hint,) = members if len(members) == 1 else (None,)
    inner, *more = typing.get_args(hint) or (None,)
    if hint in wording.kinds:
        return wording.kinds[hint], None
    if _is_literal(hint):
        return wording.kinds[str], None
    if dataclasses.is_dataclass(hint):
        return _PART, typing.cast("type[Any]", hint)
    if typing.get_origin(hint) is tuple and more == [...]:
        kind, part = _kind([inner], where, wording)
        return kind.listed(), part
    raise TypeError(f"{where}: a key of this type needs setting(parse=...)")


def _is_literal(hint: object) -> bool:
    return typing.get_origin(hint) is Literal


def coerce(key: Setting, value: object) -> object:
    """Turn a value given for a key into the key's type, or refuse it.

    Raises:
        InputError: names the key, the value and what is accepted.
    """
    try:
        return key.read(value)
    except ValueError as error:
        raise InputError(f"{key.name} is {_as_yaml(value)}; {error}") from None


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


def pairs(item: Located, name: str) -> Mapping[str, Located]:
    """Return the mapping that a place holds.

    Raises:
        InputError: it holds something else.
    """
    if not isinstance(item.value, dict):
        raise InputError(f"{item.where}: {name}: expected `key: value` pairs")
    return item.value


def fill(
    cls: type[T],
    given: Located,
    *,
    wording: Wording = SETTINGS,
    path: str = "",
    also: tuple[str, ...] = (),
) -> T:
    """Make one of a class of a mapping; an unknown, missing or refused key is one line with its place.

    Args:
        cls: what to make; keys are its fields, a field of such a class itself is a mapping within.
        given: the mapping. A null where a mapping may be left out is left out.
        wording: how mistakes are said.
        path: where in the document the mapping is.
        also: keys that the mapping may have beside.

    Raises:
        InputError: something in it is not understood, or contradicts itself.
    """
    found = pairs(given, path or "document")
    keys = declared(cls, wording)

    def refused(text: str, name: str, where: str, wanted: str, value: object = None) -> InputError:
        said = text.format(name=name, path=_dotted(path, name), wanted=wanted, value=wording.show(value))
        return InputError(f"{where}: {said}")

    values: dict[str, Any] = {}
    for name, key in keys.items():
        item = found.get(name)
        if item is None and key.needed:
            near = did_you_mean(name, found.keys() - keys.keys())
            hint = near.replace("did you mean", "is it what is called").replace("?", " here?")
            raise refused(wording.missing, name, given.where, f"expected {key.accepts()}{hint}")
        if item is None or (key.part and item.value is None and not key.needed):
            continue
        if key.kind is _PART and key.part is not None:
            values[name] = fill(key.part, item, wording=wording, path=_dotted(path, name))
            continue
        if key.part is not None and isinstance(item.value, list):
            values[name] = tuple(
                fill(key.part, one, wording=wording, path=f"{_dotted(path, name)}[{i}]")
                for i, one in enumerate(item.value)
            )
            continue
        try:
            values[name] = key.read(item.plain)
        except ValueError as error:
            raise refused(wording.refused, name, item.where, str(error), item.plain) from None
    for name, item in found.items():
        if name not in keys and name not in also:
            names = (*keys, *also)
            hint = did_you_mean(name, names) or f"; expected one of {', '.join(names)}"
            raise refused(wording.unknown, name, item.where, hint)
    try:
        return cls(**values)
    except (InputError, ValueError) as error:
        # The class knows which of its keys is wrong, but not where that stands.
        culprit = re.match(r"\w+", str(error))
        place = found.get(culprit[0], given) if culprit else given
        said = _dotted(path, str(error)) if isinstance(error, ValueError) else str(error)
        raise InputError(f"{place.where}: {said}") from None


def _dotted(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
