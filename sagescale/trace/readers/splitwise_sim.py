"""The request CSV of splitwise-sim.

Source: Patel et al., Splitwise, ISCA 2024 (github.com/Mutinifni/splitwise-sim).
"""

from __future__ import annotations

from sagescale.trace.readers.base import Layout
from sagescale.trace.readers.csv_table import CsvFormat
from sagescale.trace.readers.fields import BATCH_OF_ONE, SECONDS, Field

__all__ = ["SPLITWISE_SIM"]

SPLITWISE_SIM = CsvFormat(
    name="splitwise-sim",
    layout=Layout(
        "arrival_timestamp", SECONDS, "prompt_size", "token_size", also=(Field("batch_size", BATCH_OF_ONE),)
    ),
)
