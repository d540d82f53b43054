"""Reports: everything here is rendered from a result document and knows nothing else."""

from __future__ import annotations

from sagescale.report.terminal import print_run

__all__ = ["print_run"]
