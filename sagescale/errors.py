"""Every error sagescale raises on purpose.

    SagescaleError            the run failed                          exit code 1
    └── InputError            the user's file, key or value is wrong  exit code 2
        └── UnknownFormatError  a file is none of what was expected

A message is one line, written for the person who reads it at 3 a.m.: where (file, line, column or
key), what was found, what was expected, and what to do. Anything else that escapes is a bug.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

LONGEST_LINE = 2000
"""Characters that are printed of what may quote a file."""


class SagescaleError(Exception):
    """The run failed for a reason that its user reads in one line."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        # It may quote what a file holds: nothing of that is a command to a terminal, or fills one.
        super().__init__(one_line(message, LONGEST_LINE))


class InputError(SagescaleError):
    """The user's input is wrong: file, line, value and what was expected are in the message."""

    exit_code = 2


class UnknownFormatError(InputError):
    """A file can be read, and is none of what was expected; another command may know it.

    Attributes:
        path: of the file.
        expected: what it should have been, in words: ``request trace``.
    """

    def __init__(self, message: str, path: str | os.PathLike[str], expected: str) -> None:
        super().__init__(message)
        self.path, self.expected = path, expected


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the known word nearest to a misspelt one.

    Returns:
        ``"; did you mean 'x'?"`` ready to append to a message, or ``""`` when nothing is near.
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def one_line(text: str, most: int) -> str:
    """Return a text as one line of at most ``most`` characters, a ``?`` for each that is not printable."""
    # Never more than is shown: twenty megabytes of words would take a gigabyte as a list.
    words = " ".join(text[: 8 * most].split())
    cut = words if len(words) <= most and len(text) <= 8 * most else f"{words[: most - 3]}..."
    return "".join(letter if letter.isprintable() else "?" for letter in cut)
