"""vLLM's ``bench serve`` results: a JSON object, JSON lines (``--append-result``) or a sweep's tree."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sagescale.errors import InputError
from sagescale.perf.importers.base import source_file
from sagescale.perf.importers.bench_serve import COMMON_KEYS, bench_serve_run
from sagescale.perf.importers.benchmark import measured
from sagescale.perf.importers.json_text import json_records
from sagescale.perf.importers.look import Look
from sagescale.perf.importers.record import Record
from sagescale.perf.importers.sglang_bench import SGLANG_KEYS

if TYPE_CHECKING:
    from pathlib import Path

    from sagescale.perf.measurement import Measurement

__all__ = ["VllmBenchImporter"]

_KEYS = COMMON_KEYS | {"num_prompts"}
_SERVER = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "max_num_seqs",
    "max_num_batched_tokens",
)


class VllmBenchImporter:
    """A result file, or a folder of them such as ``bench sweep serve`` writes.

    A sweep's ``summary.json`` repeats the ``run=N.json`` beside it, and is read where there are none.
    """

    name = "vllm_bench"

    def recognise(self, look: Look) -> bool:
        """Whether the first record of a file has the keys of a run, and none of SGLang's."""
        return bool(_files(look))

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read all runs, one configuration for each server setting a sweep varied."""
        files = _files(Look(path))
        if not files:
            raise InputError(f"{path}: no vLLM run (expected {', '.join(sorted(_KEYS))})")
        servers: dict[tuple[tuple[str, float], ...], list[tuple[Path, Record]]] = {}
        model = None
        for file in files:
            for where, content in json_records(file):
                record = Record(where, content)
                said = record.text("model_id")
                if model not in {None, said}:
                    record.fail("model_id", said, f"{model}, as in the runs before")
                model = said
                servers.setdefault(_server(record), []).append((file, record))
        return tuple(_measurement(path, dict(server), runs) for server, runs in sorted(servers.items()))


def _files(look: Look) -> tuple[Path, ...]:
    found = [file.path for file in look.files if file.names >= _KEYS and not file.names & SGLANG_KEYS]
    runs = {path.parent for path in found if path.name != "summary.json"}
    return tuple(
        path
        for path in found
        if path.name != "summary.json" or not any(path.parent in (run, *run.parents) for run in runs)
    )


def _server(record: Record) -> tuple[tuple[str, float], ...]:
    """Return what a sweep varied of the server, which it adds to every run."""
    return tuple((key, value) for key in _SERVER if (value := record.number_or_none(key, above=0.0)))


def _measurement(root: Path, server: dict[str, float], runs: list[tuple[Path, Record]]) -> Measurement:
    settings = {key: int(value) for key, value in server.items()}
    first = runs[0][1]
    part = measured(
        [bench_serve_run(record) for _, record in runs],
        origin=str(root),
        format_name=VllmBenchImporter.name,
        files=tuple(source_file(file, root) for file in dict.fromkeys(file for file, _ in runs)),
        model=first.text("model_id"),
        engine="vllm" if first.text("backend", "endpoint_type") in {"", "vllm"} else "",
    )
    return replace(
        part,
        tensor_parallel=settings.get("tensor_parallel_size"),
        max_num_seqs=settings.get("max_num_seqs"),
        variant=", ".join(f"{key} {value}" for key, value in settings.items()),
    )
