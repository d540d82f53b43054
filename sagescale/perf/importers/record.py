"""One run's JSON object, read key by key; errors say file, run, key, value and what was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.declare import shown
from sagescale.errors import InputError
from sagescale.perf.checks import AMOUNT, COUNT

if TYPE_CHECKING:
    from typing import Never


class Record:
    """A JSON object and the words that say where it stands.

    Unlike a document of our own, a benchmark's may hold any other keys: every version adds some. Where a
    method takes several names they are one thing's names in different versions; the first there counts.
    """

    def __init__(self, where: str, content: object, key: str = "", *, expected: str = "an object") -> None:
        self.where, self._key = where, key
        if not isinstance(content, dict):
            self.fail("", content, expected)
        self.content = content

    def has(self, name: str) -> bool:
        """Whether the key is there and not null."""
        return self.content.get(name) is not None

    def text(self, *names: str) -> str:
        """Return an optional text, ``""`` when missing."""
        return next((value for name in names if isinstance(value := self.content.get(name), str)), "")

    def flag(self, name: str) -> bool:
        """Return whether the key is there and true."""
        return self.content.get(name) is True

    def number(self, *names: str, above: float | None = None) -> float:
        """Return a finite number >= 0, or above ``above``."""
        found = self.number_or_none(*names, above=above)
        if found is None:
            self.fail(names[0], None, "a number")
        return found

    def number_or_none(self, *names: str, above: float | None = None) -> float | None:
        """Return a finite number as ``number`` does, None when missing or null."""
        for name in names:
            if self.has(name):
                number = AMOUNT.read(self.content[name])
                if number is None or (above is not None and number <= above):
                    expected = AMOUNT.words if above is None else f"a number > {above:g}"
                    self.fail(name, self.content[name], expected)
                return number
        return None

    def whole(self, name: str) -> int:
        """Return a whole number >= 1."""
        value = self.content.get(name)
        number = COUNT.read(value)
        if number is None:
            self.fail(name, value, COUNT.words)
        return number

    def values(self, name: str) -> list[object]:
        """Return a list, empty when missing."""
        value = self.content.get(name)
        return value if isinstance(value, list) else []

    def section(self, name: str) -> Record:
        """Return the object under a key."""
        if not self.has(name):
            self.fail(name, None, "an object")
        return Record(self.where, self.content[name], f"{self._key}{name}.")

    def section_or_none(self, *names: str) -> Record | None:
        """Return the object down the path of keys, None where it ends."""
        found: Record = self
        for name in names:
            if not isinstance(found.content.get(name), dict):
                return None
            found = found.section(name)
        return found

    def fail(self, name: str, value: object, expected: str) -> Never:
        """Raise the InputError for key ``name``; None is a missing one."""
        path = f"{self._key}{name}".rstrip(".")
        found = "missing" if value is None else shown(value)
        raise InputError(f"{self.where}: {path + ': ' if path else ''}{found} (expected {expected})")
