"""Whether compiled code can be kept between runs: a container may have no place that can be written."""

from __future__ import annotations

import logging

import numba

__all__ = ["CACHED"]

logger = logging.getLogger(__name__)


def _probe() -> None:
    """Be compiled never: asked for only to see whether there is a place for it."""


def _can_cache() -> bool:
    """Say whether numba finds a folder: ``NUMBA_CACHE_DIR``, beside the package, or the user's cache."""
    try:
        numba.njit(cache=True)(_probe)
    except RuntimeError:
        logger.warning(
            "compiled code cannot be kept, every start compiles anew (a minute): "
            "let NUMBA_CACHE_DIR name a folder that can be written"
        )
        return False
    return True


CACHED = _can_cache()
