"""Azure LLM inference traces of 2023 and 2024: conversation and coding services.

Source: Azure Public Dataset; Patel et al., Splitwise, ISCA 2024; Stojkovic et al., DynamoLLM, HPCA 2025. The
2023 files have seven decimals and CRLF; those of 2024 carry ``+00:00`` and leave the decimals out when 0.
"""

from __future__ import annotations

from sagescale.trace.readers.base import Layout
from sagescale.trace.readers.csv_table import CsvFormat
from sagescale.trace.readers.fields import WALL_CLOCK

__all__ = ["AZURE"]

AZURE = CsvFormat(
    name="azure",
    layout=Layout("TIMESTAMP", WALL_CLOCK, "ContextTokens", "GeneratedTokens"),
    absent=frozenset({"NumImages"}),
)
