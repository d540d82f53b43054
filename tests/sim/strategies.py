"""What strategies of several files share."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


@lru_cache(maxsize=None, typed=True)  # 1 and 1.0 are other options
def sampled(*options: Hashable) -> st.SearchStrategy:
    """Draw one of these; made once: Hypothesis takes longer to make a strategy anew than to draw from it."""
    return st.sampled_from(options)


@lru_cache
def so_many(least: int, most: int | None = None) -> st.SearchStrategy[bytes]:
    """Draw so many bytes, for ``each_of``."""
    return st.binary(min_size=least, max_size=least if most is None else most)


def each_of(drawn: bytes, *options: Sequence[Any]) -> list[Any]:
    """Choose one of each of these, by a byte each; the first ones are the simplest.

    Bytes are drawn at once: where an example is of hundreds of choices, Hypothesis takes longer to make them
    one by one than the simulator takes to run it.
    """
    return [choices[byte % len(choices)] for byte, choices in zip(drawn, options, strict=True)]
