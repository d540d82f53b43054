"""The planner's log lines, for people who asked for them."""

from __future__ import annotations

import logging
import sys

__all__ = ["log_to_stderr"]


def log_to_stderr() -> None:
    """Send sagescale's log to stderr as ``LEVEL - message``, every level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s - %(message)s"))
    logger = logging.getLogger("sagescale")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
