"""The arena and the policies it brings are no part of the package: they are found where they lie."""

from __future__ import annotations

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
for folder in (REPO / "examples" / "policies", REPO / "benchmarks" / "arena"):
    sys.path.insert(0, str(folder))
