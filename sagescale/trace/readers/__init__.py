"""Trace formats, one a file. A new one is a module here and a line in ``READERS``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.trace.readers.apex import APEX
from sagescale.trace.readers.azure import AZURE
from sagescale.trace.readers.azure_lmm import AZURE_LMM
from sagescale.trace.readers.burstgpt import BURSTGPT
from sagescale.trace.readers.mooncake import MOONCAKE
from sagescale.trace.readers.qwen import QWEN
from sagescale.trace.readers.sagescale import SAGESCALE
from sagescale.trace.readers.splitwise_sim import SPLITWISE_SIM
from sagescale.trace.readers.vidur import VIDUR

if TYPE_CHECKING:
    from sagescale.trace.readers.base import Reader

__all__ = ["READERS"]

READERS: tuple[Reader, ...] = (
    SAGESCALE,
    AZURE,
    AZURE_LMM,
    BURSTGPT,
    MOONCAKE,
    QWEN,
    VIDUR,
    SPLITWISE_SIM,
    APEX,
)
