"""Label matchers of PromQL: read from a configuration, and written with their values escaped."""

from __future__ import annotations

import re
from typing import NamedTuple

_MATCHER = re.compile(
    r"""\s*(?P<label>[a-zA-Z_][a-zA-Z0-9_]*)\s*(?P<operator>=~|!~|!=|=)\s*"""
    r"""(?P<value>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)\s*(?:,|$)"""
)


class Matcher(NamedTuple):
    """A label matcher as written: ``value`` has its quotes."""

    label: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.label}{self.operator}{self.value}"


def parse_matchers(text: str) -> list[Matcher]:
    """Read a list of label matchers, e.g. ``cluster="a",env=~"prod.*"``; braces around it may be there.

    Raises:
        ValueError: it is none; the message says from where on.
    """
    rest = text.strip()
    if rest.startswith("{") and rest.endswith("}"):
        rest = rest[1:-1]
    found = []
    while rest.strip():
        one = _MATCHER.match(rest)
        if one is None:
            raise ValueError(f"'{rest.strip()[:60]}' is no label matcher")
        found.append(Matcher(one["label"], one["operator"], one["value"]))
        rest = rest[one.end() :]
    return found


def matcher(label: str, operator: str, value: str) -> str:
    """Write a label matcher with its value escaped."""
    return f'{label}{operator}"{escaped(value)}"'


def escaped(text: str) -> str:
    """Write a text as it stands between double quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
