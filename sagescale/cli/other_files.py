"""What a file is that a command cannot take, and which command can."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from sagescale.errors import LONGEST_LINE, InputError, one_line
from sagescale.files import shown_path

if TYPE_CHECKING:
    from sagescale.errors import UnknownFormatError


def in_words(error: UnknownFormatError) -> str:
    """Return the error's message, or where the file is known otherwise, what it is and what to do with it."""
    path = Path(error.path)
    if not path.is_file():
        return str(error)
    name = shlex.quote(shown_path(path))
    for kind_of, expected, command in (
        (_journal, "a journal", f"sagescale explain {name}"),
        (_result, "a result document", f"sagescale report {name}"),
        (_profile, "a profile document", f"--profile {name}"),
        (_profile_source, "a profile source", f"sagescale profile import {name} --out PROFILE.yaml"),
        (_trace, "a request trace", f"sagescale trace info {name}"),
    ):
        if expected != error.expected and (kind := kind_of(path)):
            return one_line(f"{name}: is {kind}; expected {error.expected}. Try: {command}", LONGEST_LINE)
    return str(error)


def _journal(path: Path) -> str:
    with path.open("rb") as stream:
        return "a journal of sagescale plan" if stream.read(16) == b"SQLite format 3\0" else ""


def _result(path: Path) -> str:
    from sagescale.perf.importers.source import look_at

    return "a result of sagescale" if look_at(path).has(frozenset({"schema_version", "runs"})) else ""


def _profile(path: Path) -> str:
    with path.open("rb") as stream:
        return "a profile" if stream.read(26) == b"schema: sagescale.profile/" else ""


def _profile_source(path: Path) -> str:
    from sagescale.perf.importers import IMPORTERS
    from sagescale.perf.importers.source import looks

    files = looks(path)
    names = [importer.name for importer in IMPORTERS.values() if importer.recognise(path, files)]
    return f"a benchmark of an engine ({' or '.join(names)})" if names else ""


def _trace(path: Path) -> str:
    from sagescale.trace.read import format_of

    try:
        return f"a request trace ({format_of(path)})"
    except InputError:
        return ""
