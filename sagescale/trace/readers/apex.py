"""APEX's request traces: offsets from the start in ns.

Source: Lin et al., APEX (a simulator of LLM serving), arXiv 2411.17651.
"""

from __future__ import annotations

from sagescale.trace.readers.base import Layout
from sagescale.trace.readers.fields import NS
from sagescale.trace.readers.json_lines import JsonLinesFormat

__all__ = ["APEX"]

APEX = JsonLinesFormat(name="apex", layout=Layout("StartTimeOffset", NS, "ContextTokens", "GeneratedTokens"))
