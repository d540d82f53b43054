"""sagescale's own format, CSV or Parquet: what ``trace convert``, ``synth`` and ``transform`` write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sagescale.errors import one_line
from sagescale.trace.readers.base import Layout, Rows
from sagescale.trace.readers.csv_table import CsvFormat
from sagescale.trace.readers.fields import SECONDS
from sagescale.trace.readers.parquet_table import read_parquet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sagescale.trace.recognise import Head
    from sagescale.trace.source import Source

__all__ = ["SAGESCALE"]

_LAYOUT = Layout("arrival_s", SECONDS, "isl", "osl", cached="cached_tokens", priority="priority")


def _other_columns(columns: Mapping[str, NDArray[Any]], head: Head) -> tuple[str, ...]:
    """Name the columns not used: one of them may be a misspelt ``cached_tokens``."""
    return tuple(f"column '{one_line(name, 60)}' is not used" for name in head.columns if name not in columns)


_CSV = CsvFormat("sagescale", _LAYOUT, warn=_other_columns)


class _Sagescale:
    """One format in two containers."""

    name = "sagescale"
    layout = _LAYOUT
    shape = f"CSV or Parquet {_LAYOUT.describe()}"

    def recognise(self, head: Head) -> bool:
        """Tell whether the file has the three columns."""
        return head.kind in ("csv", "parquet") and _LAYOUT.found_in(head)

    def read(self, source: Source, head: Head) -> Rows:
        """Read every row of either container.

        Raises:
            InputError: naming file, line or row, column and value, and what was expected.
        """
        if head.kind == "parquet":
            columns = read_parquet(source, head, _LAYOUT)
            return _LAYOUT.rows(columns, _other_columns(columns, head))
        return _CSV.read(source, head)


SAGESCALE = _Sagescale()
