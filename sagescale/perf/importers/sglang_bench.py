"""SGLang's ``bench_serving`` results: JSON lines, one object a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.importers.base import source_file
from sagescale.perf.importers.bench_serve import COMMON_KEYS, bench_serve_run
from sagescale.perf.importers.benchmark import measured
from sagescale.perf.importers.json_text import json_records
from sagescale.perf.importers.look import Look
from sagescale.perf.importers.record import Record

if TYPE_CHECKING:
    from pathlib import Path

    from sagescale.perf.measurement import Measurement

__all__ = ["SGLANG_KEYS", "SglangBenchImporter"]

SGLANG_KEYS = frozenset({"total_output_tokens_retokenized", "mean_e2e_latency_ms", "median_e2e_latency_ms"})
"""Keys of which SGLang's runs have at least one, and vLLM's none (theirs is ``e2el``)."""


class SglangBenchImporter:
    """A JSON lines file, or a folder of them."""

    name = "sglang_bench"

    def recognise(self, look: Look) -> bool:
        """Whether the first record of a file has the keys of a run and one that only SGLang writes."""
        return bool(_files(look))

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read all runs as one configuration. SGLang does not say which model it served."""
        files = _files(Look(path))
        if not files:
            raise InputError(
                f"{path}: no SGLang run (expected {', '.join(sorted(COMMON_KEYS))} and one of "
                f"{', '.join(sorted(SGLANG_KEYS))})"
            )
        runs, engines = [], set()
        for file in files:
            for where, content in json_records(file):
                record = Record(where, content)
                runs.append(bench_serve_run(record))
                engines.add("sglang" if record.text("backend").startswith("sglang") else "")
        return (
            measured(
                runs,
                origin=str(path),
                format_name=self.name,
                files=tuple(source_file(file, path) for file in files),
                engine=engines.pop() if len(engines) == 1 else "",
            ),
        )


def _files(look: Look) -> tuple[Path, ...]:
    return tuple(file.path for file in look.files if file.names >= COMMON_KEYS and file.names & SGLANG_KEYS)
