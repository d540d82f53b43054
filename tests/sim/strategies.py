"""What strategies of several files share."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Hashable


@lru_cache(maxsize=None, typed=True)  # 1 and 1.0 are other options
def sampled(*options: Hashable) -> st.SearchStrategy:
    """Draw one of these; made once: Hypothesis takes longer to make a strategy anew than to draw from it."""
    return st.sampled_from(options)
