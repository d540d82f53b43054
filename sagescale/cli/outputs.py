"""Result documents to files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from sagescale.document import BacktestDocument, ResultDocument, TuneDocument

__all__ = ["write_json"]


def write_json(path: Path, document: ResultDocument | BacktestDocument | TuneDocument) -> None:
    """Write a result document; equal documents make equal bytes.

    Raises:
        InputError: the file cannot be written.
    """
    from sagescale.files import written_whole

    text = json.dumps(document, indent=1, allow_nan=False)
    with written_whole(path) as stream:
        stream.write(text.encode() + b"\n")
