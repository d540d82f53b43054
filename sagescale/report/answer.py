"""The last line of a report: what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.formats import MARK, plain
from sagescale.report.layout import GOOD, POOR

if TYPE_CHECKING:
    from sagescale.document import AnswerInfo
    from sagescale.report.layout import Page

__all__ = ["print_answer"]


def print_answer(page: Page, answer: AnswerInfo | None) -> None:
    """Write what to do; nothing where a document does not say."""
    if answer is None:
        return
    good = answer.take != "neither"
    page.blank()
    page.field(
        "what to do", Text(("" if good else f"{MARK} ") + plain(answer.text), style=GOOD if good else POOR)
    )
