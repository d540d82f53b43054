"""Reading a mapping strictly: every key known, every value of the kind expected, or one clear line."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard, TypeVar

from sagescale.errors import InputError, did_you_mean
from sagescale.perf.checks import is_sane

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never

__all__ = ["Fields"]

T = TypeVar("T")


class Fields:
    """One mapping of a document, consumed key by key; ``done`` refuses what is left over.

    Errors are InputError and name the file, the dotted key, the value found and what was expected.
    """

    def __init__(self, value: object, *, file: str, key: str = "") -> None:
        self._file, self._key = file, key
        if not isinstance(value, dict):
            self.fail("", value, "a mapping of keys to values")
        self._left: dict[object, object] = dict(value)
        self._wanted: list[str] = []

    def fail(self, name: str, value: object, expected: str) -> Never:
        """Raise the InputError for key ``name``."""
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise InputError(f"{self._file}: {self._path(name) or 'document'}: {shown} (expected {expected})")

    def missing(self, name: str, expected: str) -> Never:
        """Raise the InputError for a key that is not there, naming the nearest that is."""
        near = did_you_mean(name, (str(key) for key in self._left))
        hint = near.replace("did you mean", "is it what is called").replace("?", " here?") if near else ""
        raise InputError(f"{self._file}: {self._path(name)}: missing (expected {expected}){hint}")

    def text(self, name: str, *, default: str | None = None) -> str:
        """Take a string."""
        return self._take(name, default, "a string", lambda v: v if isinstance(v, str) else None)

    def texts(self, name: str) -> tuple[str, ...]:
        """Take an optional list of strings."""

        def convert(value: object) -> tuple[str, ...] | None:
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                return tuple(value)
            return None

        return self._take(name, (), "a list of strings", convert)

    def flag(self, name: str, *, default: bool) -> bool:
        """Take true or false."""
        return self._take(name, default, "true or false", lambda v: v if isinstance(v, bool) else None)

    def integer(self, name: str, *, least: int = 1, default: int | None = None) -> int:
        """Take a whole number of at least ``least``."""
        expected = f"a whole number >= {least}"
        return self._take(name, default, expected, lambda v: v if _is_int(v) and least <= v < 2**53 else None)

    def integer_or_null(self, name: str, *, least: int = 1) -> int | None:
        """Take a whole number, or null (also when the key is missing)."""
        return None if self._is_null(name) else self.integer(name, least=least)

    def number(self, name: str, *, default: float | None = None) -> float:
        """Take a finite number >= 0."""
        return self._take(name, default, "a number >= 0", _non_negative)

    def number_or_null(self, name: str) -> float | None:
        """Take a finite number >= 0, or null (also when the key is missing)."""
        return None if self._is_null(name) else self.number(name)

    def integers(self, name: str, *, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Take a list of whole numbers >= 1."""

        def convert(value: object) -> tuple[int, ...] | None:
            if isinstance(value, list) and all(_is_int(item) and 1 <= item < 2**53 for item in value):
                return tuple(value)
            return None

        return self._take(name, default, "a list of whole numbers >= 1", convert)

    def numbers(self, name: str) -> tuple[float, ...]:
        """Take a list of finite numbers >= 0."""
        return self._take(name, None, "a list of numbers >= 0", _numbers)

    def table(self, name: str) -> tuple[tuple[float, ...], ...]:
        """Take a list of lists of finite numbers >= 0."""

        def convert(value: object) -> tuple[tuple[float, ...], ...] | None:
            if not isinstance(value, list):
                return None
            rows = [_numbers(row) for row in value]
            return tuple(row for row in rows if row is not None) if None not in rows else None

        return self._take(name, None, "a list of rows of numbers >= 0", convert)

    def section(self, name: str) -> Fields:
        """Take a mapping to read on."""
        if name not in self._left:
            self.missing(name, "a mapping")
        self._wanted.append(name)
        return Fields(self._left.pop(name), file=self._file, key=self._path(name))

    def section_or_none(self, name: str) -> Fields | None:
        """Take a mapping to read on, None when the key is missing or null."""
        return None if self._is_null(name) else self.section(name)

    def sections(self, name: str) -> tuple[Fields, ...]:
        """Take an optional list of mappings to read on."""
        items: list[object] = self._take(
            name, [], "a list of mappings", lambda v: v if isinstance(v, list) else None
        )
        path = self._path(name)
        return tuple(Fields(item, file=self._file, key=f"{path}[{i}]") for i, item in enumerate(items))

    def done(self) -> None:
        """Refuse keys that nobody asked for; a misspelt one is told its nearest."""
        for key in self._left:
            near = did_you_mean(str(key), self._wanted)
            known = near or f" (expected one of: {', '.join(self._wanted)})"
            raise InputError(f"{self._file}: {self._path(str(key))}: unknown key{known}")

    def build(self, make: Callable[[], T]) -> T:
        """Finish: refuse leftovers, then make the object, its own ValueError told as this file's."""
        self.done()
        try:
            return make()
        except ValueError as error:
            raise InputError(f"{self._file}: {self._path('')}{'.' if self._key else ''}{error}") from error

    def _is_null(self, name: str) -> bool:
        if self._left.get(name) is not None:
            return False
        self._wanted.append(name)
        self._left.pop(name, None)
        return True

    def _take(self, name: str, default: T | None, expected: str, convert: Callable[[object], T | None]) -> T:
        self._wanted.append(name)
        if name not in self._left:
            if default is None:
                self.missing(name, expected)
            return default
        value = self._left.pop(name)
        converted = convert(value)
        if converted is None:
            self.fail(name, value, expected)
        return converted

    def _path(self, name: str) -> str:
        return f"{self._key}.{name}" if self._key and name else self._key or name


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _non_negative(value: object) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 and is_sane(value):
        return float(value)
    return None


def _numbers(value: object) -> tuple[float, ...] | None:
    if not isinstance(value, list):
        return None
    numbers = [_non_negative(item) for item in value]
    return tuple(number for number in numbers if number is not None) if None not in numbers else None
