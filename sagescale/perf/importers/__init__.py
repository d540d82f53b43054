"""The formats that profiles are imported from, one a file; recognised by content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sagescale.errors import InputError, UnknownFormatError, did_you_mean
from sagescale.perf.importers.aiconfigurator import AICONFIGURATOR
from sagescale.perf.importers.aiperf import AIPERF
from sagescale.perf.importers.bench_serve import SGLANG_BENCH, VLLM_BENCH
from sagescale.perf.importers.dynamo import DynamoImporter, DynamoPreSweptImporter
from sagescale.perf.importers.genai_bench import GENAI_BENCH
from sagescale.perf.importers.guidellm import GUIDELLM
from sagescale.perf.importers.inference_perf import INFERENCE_PERF
from sagescale.perf.importers.measurement_json import MeasurementImporter
from sagescale.perf.importers.source import looks, open_source
from sagescale.perf.importers.splitwise import SPLITWISE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sagescale.perf.importers.source import Look
    from sagescale.perf.measurement import Measurement

__all__ = ["IMPORTERS", "Importer", "importer_for"]


class Importer(Protocol):
    """One source format: says whether a path is of it, and reads it."""

    @property
    def name(self) -> str:
        """The word for ``--format``."""

    def recognise(self, path: Path, files: Sequence[Look]) -> bool:
        """Whether the file or folder is of this format, by a look at its files; never raises."""

    def read(self, path: Path) -> tuple[Measurement, ...]:
        """Read every configuration in the source. Raises InputError naming file, place and value."""


IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        DynamoImporter(),
        DynamoPreSweptImporter(),
        MeasurementImporter(),
        VLLM_BENCH,
        SGLANG_BENCH,
        AIPERF,
        GUIDELLM,
        INFERENCE_PERF,
        GENAI_BENCH,
        AICONFIGURATOR,
        SPLITWISE,
    )
}


def importer_for(path: Path, format_name: str | None) -> Importer:
    """Return the importer named, or the one that recognises the content.

    Raises InputError for an unknown name, a path that does not exist or is too large, content that no
    importer or more than one recognises.
    """
    names = ", ".join(IMPORTERS)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not path.is_dir():
        open_source(path).close()  # refused now if it ever is
    if format_name is not None:
        if format_name not in IMPORTERS:
            hint = did_you_mean(format_name, IMPORTERS)
            raise InputError(f"format '{format_name}': unknown (expected one of: {names}){hint}")
        return IMPORTERS[format_name]
    files = looks(path)
    found = [importer for importer in IMPORTERS.values() if importer.recognise(path, files)]
    if len(found) == 1:
        return found[0]
    if found:
        candidates = ", ".join(importer.name for importer in found)
        raise InputError(f"{path}: could be any of: {candidates} (choose one with --format)")
    problem = "" if path.is_dir() or not files else files[0].problem
    unknown = f"{path}: not a profile source of a known format (expected one of: {names})"
    raise UnknownFormatError(problem or unknown, path, "a profile source")
