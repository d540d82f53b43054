"""JSON from outside: read whole or refused in one line, whatever is in it.

What it gives is safe to walk, to compute with and to write down again: not nested deep enough to exhaust
the stack, no integer that no float can hold, no name twice in an object, no half of a character.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

MAX_DEPTH = 100
"""Objects and lists within one another. Formats we read need 12; recursion ends at about 1,000."""

MAX_PARTS = 1_000_000
"""Objects and lists in one document: an empty list is 2 bytes in the file and 60 in memory."""

_MAX_VALUES = 5_000_000
"""In one document, told by its commas: a value is two bytes in the file and up to 60 in memory."""

_MAX_DIGITS = 20
"""Of an integer: 64 bits, signed or not. Python converts larger ones slowly, and not to a float at all."""

_HALVES = re.compile(r"\\u[dD][89a-fA-F]")
"""Where an escaped half of a character may be; most texts have none."""


class BadJsonError(ValueError):
    """A text is not JSON, or is JSON that nothing here needs: what is wrong with it, in a few words."""


def parse_json(data: bytes | str) -> object:
    """Return the one document that a text holds. The caller has bounded its length.

    Raises:
        BadJsonError: it is not JSON in UTF-8, has more than ``MAX_PARTS`` objects and lists or five million
            values, is nested more than ``MAX_DEPTH`` deep, gives an object one name twice, or holds an
            integer of more than 64 bits or half of a character.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise BadJsonError(f"not UTF-8 at byte {error.start}") from None
    if (parts := text.count("{") + text.count("[")) > MAX_PARTS:
        raise BadJsonError(f"more than {MAX_PARTS} objects and lists")
    if text.count(",") > _MAX_VALUES:
        raise BadJsonError(f"more than {_MAX_VALUES} values")
    try:
        document: object = _DECODER.decode(text)
    except RecursionError:
        raise BadJsonError(f"nested more than {MAX_DEPTH} deep") from None
    except json.JSONDecodeError as error:
        cut = " -- it ends early" if error.pos >= len(error.doc.rstrip()) else ""
        raise BadJsonError(f"{error}{cut}") from None
    if parts > MAX_DEPTH and _too_deep(document):
        raise BadJsonError(f"nested more than {MAX_DEPTH} deep")
    if _HALVES.search(text) and not _encodes(document):
        raise BadJsonError("half of a character: a surrogate without the other")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise BadJsonError(f"the name {twice[:40]!a} is given twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_DIGITS:
        raise BadJsonError(f"an integer of {len(digits)} digits; expected at most {_MAX_DIGITS}")
    return int(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def _too_deep(document: object) -> bool:
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            part
            for parent in level
            for part in (parent.values() if isinstance(parent, dict) else parent)  # type: ignore[attr-defined]
            if isinstance(part, (dict, list))
        ]
        if not level:
            return False
    return True


def _encodes(document: object) -> bool:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
