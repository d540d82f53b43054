"""The CSV that Vidur replays, also used for Splitwise's traces.

Source: Agrawal et al., Vidur, MLSys 2024 (``data/processed_traces``).
"""

from __future__ import annotations

from sagescale.trace.readers.base import Layout
from sagescale.trace.readers.csv_table import CsvFormat
from sagescale.trace.readers.fields import SECONDS

__all__ = ["VIDUR"]

VIDUR = CsvFormat(
    name="vidur", layout=Layout("arrived_at", SECONDS, "num_prefill_tokens", "num_decode_tokens")
)
