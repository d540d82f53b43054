"""Azure multimodal (LMM) inference traces of 2025: requests that may carry images.

Source: Azure Public Dataset; Qiu et al., ModServe, SoCC 2025. Images are counted and left out: encoding them
is neither prefill nor decode, and nothing here models it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sagescale.trace.readers.base import Layout
from sagescale.trace.readers.csv_table import CsvFormat
from sagescale.trace.readers.fields import COUNT, WALL_CLOCK, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sagescale.trace.recognise import Head

__all__ = ["AZURE_LMM"]


def _images_left_out(columns: Mapping[str, NDArray[Any]], head: Head) -> tuple[str, ...]:  # noqa: ARG001 - Warn
    images = columns["NumImages"]
    carriers = int((images > 0).sum())
    if not carriers:
        return ()
    return (f"{carriers} requests carry {int(images.sum())} images: encoding them is not modelled",)


AZURE_LMM = CsvFormat(
    name="azure-lmm",
    layout=Layout(
        "TIMESTAMP", WALL_CLOCK, "ContextTokens", "GeneratedTokens", also=(Field("NumImages", COUNT),)
    ),
    warn=_images_left_out,
)
