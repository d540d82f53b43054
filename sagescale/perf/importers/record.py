"""One run's JSON object, read key by key; errors say file, run, key, value and what was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.checks import is_sane

if TYPE_CHECKING:
    from typing import Never

__all__ = ["Record"]


class Record:
    """A JSON object and the words that say where it stands.

    Unlike a document of our own, a benchmark's may hold any other keys: every version adds some. Where a
    method takes several names they are one thing's names in different versions; the first there counts.
    """

    def __init__(self, where: str, content: object, key: str = "") -> None:
        self.where, self._key = where, key
        if not isinstance(content, dict):
            raise InputError(f"{self._place('')}: {_shown(content)} (expected an object)")
        self._content = content

    def has(self, name: str) -> bool:
        """Whether the key is there and not null."""
        return self._content.get(name) is not None

    def text(self, *names: str) -> str:
        """Return an optional text, ``""`` when missing."""
        return next((value for name in names if isinstance(value := self._content.get(name), str)), "")

    def flag(self, name: str) -> bool:
        """Return whether the key is there and true."""
        return self._content.get(name) is True

    def number(self, *names: str, above: float | None = None) -> float:
        """Return a finite number >= 0, or above ``above``."""
        found = self.number_or_none(*names, above=above)
        if found is None:
            self.fail(names[0], None, "a number")
        return found

    def number_or_none(self, *names: str, above: float | None = None) -> float | None:
        """Return a finite number as ``number`` does, None when missing or null."""
        for name in names:
            value = self._content.get(name)
            if value is None:
                continue
            valid = isinstance(value, (int, float)) and not isinstance(value, bool) and is_sane(value)
            if not valid or (value < 0 if above is None else value <= above):
                self.fail(name, value, "a number >= 0" if above is None else f"a number > {above:g}")
            return float(value)
        return None

    def values(self, name: str) -> list[object]:
        """Return a list, empty when missing."""
        value = self._content.get(name)
        return value if isinstance(value, list) else []

    def section(self, name: str) -> Record:
        """Return the object under a key."""
        if not self.has(name):
            self.fail(name, None, "an object")
        return Record(self.where, self._content[name], f"{self._key}{name}.")

    def section_or_none(self, *names: str) -> Record | None:
        """Return the object down the path of keys, None where it ends."""
        found: Record = self
        for name in names:
            if not isinstance(found._content.get(name), dict):
                return None
            found = found.section(name)
        return found

    def fail(self, name: str, value: object, expected: str) -> Never:
        """Raise the InputError for key ``name``; None is a missing one."""
        shown = "missing" if value is None else _shown(value)
        raise InputError(f"{self._place(name)}: {shown} (expected {expected})")

    def _place(self, name: str) -> str:
        path = f"{self._key}{name}".rstrip(".")
        return f"{self.where}: {path}" if path else self.where


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
