"""Objects of JSON lines, and what they must hold; each error names the file and the place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn

from sagescale.declare import shown
from sagescale.errors import InputError
from sagescale.json_guard import BadJsonError, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sagescale.trace.readers.fields import Kind
    from sagescale.trace.source import Source


def refuse(source: Source, place: str, value: object, expected: str) -> NoReturn:
    """Raise the one line about a bad value.

    Raises:
        InputError: always.
    """
    raise InputError(f"{source.path}: {place}: found {shown(value)}, expected {expected}")


def objects(source: Source, expected: str = "an object") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the object of each line and where it stands.

    Raises:
        InputError: a line is none.
    """
    for number, text in source.lines():
        place = f"line {number}"
        try:
            row = parse_json(text)
        except BadJsonError as error:
            raise InputError(f"{source.path}: {place}: not valid JSON ({error})") from None
        if not isinstance(row, dict):
            refuse(source, place, row, expected)
        yield place, row


def requests_of(source: Source, place: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what an object has under ``requests``.

    Raises:
        InputError: it is no list of objects.
    """
    requests = row.get("requests")
    if not isinstance(requests, list) or not all(isinstance(one, dict) for one in requests):
        refuse(source, f"{place}, 'requests'".removeprefix(", "), requests, "a list of objects")
    return requests


def whole(source: Source, place: str, value: object, most: int, what: str = "a whole number") -> int:
    """Read a whole number from 0 on, also one that is written as a fraction.

    Raises:
        InputError: it is none.
    """
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= most:
        refuse(source, place, value, f"{what} from 0 to {most}")
    return value


def amount(source: Source, place: str, value: object, clock: Kind) -> float:
    """Read a time, or how long something took.

    Raises:
        InputError: it is no number from 0 on.
    """
    if type(value) not in (int, float) or not 0 <= value < math.inf:  # type: ignore[operator]  # a number
        refuse(source, place, value, clock.expected)
    return float(value)  # type: ignore[arg-type]  # likewise
