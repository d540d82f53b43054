"""BurstGPT: requests to ChatGPT and GPT-4 on a campus over months.

Source: Wang et al., BurstGPT, KDD 2025. Its first release has no ``Session ID`` and ``Elapsed time``. A row
with 0 response tokens is a request that failed.
"""

from __future__ import annotations

from sagescale.trace.readers.base import Layout
from sagescale.trace.readers.csv_table import CsvFormat
from sagescale.trace.readers.fields import SECONDS

__all__ = ["BURSTGPT"]

BURSTGPT = CsvFormat(
    name="burstgpt",
    layout=Layout(
        "Timestamp",
        SECONDS,
        "Request tokens",
        "Response tokens",
        zero_osl="failed requests (0 response tokens)",
    ),
)
