"""The table of a comparison as CSV: a row a run, in the order of the ranking."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from sagescale.files import written_whole

if TYPE_CHECKING:
    from pathlib import Path

    from sagescale.document import ResultDocument

_RUN = ("name", "policy", "predictor", "kind", "reaches", "attainment", "gpu_hours")
_FOUND = (
    "ratio_to_lower_bound", "regret_gpu_hours", "ttft_p99_ms", "itl_p99_ms", "unfinished", "misses",
    "misses_forecast", "misses_startup", "misses_whole_instances", "misses_policy", "requests_mape",
    "requests_bias", "requests_pinball_p90", "requests_coverage_p90", "misses_faults", "restarted",
    "gpu_hours_lost", "attainment_without_faults", "gpu_hours_without_faults", "config",
)  # fmt: skip


def comparison_csv(path: Path, document: ResultDocument) -> None:
    """Write the table; what is not defined, or a pool that a run has not, is an empty cell.

    ``cost`` is there with a ``gpu_hour_price``.

    Raises:
        InputError: the file cannot be written.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    pools = document.pools
    price = document.gpu_hour_price
    priced = () if price is None else ("cost",)
    rows.writerow((*_RUN, *priced, *(f"{pool}_gpu_hours" for pool in pools), *_FOUND))
    assert document.comparison is not None  # a comparison's document
    reaching = set(document.comparison.reaching)
    for run in document.runs:
        misses, forecast, faults = run.misses, run.forecast.requests, run.faults
        without = None if faults is None else faults.without
        rows.writerow(
            [
                run.name,
                run.policy,
                run.predictor,
                run.kind,
                int(run.name in reaching),
                run.sla.attainment,
                run.gpu_hours.total,
                *(() if price is None else (run.gpu_hours.total * price,)),
                *(run.gpu_hours.pools.get(pool) for pool in pools),
                run.ratio_to_lower_bound,
                run.regret_gpu_hours,
                run.ttft_ms.p99,
                run.itl_ms.p99,
                run.requests.unfinished,
                *(
                    getattr(misses, cause, None)
                    for cause in ("total", "forecast", "startup", "whole_instances", "policy")
                ),
                forecast.mape,
                forecast.bias,
                forecast.pinball_p90,
                forecast.coverage_p90,
                getattr(misses, "faults", None),
                run.requests.restarted,
                None if faults is None else faults.gpu_hours_lost.total,
                None if without is None else without.attainment,
                None if without is None else without.gpu_hours,
                json.dumps(run.config) if run.config else "",
            ]
        )
    with written_whole(path) as stream:
        stream.write(text.getvalue().encode())
