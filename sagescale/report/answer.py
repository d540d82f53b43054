"""The last line of a report: what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from sagescale.report.formats import MARK, NOTHING, count, figure, known, plain, share
from sagescale.report.layout import GOOD, POOR

if TYPE_CHECKING:
    from sagescale.document import AnswerInfo, Choice
    from sagescale.report.layout import Page


def print_answer(page: Page, answer: AnswerInfo | None) -> None:
    """Write what to do; nothing where a document does not say."""
    if answer is None:
        return
    good = answer.take != "neither"
    page.blank()
    for place, way in enumerate(answer.ways or ()):
        said = [
            f"{word} {_sizes(choice)} at most {count(choice.gpus)} GPUs, "
            f"{figure(choice.gpu_hours)} GPU-hours, "
            f"{share(choice.attainment)}{f' {MARK}' if _falls_short(choice, answer) else ''}"
            for word, choice in (("fixed", way.fixed), ("autoscaled", way.autoscaled))
            if choice is not None
        ]
        page.field("ways" if place == 0 else "", plain(way.engines), *(said or ("nothing holds",)))
    page.field(
        "what to do", Text(("" if good else f"{MARK} ") + plain(answer.text), style=GOOD if good else POOR)
    )


def _falls_short(choice: Choice, answer: AnswerInfo) -> bool:
    attained, asked = known(choice.attainment), known(answer.attainment_asked)
    return attained is not None and asked is not None and attained < asked


def _sizes(choice: Choice) -> str:
    """Write the sizes of each pool, ``2-5 prefill + 3 decode:``."""
    ends = {plain(pool): (min(sizes), max(sizes)) for pool, sizes in (choice.sizes or {}).items() if sizes}
    parts = (
        f"{count(low)}-{count(high)} {pool}" if low < high else f"{count(low)} {pool}"
        for pool, (low, high) in ends.items()
    )
    return f"{' + '.join(parts) or NOTHING},"
