"""The Chinese edition: its own words around the same blocks."""

from __future__ import annotations

from console import blocks

EDITIONS = (("README.md", "README.zh.md"), ("docs/tutorial.md", "docs/tutorial.zh.md"))
"""Original and translation."""


def with_blocks_of(translation: str, original: str) -> str:
    """Return a translation with the original's fenced blocks, one for one in their order.

    Raises:
        ValueError: they do not have equally many blocks.
    """
    theirs, ours = list(blocks(original)), list(blocks(translation))
    text = translation
    for old, new in reversed(list(zip(ours, theirs, strict=True))):
        text = text[: old.start] + new.body + text[old.end :]
    return text
