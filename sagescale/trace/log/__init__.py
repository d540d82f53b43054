"""A service's own request log: what its columns mean, which rows count, and which cannot be used."""

from __future__ import annotations

from sagescale.trace.log.spec import LogSpec, parse_columns, parse_where

__all__ = ["LogSpec", "parse_columns", "parse_where"]
